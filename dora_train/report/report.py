"""From names and options to runs, settings and tables: used by the command, `frame` and the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..engine.errors import UserError
from ..engine.jobs.executor import Executor
from ..engine.watch.best import Better
from . import query, settings, sheet
from .names import Outputs
from .ranking import Ranked, Ranking, metric_of, ranking
from .ranking_sheet import sheet_of_ranking
from .records import of_ranking, of_runs
from .runs import Run, metric_names, places_of, read, told_by


@dataclass
class Report:
    """Some experiments in an order.

    Args:
        outputs: the folder of all results.
        names: grids, or beginnings of signatures. Empty: all experiments.
        where: conditions, e.g. `optim.lr=0.1`.
        over: the keys that runs are grouped over, e.g. `("seed",)`; empty: runs are not grouped.
        sort: a metric or a key. Empty: the metric that chose the best epochs.
        reverse: whether the order is reversed.
        chosen_metrics: the metrics to show. Empty: all.
        executor: is asked for the state of jobs. None: only the files are read.
    """

    outputs: Path
    names: Sequence[str] = ()
    where: Sequence[str] = ()
    over: Sequence[str] = ()
    sort: str = ""
    reverse: bool = False
    chosen_metrics: Sequence[str] = ()
    executor: Executor | None = None

    @cached_property
    def runs(self) -> list[Run]:
        """The runs in the order of the report.

        Raises:
            UserError: a name or a key is unknown, or no run is left by a condition.
        """
        found = read(Outputs(self.outputs).experiments(self.names), self.executor)
        left = query.ordered(query.filtered(found, self.where), self._key(found), told_by(found))
        return left[::-1] if self.reverse else left

    def _key(self, runs: Sequence[Run]) -> str:
        if self.sort:
            return query.full_key(self.sort, runs)
        return query.main_metric(runs, told_by(runs))

    @cached_property
    def better(self) -> Better:
        return told_by(self.runs)

    @cached_property
    def key(self) -> str:
        """The whole key that the runs are sorted by."""
        return self._key(self.runs)

    @cached_property
    def metric(self) -> str:
        """The metric that the runs are sorted by, else their main metric."""
        if self.key in self.metrics:
            return self.key
        return query.main_metric(self.runs, self.better)

    @cached_property
    def compared(self) -> str:
        """The metric that settings are compared by: one of the test set, unless the user chooses.

        `--sort METRIC` chooses it. So does `--metrics` if it leaves out the one of the test set.
        """
        if self.sort and self.key in metric_names(self.runs):
            return self.key
        found = metric_of(self.runs, self.better)
        if self.chosen_metrics and found not in self.metrics:
            return self.metrics[0]
        return found

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that the user chose, else all.

        Raises:
            UserError: no run has such a metric.
        """
        known = metric_names(self.runs)
        wanted = self._full_keys(self.chosen_metrics)
        for name in wanted:
            if name not in known:
                raise UserError(
                    f'"{name}" is no metric: {", ".join(known) or "none is known yet"}.'
                )
        return wanted or known

    @property
    def over_keys(self) -> list[str]:
        """The whole keys of `over`."""
        return self._full_keys(self.over)

    def _full_keys(self, keys: Sequence[str]) -> list[str]:
        return [query.full_key(key, self.runs) for key in keys]

    @cached_property
    def ranking(self) -> Ranking:
        """The settings, which are runs grouped over `over`, the best one first.

        Raises:
            UserError: a key of `over` is unknown.
        """
        over = self.over_keys
        return ranking(settings.group(self.runs, over), self.compared, self.better, over)

    @cached_property
    def entries(self) -> list[Ranked]:
        """The settings in the order of the report: as ranked, or by a key."""
        found = self.ranking.entries
        if self.sort and self.key not in metric_names(self.runs):
            place = places_of(self.runs)
            return sorted(found, key=lambda one: place[one.setting.runs[0]])
        return found[::-1] if self.reverse else found

    @property
    def title(self) -> str:
        shown = list(self.names[:3])
        if len(self.names) > 3:
            shown.append("...")
        return " ".join(shown)

    def sheet(self) -> "sheet.Sheet":
        """The table of the runs, or of the settings if runs are grouped."""
        shown = self.metrics if self.chosen_metrics else sheet.for_people(self.metrics)
        if not self.over:
            return sheet.sheet_of_runs(self.title, self.runs, shown, self.better)
        if not self.chosen_metrics:
            # Each metric of a setting is wide: it has a mean and a spread.
            name = self.compared.rpartition(".")[2]
            shown = [one for one in shown if one.rpartition(".")[2] == name]
        return sheet_of_ranking(self.title, self.ranking, shown, self.better, self.entries)

    def records(self) -> list[dict[str, Any]]:
        """The runs as dicts, or the settings if runs are grouped: see records.py."""
        if not self.over:
            return of_runs(self.runs, self.metrics)
        return of_ranking(self.ranking, self.entries, self.metrics)
