"""What a live table takes from the report: which runs can be compared, and the mark of each.

The mark says whether the setting of a run is the best, or worse than the best.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ..engine.experiment.folder import Experiment
from ..engine.experiment.records import State
from ..engine.watch.status import Status
from .groups import grouped
from .ranking import ranking_of
from .runs import Run, read_one
from .settings import seeds
from .verdict import BEST, WORSE


class Watched(Protocol):
    """One experiment of a live table."""

    @property
    def experiment(self) -> Experiment: ...

    @property
    def status(self) -> Status: ...


class Marks:
    """The marks of a table that is drawn again and again. They change with the states of its runs."""

    def __init__(self) -> None:
        self._finished: dict[str, Run] = {}
        self._words: dict[str, str] = {}
        self._states: dict[str, State] = {}
        self._groups: dict[str, str] = {}

    def of(self, sheep: Iterable[Watched]) -> dict[str, tuple[str, str]]:
        """The name of its group and a word by signature: `best`, `worse`, or empty.

        Only runs of one group can be compared. The word is empty before a run is finished, and
        without a verdict.
        """
        known = {one.experiment.sig: one for one in sheep}
        states = {sig: one.status.state for sig, one in known.items()}
        # The table is drawn every few seconds. A comparison draws thousands of random numbers.
        if states != self._states:
            self._states = states
            self._look(known)
        return {sig: (self._groups[sig], self._words.get(sig, "")) for sig in known}

    def _look(self, known: Mapping[str, Watched]) -> None:
        """Find the groups, as the data of a run are known when it has started, and the words."""
        self._groups = {}
        for group in grouped(list(map(_without_results, known.values()))):
            self._groups |= {run.sig: group.name for run in group.runs}
        done = {sig: one for sig, one in known.items() if one.status.state == State.COMPLETED}
        if done.keys() != self._finished.keys():
            self._finished = {sig: self._read(one) for sig, one in done.items()}
            self._words = words(list(self._finished.values()))

    def _read(self, one: Watched) -> Run:
        """A finished run, which is read once."""
        return self._finished.get(one.experiment.sig) or read_one(one.experiment, one.status)


def _without_results(one: Watched) -> Run:
    """The experiment as far as it says what it is measured on."""
    experiment = one.experiment
    return Run(experiment, one.status, experiment.state(), experiment.birth(), [], {})


def words(runs: Sequence[Run]) -> dict[str, str]:
    """`best` or `worse` by signature. Only runs that can be compared are compared.

    A group of runs has no marks if no setting is worse: the highest of several equal settings is no
    winner.
    """
    marks: dict[str, str] = {}
    for group in grouped(runs):
        found = ranking_of(group.runs, seeds(group.runs))
        if not found.of_verdict(WORSE):
            continue
        for one in [*found.of_verdict(BEST), *found.of_verdict(WORSE)]:
            for run in one.setting.runs:
                marks[run.sig] = one.verdict
    return marks
