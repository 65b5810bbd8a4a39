"""The mark of each run in a live table: whether its setting is the best, or worse than the best."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..engine.experiment.folder import Experiment
from ..engine.experiment.records import State
from ..engine.watch.best import Better
from ..engine.watch.status import Status
from .ranking import metric_of, ranking
from .runs import Run, read_one
from .settings import group, seeds
from .verdict import BEST, WORSE


class Watched(Protocol):
    """One experiment of a live table."""

    @property
    def experiment(self) -> Experiment: ...

    @property
    def status(self) -> Status: ...


class Marks:
    """The marks of a table that is drawn again and again; they change if another run finishes."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}  # the finished ones
        self._words: dict[str, str] = {}

    def of(self, sheep: Iterable[Watched]) -> dict[str, str]:
        """`best` or `worse` by signature, of finished runs. A run without a verdict has none."""
        done = {one.experiment.sig: one for one in sheep if one.status.state == State.COMPLETED}
        if done.keys() != self._runs.keys():
            self._runs = {
                sig: self._runs.get(sig) or read_one(one.experiment, one.status)
                for sig, one in done.items()
            }
            self._words = words(list(self._runs.values()))
        return self._words


def words(runs: Sequence[Run]) -> dict[str, str]:
    """Nothing at all if no setting is worse: the highest of several equal ones is no winner."""
    over = seeds(runs)
    better = Better.of(run.birth for run in runs)
    found = ranking(group(runs, over), metric_of(runs, better), better, over)
    if not found.of_verdict(WORSE):
        return {}
    marked = [*found.of_verdict(BEST), *found.of_verdict(WORSE)]
    return {run.sig: one.verdict for one in marked for run in one.setting.runs}
