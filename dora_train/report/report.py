"""From names and options to runs, settings and tables: used by the command, `frame` and the page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..engine.errors import UserError
from ..engine.experiment.finished import Finished
from ..engine.experiment.folder import Experiment
from ..engine.jobs.executor import Executor
from ..engine.machine import without_collections
from ..engine.watch.board import PIPE_WIDTH
from . import query
from .groups import grouped
from .names import Outputs
from .ranking_sheet import sheet_of_ranking
from .records import of_ranking, of_runs
from .run_sheet import sheet_of_runs
from .runs import Run, joined, metric_names, read
from .section import Section
from .sheet import Sheet, for_people

MOST = 30  # runs in a table of the whole folder, unless the user asks for more
MOST_ROWS = 500  # runs in any other table for a person


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
        last: only so many runs, the newest ones. None: all.
        since: only runs that did something after this time, in seconds since the epoch.
        left_out: the number of older runs that the user did not ask to leave out.
    """

    outputs: Path
    names: Sequence[str] = ()
    where: Sequence[str] = ()
    over: Sequence[str] = ()
    sort: str = ""
    reverse: bool = False
    chosen_metrics: Sequence[str] = ()
    executor: Executor | None = None
    last: int | None = None
    since: float | None = None
    left_out: int = 0

    @cached_property
    def found(self) -> list[Run]:
        """The runs that the names, the conditions and the times leave, in any order.

        Raises:
            UserError: a name or a key is unknown, or no run is left.
        """
        with without_collections():
            runs = read(Outputs(self.outputs).experiments(self.names), self.executor)
        Finished(self.outputs).keep([run.experiment for run in runs if run.finished])
        runs = query.filtered(runs, self.where)
        if self.since is not None:
            runs = query.active(runs, self.since)
        if self.last is not None:
            runs = query.newest(runs)[: self.last]
        return runs

    @cached_property
    def sections(self) -> list[Section]:
        """The runs in groups that can be compared, that with the newest run first.

        Raises:
            UserError: a name or a key is unknown, or no run is left by a condition.
        """
        sort = query.full_key(self.sort, self.found) if self.sort else ""
        if not sort and self.is_list:
            sort = query.NEWEST_FIRST
        chosen = self._chosen
        found = []
        for group in grouped(self.found, self.over_keys):
            one = Section(group.name, group.runs, self.over_keys, sort, self.reverse, chosen)
            found.append(one)
        return found

    @property
    def is_list(self) -> bool:
        """Whether the newest runs are asked for: they are listed by their times."""
        return self.last is not None or self.since is not None

    @cached_property
    def runs(self) -> list[Run]:
        """The runs in the order of the report."""
        return joined(section.runs for section in self.sections)

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that the user chose, else all.

        Raises:
            UserError: no run has such a metric.
        """
        return self._chosen or metric_names(self.runs)

    @cached_property
    def _chosen(self) -> list[str]:
        if not self.chosen_metrics:
            return []
        known = metric_names(self.found)
        wanted = [query.full_key(key, self.found) for key in self.chosen_metrics]
        for name in wanted:
            if name not in known:
                raise UserError(
                    f'"{name}" is no metric: {", ".join(known) or "none is known yet"}.'
                )
        return wanted

    @cached_property
    def over_keys(self) -> list[str]:
        """The whole keys of `over`."""
        return [query.full_key(key, self.found) for key in self.over]

    @property
    def title(self) -> str:
        shown = list(self.names[:3])
        if len(self.names) > 3:
            shown.append("...")
        return " ".join(shown)

    def single(self) -> Experiment | None:
        """The experiment, if the user names one by its signature and asks for nothing else."""
        asked = (self.where, self.over, self.sort, self.chosen_metrics, self.last, self.since)
        outputs = Outputs(self.outputs)
        if len(self.names) != 1 or any(asked) or self.names[0] in outputs.grids():
            return None
        return next(iter(outputs.experiments(self.names)))

    def for_a_person(self) -> "Report":
        """The same, with no more runs than a person can read, unless the times were asked for.

        Of a large folder without any choice these are the newest runs, else the first ones in the
        order of the report.
        """
        if self.over or self.is_list:
            return self
        if not self.names and len(self.found) > MOST:
            return self._only(query.newest(self.found)[:MOST], MOST)
        if len(self.found) > MOST_ROWS:
            return self._only(self.runs[:MOST_ROWS])
        return self

    def _only(self, runs: list[Run], last: int | None = None) -> "Report":
        """The report of some of the runs, which are not read again."""
        made = replace(self, last=last, left_out=len(self.found) - len(runs))
        made.__dict__["found"] = runs
        return made

    def sheets(self, width: int = PIPE_WIDTH) -> list[Sheet]:
        """The table of the runs, or a table of the settings for each section.

        Args:
            width: of the screen, in characters.
        """
        if self.over:
            return [self._of_settings(section, width) for section in self.sections]
        note = ""
        if self.left_out:
            which = "last" if self.is_list else "first"
            note = (
                f"the {which} {len(self.runs)} of {len(self.runs) + self.left_out} experiments;"
                " all of them: --last all"
            )
        chosen = self._chosen
        table = sheet_of_runs(self.title, self.sections, chosen, width, self.is_list, note)
        return [table]

    def _of_settings(self, section: Section, width: int) -> Sheet:
        shown = list(self._chosen)
        if not shown:
            # Each metric of a setting is wide: it has a mean and a spread.
            name = section.compared.rpartition(".")[2]
            for metric in for_people(metric_names(section.runs)):
                if metric.rpartition(".")[2] == name:
                    shown.append(metric)
        title = section.name or self.title
        table = sheet_of_ranking(
            title, section.ranking, shown, section.better, section.entries, width
        )
        table.is_section = bool(section.name)
        return table

    def records(self) -> list[dict[str, Any]]:
        """The runs as dicts, or the settings if runs are grouped: see records.py."""
        if not self.over:
            return of_runs(self.sections, self.metrics)
        found = []
        for section in self.sections:
            of_section = of_ranking(section.ranking, section.entries, self.metrics)
            found += [{"group": section.name, **record} for record in of_section]
        return found
