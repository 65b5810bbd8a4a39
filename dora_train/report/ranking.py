"""The settings of a report compared by one metric: their order, and the verdict on each.

The table, the page, the files and the mark in the live table all take their verdicts from here.
`conclusion.py` puts them into words, and `additions.py` says which seeds to add.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..engine.watch.best import MAX, Better
from . import query
from .labels import labels
from .parameters import by_separation, differing
from .runs import Run, joined, metric_names, told_by
from .settings import Setting, group
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

    metric: str  # e.g. test.acc. Empty: no run has a metric
    mode: str  # max or min. Empty: not known
    disagree: bool  # the experiments were told different directions
    over: Sequence[str]  # the keys that runs are grouped over
    entries: list[Ranked] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        return joined(one.setting.runs for one in self.entries)

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
    # Without a direction, any will do: only means and spreads are used.
    compared = compare(values, mode or MAX)
    called = _names(settings, over)
    entries = []
    for at, one in enumerate(settings):
        found = compared[at] if mode else _unjudged(compared[at])
        entries.append(Ranked(one, called[at], found, bool(mode)))
    entries.sort(key=lambda one: _rank(one, metric, better))
    return Ranking(metric, mode, disagree, over, entries)


def ranking_of(runs: Sequence[Run], over: Sequence[str]) -> Ranking:
    """The settings of these runs, compared by the metric that they were told is the main one."""
    better = told_by(runs)
    return ranking(group(runs, over), metric_of(runs, better), better, over)


def _names(settings: Sequence[Setting], over: Sequence[str]) -> list[str]:
    """A name for each setting: the values that tell it from the others."""
    runs = joined(one.runs for one in settings)
    if not runs:
        return []
    firsts = [one.runs[0] for one in settings]
    return labels(firsts, by_separation([firsts], differing(runs, over)))


def _unjudged(found: Comparison) -> Comparison:
    """The mean and the spread, without the comparison with the best setting."""
    return replace(found, difference=None, difference_interval=None, needs=None, paired=False)


def _rank(one: Ranked, metric: str, better: Better) -> tuple[bool, bool, tuple[bool, float]]:
    """To sort by: the best first. A setting with one seed comes after those with several."""
    found = one.found
    return one.verdict != BEST, found.n < 2, better.key(metric, found.mean)


def metric_of(runs: Sequence[Run], better: Better) -> str:
    """The metric to compare settings by: the main metric on the test set, in the best epoch.

    If no run has it on the test set, it is that of the validation. Empty if no run has a metric.
    """
    known = metric_names(runs)
    counts = Counter(run.main_metric for run in runs)
    for main, _ in counts.most_common():
        tested = TEST + main.rpartition(".")[2]
        if tested in known:
            return tested
    return query.main_metric(runs, better)


def is_finite(run: Run, metric: str) -> bool:
    """Whether a run has a value of the metric that can be compared."""
    return abs(run.metrics.get(metric, math.nan)) < LIMIT
