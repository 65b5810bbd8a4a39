"""Runs that differ in their seed alone, taken together as one setting.

Only finished runs count. Every setting says how many are not, and what they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..engine.errors import UserError, did_you_mean
from .parameters import differing, frozen, setting
from .runs import Run
from .verdict import Comparison, compare


@dataclass(eq=False)
class Setting:
    """Runs with the same values except for those they are grouped over."""

    runs: list[Run]

    @cached_property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    @property
    def n(self) -> int:
        return len(self.finished)

    def value(self, key: str) -> Any:
        return self.runs[0].value(key)

    def reached(self, metric: str, over: Sequence[str]) -> dict[str, float | None]:
        """What each seed reached; None if its run is not finished, or does not have the metric.

        Two runs of one seed count once: the finished one.
        """
        found: dict[str, float | None] = {}
        for run in sorted(self.runs, key=lambda run: not run.finished):
            value = run.metrics.get(metric) if run.finished else None
            found.setdefault(seed_of(run, over), value)
        return found

    def summary(self, metric: str, over: Sequence[str]) -> Comparison | None:
        """The mean and the spread of a metric over the finished runs; None if none has a value."""
        found = compare({"": self.reached(metric, over)})[""]
        return found if found.n else None


def seed_of(run: Run, over: Sequence[str]) -> str:
    """Equal for runs that are compared with each other: the values of the keys grouped over."""
    return frozen([run.value(key) for key in over])


def seeds(runs: Iterable[Run]) -> list[str]:
    """The keys that one groups over unless told otherwise."""
    return ["seed"] if any("seed" in run.config for run in runs) else []


def group(runs: Iterable[Run], over: Sequence[str]) -> list[Setting]:
    """Settings in the order of their first runs.

    Raises:
        UserError: a key of `over` that no run has.
    """
    found: dict[str, list[Run]] = {}
    known = list(runs)
    for key in over:
        check_key(key, known)
    for run in known:
        found.setdefault(setting(run, over), []).append(run)
    return [Setting(members) for members in found.values()]


def check_key(key: str, runs: Sequence[Run]) -> None:
    """Raises: UserError."""
    keys = dict.fromkeys(name for run in runs for name in [*run.config, *run.choices])
    if key not in keys:
        vary = ", ".join(differing(runs)) or "nothing"
        raise UserError(
            f'unknown key "{key}"{did_you_mean(key, keys)}', f"what differs here: {vary}."
        )
