"""The settings of a report compared by one metric: their order, and the verdict on each.

Everything that the report says of settings comes from here: the table, the page, the files and
the mark in the live table. The words are in `conclusion.py`, the seeds to add in `additions.py`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..engine.watch.best import MAX, Better
from . import query
from .parameters import differing, names
from .runs import Run
from .settings import Setting
from .verdict import BEST, LIMIT, Comparison, compare

TEST = "test."


@dataclass(frozen=True)
class Ranked:
    """One setting among others."""

    setting: Setting
    name: str  # the values that tell it from the others: lr=0.1
    found: Comparison
    judged: bool  # False: there is no verdict, as the direction of the metric is not known

    @property
    def verdict(self) -> str:
        """`best`, `worse`, `undecided`; empty without a direction."""
        return self.found.verdict if self.judged else ""


@dataclass(frozen=True)
class Ranking:
    """Settings compared by one metric, the best first."""

    metric: str  # test.acc; empty: no run has a metric
    mode: str  # max, min; empty: not known
    disagree: bool  # the experiments were told different directions
    over: Sequence[str]  # the keys that runs are grouped over
    entries: list[Ranked] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        return [run for one in self.entries for run in one.setting.runs]

    def of_verdict(self, verdict: str) -> list[Ranked]:
        return [one for one in self.entries if one.verdict == verdict]


def ranking(
    settings: Sequence[Setting], metric: str, better: Better, over: Sequence[str]
) -> Ranking:
    """Compare settings.

    Args:
        metric: as a run has it, e.g. `test.acc`; empty: there is none.
        over: the keys that the runs of a setting differ in. Runs with the same values of them are
            compared with each other.
    """
    mode = better.mode(metric) if metric else ""
    disagree = better.told.get(metric.rpartition(".")[2]) == ""
    values = {at: one.reached(metric, over) for at, one in enumerate(settings)}
    found = compare(values, mode or MAX)
    runs = [run for one in settings for run in one.runs]
    keys = [key for key in differing(runs) if key not in over] if runs else []
    called = names([one.runs[0] for one in settings], keys)
    entries = [
        Ranked(one, called[at], found[at] if mode else _unjudged(found[at]), bool(mode))
        for at, one in enumerate(settings)
    ]
    entries.sort(key=lambda one: _rank(one, metric, better))
    return Ranking(metric, mode, disagree, over, entries)


def _unjudged(found: Comparison) -> Comparison:
    """Its own mean and spread alone."""
    return replace(found, difference=None, difference_interval=None, needs=None, paired=False)


def _rank(one: Ranked, metric: str, better: Better) -> tuple[bool, bool, tuple[bool, float]]:
    """The best first. A setting with one seed comes after those that can be compared."""
    found = one.found
    return one.verdict != BEST, found.n < 2, better.key(metric, found.mean)


def metric_of(runs: Sequence[Run], better: Better) -> str:
    """What settings are compared by: the main metric on the test set, measured in the best epoch.

    The same of the validation if no run has it on the test set; empty if no run has a metric.
    """
    known = {name for run in runs for name in run.metrics}
    counts = Counter(run.main_metric for run in runs)
    tested = [TEST + main.rpartition(".")[2] for main, _ in counts.most_common()]
    return next((name for name in tested if name in known), query.main_metric(runs, better))


def is_finite(run: Run, metric: str) -> bool:
    """Whether a run has a value that can be compared."""
    return abs(run.metrics.get(metric, math.nan)) < LIMIT
