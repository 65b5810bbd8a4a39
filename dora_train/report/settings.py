"""Runs that differ in their seed alone, taken together: mean, spread, and whether a difference is more than noise.

Only finished runs count. How many are not, and what they are, is part of every setting.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..engine.errors import UserError, did_you_mean
from . import student
from .parameters import differing, setting
from .runs import Run


@dataclass(frozen=True)
class Summary:
    """One metric over `n` runs; the spread of one run is not known (None)."""

    mean: float
    std: float | None  # of the sample: n - 1 in the denominator
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Summary | None":
        if not values:
            return None
        mean = (
            math.fsum(values) / len(values)
            if all(map(math.isfinite, values))
            else sum(values) / len(values)
        )
        known = len(values) > 1 and math.isfinite(mean)
        return cls(mean, statistics.stdev(values) if known else None, len(values))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the mean of ever more seeds would lie, in 95 of 100 cases: Student's t, normal values assumed."""
        if self.std is None:
            return None
        half = student.half_width(self.std, self.n)
        return self.mean - half, self.mean + half


@dataclass(eq=False)
class Setting:
    """Runs with the same values but for those they are grouped over."""

    runs: list[Run]

    @cached_property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    @property
    def n(self) -> int:
        return len(self.finished)

    def value(self, key: str) -> Any:
        return self.runs[0].value(key)

    def summary(self, metric: str) -> Summary | None:
        """Over the finished runs that have it."""
        return Summary.of([run.metrics[metric] for run in self.finished if metric in run.metrics])


@dataclass(frozen=True)
class Gap:
    """How far a mean is behind the best one, with its 95% interval (Welch 1947: unequal variances)."""

    difference: float  # never negative
    half: float | None  # of the interval; None: the spread of one of the two is not known

    @property
    def noise(self) -> bool | None:
        """Whether such a gap also comes about by chance; None: not known."""
        return None if self.half is None else self.half >= self.difference


def gap(best: Summary, other: Summary) -> Gap:
    """Between two means, whichever direction is better."""
    difference = abs(best.mean - other.mean)
    if best.std is None or other.std is None:
        return Gap(difference, None)
    a, b = best.std**2 / best.n, other.std**2 / other.n
    if a + b == 0:
        return Gap(difference, 0.0)
    freedom = (a + b) ** 2 / (a**2 / (best.n - 1) + b**2 / (other.n - 1))
    return Gap(difference, student.quantile(0.975, freedom) * math.sqrt(a + b))


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
