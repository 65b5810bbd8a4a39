"""From names and options to what is shown: the one path that the command, `frame` and the page share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..engine.errors import UserError
from ..engine.grid.best import Better
from ..engine.grid.executor import Executor
from . import query, settings, sheet
from .names import Outputs
from .records import records
from .runs import Run, read
from .settings import Setting


@dataclass
class Report:
    """A choice of experiments, in an order.

    Args:
        over: the keys that runs are grouped over, e.g. `("seed",)`; none: each run is by itself.
        sort: a metric or a value; empty: by the metric that the experiments choose their best epoch by.
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
        """What settings are compared by."""
        return self.key if self.key in self.metrics else query.main_metric(self.runs, self.better)

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
    def settings(self) -> list[Setting]:
        """Runs grouped over `over`, in order.

        Raises:
            UserError: `over` names a key that is not there.
        """
        found = settings.group(self.runs, self.over_keys)
        if self.key not in self.metrics:
            return found
        found = sheet.sort_settings(found, self.key, self.better)
        return found[::-1] if self.reverse else found

    def seeds(self) -> list[str]:
        """What one groups over unless told otherwise."""
        return ["seed"] if any("seed" in run.config for run in self.runs) else []

    @property
    def title(self) -> str:
        return " ".join(self.names[:3]) + (" ..." if len(self.names) > 3 else "")

    def sheet(self) -> "sheet.Sheet":
        shown = self.metrics if self.chosen_metrics else sheet.for_people(self.metrics)
        if not self.over:
            return sheet.sheet_of_runs(self.title, self.runs, shown, self.better)
        if not self.chosen_metrics:  # one number a setting is the question
            shown = [
                name for name in shown if name.rpartition(".")[2] == self.metric.rpartition(".")[2]
            ] or shown
        return sheet.sheet_of_settings(
            self.title, self.settings, self.over_keys, shown, self.better, self.metric
        )

    def records(self) -> list[dict[str, Any]]:
        return records(self.settings if self.over else self.runs, self.metrics, self.over_keys)
