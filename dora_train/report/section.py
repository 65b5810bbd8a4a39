"""The runs of a report that can be compared: their order, their metrics and their ranking."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..engine.watch.best import Better
from . import query, settings
from .parameters import shared
from .ranking import TEST, Ranked, Ranking, metric_of, ranking
from .runs import Run, metric_names, places_of, told_by


@dataclass(eq=False)
class Section:
    """One group of a report, in the order that the user asked for.

    Attributes:
        name: of the group. Empty: the report has one group only.
        found: its runs, in any order.
        over: the whole keys that runs are grouped over.
        sort: a metric or a whole key. Empty: the metric that chose the best epochs.
        reverse: whether the order is reversed.
        chosen: the metrics that the user chose. Empty: all.
    """

    name: str
    found: Sequence[Run]
    over: Sequence[str] = ()
    sort: str = ""
    reverse: bool = False
    chosen: Sequence[str] = ()

    @cached_property
    def better(self) -> Better:
        """The directions of the metrics, as these runs were told."""
        return told_by(self.found)

    @cached_property
    def runs(self) -> list[Run]:
        """The runs in the order of the report."""
        found = query.ordered(self.found, self.sort or self.main, self.better)
        return found[::-1] if self.reverse else found

    @cached_property
    def main(self) -> str:
        """The metric that chose the best epochs: `best.acc`. Empty if there is no metric yet."""
        return query.main_metric(self.found, self.better)

    @cached_property
    def tested(self) -> str:
        """The main metric on the test set: `test.acc`. Empty if no run has it."""
        name = TEST + self.main.rpartition(".")[2]
        return name if name in metric_names(self.found) else ""

    @cached_property
    def base(self) -> dict[str, Any]:
        """What all runs change of the defaults, in the same way. The name says the data set."""
        values = shared(self.found)
        if not self.name:
            return values
        return {key: value for key, value in values.items() if key not in ("data", "task")}

    @property
    def metric(self) -> str:
        """The metric that the runs are sorted by, else their main metric."""
        return self.sort if self._is_by_metric else self.main

    @property
    def _is_by_metric(self) -> bool:
        return self.sort in metric_names(self.found)

    @cached_property
    def compared(self) -> str:
        """The metric that settings are compared by: one of the test set, unless the user chooses.

        `--sort METRIC` chooses it. So does `--metrics` if it leaves out the one of the test set.
        """
        if self._is_by_metric:
            return self.sort
        found = metric_of(self.found, self.better)
        if self.chosen and found not in self.chosen:
            return self.chosen[0]
        return found

    @cached_property
    def ranking(self) -> Ranking:
        """The settings, which are runs grouped over `over`, the best one first.

        Raises:
            UserError: a key of `over` is unknown.
        """
        groups = settings.group(self.runs, self.over)
        return ranking(groups, self.compared, self.better, self.over)

    @cached_property
    def entries(self) -> list[Ranked]:
        """The settings in the order of the report: as ranked, or by a key."""
        found = self.ranking.entries
        if self.sort and not self._is_by_metric:
            place = places_of(self.runs)
            return sorted(found, key=lambda one: min(place[run] for run in one.setting.runs))
        return found[::-1] if self.reverse else found
