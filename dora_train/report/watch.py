"""The live table of `dora grid`, of any experiments, without ever submitting or cancelling.

The grid file is not run, so the explorer's own columns are not known: the metrics are those that
the runs stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from ..engine.experiment.folder import Experiment
from ..engine.experiment.records import Job
from ..engine.jobs.executor import Executor
from ..engine.watch.best import Better
from ..engine.watch.board import META, Board, Column, Line, heading, meta
from ..engine.watch.live import DORA_INTERVAL, Monitor
from ..engine.watch.status import Status
from .marks import Marks
from .parameters import differing, shared, text, titles
from .runs import BEST_PLACES, Run, flat, read_one
from .sheet import metrics_of, style_of


@dataclass
class Watched:
    """One experiment, with its status as of the last look."""

    experiment: Experiment
    status: Status

    @property
    def job(self) -> Job | None:
        return self.experiment.job()


class LiveTable:
    """What the monitor draws again and again; a finished run is read once."""

    def __init__(self, name: str, runs: Sequence[Run]):
        self.name = name
        self.sheep = [Watched(run.experiment, run.status) for run in runs]
        keys = differing(runs)
        short = titles(keys)
        self.names = [
            " ".join(f"{short[key]}={text(run.value(key))}" for key in keys) or "(defaults)"
            for run in runs
        ]
        self.base = " ".join(f"{key}={text(value)}" for key, value in shared(runs).items())
        self.better = Better.of(run.birth for run in runs)
        self._runs = list(runs)
        self._marks = Marks()

    def rows(self, trim: int | None = None, trim_last: bool = False) -> list[Run]:
        self._runs = [
            run
            if run.finished and one.status == run.status
            else read_one(one.experiment, one.status)
            for run, one in zip(self._runs, self.sheep)
        ]
        return self._runs

    def draw(self, rows: Sequence[Run], most: int | None = None) -> Board:
        names = [
            name
            for name in metrics_of(rows)
            if name not in BEST_PLACES and not name.startswith("test.")
        ]
        columns = [
            Column(tuple(name.split(".")), name.replace(".", " "), style_of(rows, name))
            for name in names
        ]
        marks = self._marks.of(rows)
        lines = [
            Line(
                run.status,
                {
                    **_nested(run),
                    "Meta": {
                        "index": index,
                        "sig": run.sig,
                        "name": name,
                        "mark": marks.get(run.sig, ""),
                        **meta(run.state, run.status, run.epochs),
                    },
                },
            )
            for index, (run, name) in enumerate(zip(rows, self.names))
        ]
        header = heading(self.name, [run.status for run in rows])
        return Board(header, self.base, [*META, *columns], lines, self.better, most=most)


def _nested(run: Run) -> dict:
    best = {name: value for name, value in run.metrics.items() if name.startswith("best.")}
    last = run.history[-1] if run.history else {}
    return {**last, "best": {name.partition(".")[2]: value for name, value in flat(best)}}


def watch(name: str, runs: Sequence[Run], executor: Executor | None) -> None:
    """Until nothing waits or runs, or Ctrl-C.

    Raises:
        SystemExit: 130, on Ctrl-C.
    """
    args = SimpleNamespace(
        trim=None, trim_last=False, interval=DORA_INTERVAL, silent=False, jupyter=False
    )
    Monitor(LiveTable(name, runs), executor, args, moves=False).run()
