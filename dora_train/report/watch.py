"""The live table of `dora grid` for any experiments. It never submits or cancels anything.

The grid file is not run, so the columns of its explorer are not known. The columns are the metrics
that the runs stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from types import SimpleNamespace
from typing import Any

from ..engine.experiment.folder import Experiment
from ..engine.experiment.records import Job
from ..engine.jobs.executor import Executor
from ..engine.shell import typed
from ..engine.watch.board import META, Board, Line, heading, meta
from ..engine.watch.columns import Part
from ..engine.watch.live import DORA_INTERVAL, Monitor
from ..engine.watch.status import Status
from .labels import labels
from .marks import Marks
from .parameters import by_separation, differing
from .runs import BEST_PLACES, Run, metric_names, read_one, statuses_of, told_by
from .sheet import base_of, metric_column


@dataclass
class Watched:
    """One experiment, with its status as of the last look."""

    experiment: Experiment
    status: Status

    @property
    def job(self) -> Job | None:
        return self.experiment.job()


class LiveTable:
    """The table that the monitor draws again and again. A finished run is read once."""

    def __init__(self, name: str, runs: Sequence[Run]):
        self.name = name
        self.sheep = [Watched(run.experiment, run.status) for run in runs]
        self.names = labels(runs, by_separation([runs], differing(runs)))
        self.base = base_of(runs)
        self.better = told_by(runs)
        self._runs = list(runs)
        self._marks = Marks()
        self._drawn: tuple[list[Run], int | None, Board] | None = None

    def rows(self, trim: int | None = None, trim_last: bool = False) -> list[Run]:
        """The runs as they are now. The monitor passes `trim`; it has no meaning here."""
        self._runs = [_again(run, one) for run, one in zip(self._runs, self.sheep)]
        return self._runs

    def draw(self, rows: Sequence[Run], most: int | None = None) -> Board:
        """Args: most: lines of the screen. None: without a limit."""
        header = heading(self.name, statuses_of(rows))
        if self._drawn is None or not _is_same(self._drawn[:2], (rows, most)):
            self._drawn = list(rows), most, self._draw(header, rows, most)
        board = self._drawn[2]
        board.header = header  # the time in it goes on
        return board

    def _draw(self, header: str, rows: Sequence[Run], most: int | None) -> Board:
        columns = list(META)
        for name in metric_names(rows):
            if _is_shown(name):
                columns.append(metric_column(tuple(name.split(".")), name, rows))
        marks = self._marks.of(rows)
        lines = []
        for index, (run, name) in enumerate(zip(rows, self.names)):
            group, mark = marks[run.sig]
            own = {"index": index, "sig": run.sig, "name": name, "mark": mark}
            progress = meta(run.state, run.status, run.epochs)
            values = {**_nested(run), "Meta": {**own, **progress}}
            lines.append(Line(run.status, values, group=group))
        names = dict.fromkeys(line.group for line in lines)
        parts = {name: Part(name, "", self.better) for name in names if name}
        return Board(header, self.base, columns, lines, self.better, most=most, parts=parts)


def _again(run: Run, one: Watched) -> Run:
    """The run, read once more unless it is finished and was read since.

    It is the same object if nothing has changed.
    """
    if run.finished and one.status == run.status:
        return run
    again = read_one(one.experiment, one.status)
    return run if run.has_same_content(again) else again


def _is_same(
    drawn: tuple[Sequence[Run], int | None], now: tuple[Sequence[Run], int | None]
) -> bool:
    """Whether the same runs are to be drawn on as many lines."""
    (before, lines_before), (rows, lines) = drawn, now
    return lines == lines_before and len(rows) == len(before) and all(map(is_, rows, before))


def _is_shown(metric: str) -> bool:
    return metric not in BEST_PLACES and not metric.startswith("test.")


def _nested(run: Run) -> dict[str, Any]:
    """The last entry of the history, and the metrics of the best epoch under `best`."""
    found: dict[str, Any] = {}
    if run.history:
        found.update(run.history[-1])
    found["best"] = {}
    for name, value in run.metrics.items():
        if name.startswith("best."):
            found["best"][name.removeprefix("best.")] = value
    return found


def watch(name: str, runs: Sequence[Run], executor: Executor | None) -> None:
    """Show the live table until no experiment waits or runs, or until Ctrl-C.

    Args:
        name: what the runs were asked for by. Empty: they are all that there are.

    Raises:
        SystemExit: 130, on Ctrl-C.
    """
    # the options of `dora grid` that the monitor reads
    args = SimpleNamespace(
        trim=None, trim_last=False, interval=DORA_INTERVAL, silent=False, jupyter=False
    )
    monitor = Monitor(LiveTable(name or "all", runs), executor, args, moves=False)
    words = [typed("python"), "-m dora_train.report", name, "--watch"]
    monitor.again = " ".join(filter(None, words))
    monitor.run()
