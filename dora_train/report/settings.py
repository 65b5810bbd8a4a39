"""Runs that differ only in their seed, taken together as one setting.

Only finished runs count. Each setting also knows its unfinished runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..engine.errors import UserError, did_you_mean
from .parameters import differing, setting, values_of
from .runs import Run, keys_of
from .verdict import Comparison, compare


@dataclass(eq=False)
class Setting:
    """Runs with the same values except for the keys that they are grouped over."""

    runs: list[Run]

    @cached_property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    @property
    def n(self) -> int:
        return len(self.finished)

    def value(self, key: str) -> Any:
        return self.runs[0].value(key)

    def values(self, keys: Iterable[str]) -> dict[str, Any]:
        return self.runs[0].values(keys)

    def reached(self, metric: str, over: Sequence[str]) -> dict[str, float | None]:
        """The value of a metric by seed. None if the run is not finished, or lacks the metric.

        Two runs with the same seed count once, and the finished one counts.
        """
        found: dict[str, float | None] = {}
        # finished runs first, so that theirs is the value that counts
        for run in sorted(self.runs, key=lambda run: not run.finished):
            value = run.metrics.get(metric) if run.finished else None
            found.setdefault(values_of(run, over), value)
        return found

    def summary(self, metric: str, over: Sequence[str]) -> Comparison | None:
        """The mean and the spread of a metric over the finished runs. None if none has a value."""
        found = compare({"": self.reached(metric, over)})[""]
        return found if found.n else None


def seeds(runs: Iterable[Run]) -> list[str]:
    """The keys to group over if the user names none: the seed, if any run has one."""
    for run in runs:
        if "seed" in run.config:
            return ["seed"]
    return []


def group(runs: Iterable[Run], over: Sequence[str]) -> list[Setting]:
    """Settings in the order of their first runs.

    Raises:
        UserError: a key of `over` that no run has.
    """
    known = list(runs)
    for key in over:
        _check_key(key, known)
    found: dict[str, list[Run]] = {}
    for run in known:
        found.setdefault(setting(run, over), []).append(run)
    return list(map(Setting, found.values()))


def _check_key(key: str, runs: Sequence[Run]) -> None:
    keys = keys_of(run.keys for run in runs)
    if key not in keys:
        vary = ", ".join(differing(runs)) or "nothing"
        raise UserError(
            f'unknown key "{key}"{did_you_mean(key, keys)}', f"what differs here: {vary}."
        )
