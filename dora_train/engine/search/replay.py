"""A search as a pure function: (seed, the trials so far, their outcomes) -> the next trial.

The optimizer is told of trials in the order in which they were asked for, never in the order of
their ends. Each trial remembers how many trials had been told before it was asked for. So neither
the speed of a trial nor a kill changes a suggestion. Any process can repeat every trial of the
record, and ask for the next one. The price: a slow trial delays the one that is `at_once` places
behind it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .optimizers import Asked, Optimizer
from .outcomes import Outcome

# After so many suggestions in a row that are trials already, the space counts as exhausted.
MAX_REPEATS = 100


@dataclass(frozen=True)
class Trial:
    """One experiment of a search."""

    sig: str
    values: Mapping[str, Any]
    told: int = 0  # how many trials, from the first on, had been told before it was asked for


class Replay:
    """An optimizer, in the state that the trials so far have brought it to.

    Args:
        outcomes: of the trials that have ended, by signature. More may be added later.
        sig_of: returns the signature of the experiment with certain values.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        outcomes: Mapping[str, Outcome],
        sig_of: Callable[[Mapping], str],
    ):
        self.optimizer, self.outcomes, self.sig_of = optimizer, outcomes, sig_of
        self.trials: list[Trial] = []
        self._asked: list[Asked] = []  # of each trial
        self._numbers: dict[str, int] = {}  # of each trial, by signature
        self._told = 0  # the number of trials that the optimizer was told of
        self.is_exhausted = False  # all suggestions are trials already

    def reuse(self, values: Mapping[str, Any], outcome: Outcome) -> None:
        """Tell the optimizer of an experiment that is no trial of this search.

        It must come before the first trial, so that a replay gives the same suggestions.
        """
        self.optimizer.tell(self.optimizer.adopt(values), outcome)

    def repeat(self, trial: Trial) -> None:
        """Ask again for a trial of the record.

        The suggestion may differ, e.g. because a library was updated, or because a trial that had
        failed was finished since. Then the trial of the record counts.
        """
        self._tell(trial.told)
        asked, _ = self._next()
        if asked is None or asked.values != dict(trial.values):
            asked = self.optimizer.adopt(trial.values)
        self._add(trial, asked)

    def ask(self, at_once: int) -> Trial | None:
        """The next trial. None: an earlier trial must end first, or `is_exhausted`."""
        told = self.due(at_once)
        if self.is_exhausted or any(trial.sig not in self.outcomes for trial in self.trials[:told]):
            return None
        self._tell(told)
        asked, sig = self._next()
        if asked is None:
            self.is_exhausted = True
            return None
        self._add(Trial(sig, asked.values, told), asked)
        return self.trials[-1]

    def due(self, at_once: int) -> int:
        """The number of trials that must have been told before the next one is asked for."""
        return max(self._told, len(self.trials) + 1 - at_once)

    def _next(self) -> tuple[Asked | None, str]:
        """A suggestion that is no trial yet, and its signature. None: there is none."""
        for _ in range(MAX_REPEATS):
            asked = self.optimizer.ask()
            sig = self.sig_of(asked.values)
            if sig not in self._numbers:
                return asked, sig
            # The optimizer suggested a trial again. It gets the outcome that it knows already, so
            # that it suggests another one.
            if self._numbers[sig] < self._told:
                self._tell_outcome(asked, sig)
        return None, ""

    def _add(self, trial: Trial, asked: Asked) -> None:
        self._numbers[trial.sig] = len(self.trials)
        self.trials.append(trial)
        self._asked.append(asked)

    def _tell(self, told: int) -> None:
        """Tell the optimizer of the first `told` trials."""
        for number in range(self._told, told):
            self._tell_outcome(self._asked[number], self.trials[number].sig)
        self._told = max(self._told, told)

    def _tell_outcome(self, asked: Asked, sig: str) -> None:
        outcome = self.outcomes.get(sig)
        if outcome is not None and not outcome.silent:
            self.optimizer.tell(asked, outcome)
