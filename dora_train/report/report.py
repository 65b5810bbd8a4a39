"""From names and options to what is shown: the one path that the command, `frame` and the page
share."""

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
from .runs import Run, read


@dataclass
class Report:
    """A choice of experiments, in an order.

    Args:
        over: the keys that runs are grouped over, e.g. `("seed",)`; none: each run is by itself.
        sort: a metric or a value; empty: by the metric that the experiments choose their best epoch
            by.
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
        """Raises: UserError for names and conditions that mean nothing."""
        found = read(Outputs(self.outputs).experiments(self.names), self.executor)
        left = query.ordered(
            query.filtered(found, self.where),
            self._key(found),
            Better.of(run.birth for run in found),
        )
        return left[::-1] if self.reverse else left

    def _key(self, runs: Sequence[Run]) -> str:
        if self.sort:
            return query.full_key(self.sort, runs)
        return query.main_metric(runs, Better.of(run.birth for run in runs))

    @cached_property
    def better(self) -> Better:
        return Better.of(run.birth for run in self.runs)

    @cached_property
    def key(self) -> str:
        """What it is sorted by."""
        return self._key(self.runs)

    @cached_property
    def metric(self) -> str:
        """The main metric of its runs, or the one that they are sorted by."""
        if self.key in self.metrics:
            return self.key
        return query.main_metric(self.runs, self.better)

    @cached_property
    def compared(self) -> str:
        """The metric that settings are compared by: of the test set, unless another is asked for.

        `--sort METRIC` asks for it; so does `--metrics` if it leaves out that of the test set.
        """
        if self.sort and self.key in sheet.metrics_of(self.runs):
            return self.key
        found = metric_of(self.runs, self.better)
        if self.chosen_metrics and found not in self.metrics:
            return self.metrics[0]
        return found

    @cached_property
    def metrics(self) -> list[str]:
        """Those that were asked for, else all.

        Raises:
            UserError: one that no run has.
        """
        known = sheet.metrics_of(self.runs)
        wanted = [query.full_key(name, self.runs) for name in self.chosen_metrics]
        for name in wanted:
            if name not in known:
                raise UserError(
                    f'"{name}" is no metric: {", ".join(known) or "none is known yet"}.'
                )
        return wanted or known

    @property
    def over_keys(self) -> list[str]:
        """`over`, in full."""
        return [query.full_key(key, self.runs) for key in self.over]

    @cached_property
    def ranking(self) -> Ranking:
        """Runs grouped over `over`, the best setting first.

        Raises:
            UserError: `over` names a key that is not there.
        """
        over = self.over_keys
        return ranking(settings.group(self.runs, over), self.compared, self.better, over)

    @cached_property
    def entries(self) -> list[Ranked]:
        """The settings in the order that was asked for: as ranked, or by a value."""
        found = self.ranking.entries
        if self.sort and self.key not in sheet.metrics_of(self.runs):
            place = {run: at for at, run in enumerate(self.runs)}
            return sorted(found, key=lambda one: place[one.setting.runs[0]])
        return found[::-1] if self.reverse else found

    @property
    def title(self) -> str:
        return " ".join(self.names[:3]) + (" ..." if len(self.names) > 3 else "")

    def sheet(self) -> "sheet.Sheet":
        shown = self.metrics if self.chosen_metrics else sheet.for_people(self.metrics)
        if not self.over:
            return sheet.sheet_of_runs(self.title, self.runs, shown, self.better)
        if not self.chosen_metrics:  # one number a setting is the question
            name = self.compared.rpartition(".")[2]
            shown = [one for one in shown if one.rpartition(".")[2] == name]
        return sheet_of_ranking(self.title, self.ranking, shown, self.better, self.entries)

    def records(self) -> list[dict[str, Any]]:
        if not self.over:
            return of_runs(self.runs, self.metrics)
        return of_ranking(self.ranking, self.entries, self.metrics)
