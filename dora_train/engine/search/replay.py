"""A search as a pure function: (seed, what was asked, what came of it) -> what to ask next.

Trials are told in the order in which they were asked for, never in that of their ends, and each
remembers how many had been told before it was asked for. So neither the speed of a trial nor a kill
changes a suggestion, and any process can do again what an earlier one did: repeat every trial of
the record, and go on. The price is that a slow trial holds back those that are `at_once` places
behind it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .optimizers import Asked, Optimizer
from .outcomes import Outcome

REPEATS = 100  # suggestions in a row that are trials already: then the space is taken for exhausted


@dataclass(frozen=True)
class Trial:
    """One experiment of a search."""

    sig: str
    values: Mapping[str, Any]
    told: int = 0  # how many trials, from the first on, had been told before it was asked for


class Replay:
    """The optimizer, brought to where the trials so far have brought it.

    Args:
        outcomes: signature -> what came of it, for trials that have ended; may grow.
        sig_of: from values to the signature of their experiment.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        outcomes: Mapping[str, Outcome],
        sig_of: Callable[[Mapping], str],
    ):
        self.optimizer, self.outcomes, self.sig_of = optimizer, outcomes, sig_of
        self.trials: list[Trial] = []
        self._asked: list[Asked] = []
        self._numbers: dict[str, int] = {}
        self._told = 0
        self.is_exhausted = False  # no suggestion is new any more

    def reuse(self, values: Mapping[str, Any], outcome: Outcome) -> None:
        """Tell of an experiment that is no trial of this search; before the first ask."""
        self.optimizer.tell(self.optimizer.adopt(values), outcome)

    def repeat(self, trial: Trial) -> None:
        """Do again what led to a trial of the record.

        Where another suggestion comes out (a library was updated, a trial that had failed was
        finished since), the record stays right: what was asked then is what runs.
        """
        self._tell(trial.told)
        asked, _ = self._next()
        if asked is None or asked.values != dict(trial.values):
            asked = self.optimizer.adopt(trial.values)
        self._add(trial, asked)

    def ask(self, at_once: int) -> Trial | None:
        """The next trial; None where it is not time yet, or `is_exhausted`."""
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
        """How many trials must have been told before the next one is asked for."""
        return max(self._told, len(self.trials) + 1 - at_once)

    def _next(self) -> tuple[Asked | None, str]:
        """A suggestion that is no trial yet.

        One that is, is answered with what is known of it, and asked for anew.
        """
        for _ in range(REPEATS):
            asked = self.optimizer.ask()
            sig = self.sig_of(asked.values)
            if sig not in self._numbers:
                return asked, sig
            if self._numbers[sig] < self._told:
                self._say(asked, sig)
        return None, ""

    def _add(self, trial: Trial, asked: Asked) -> None:
        self._numbers[trial.sig] = len(self.trials)
        self.trials.append(trial)
        self._asked.append(asked)

    def _tell(self, told: int) -> None:
        for number in range(self._told, told):
            self._say(self._asked[number], self.trials[number].sig)
        self._told = max(self._told, told)

    def _say(self, asked: Asked, sig: str) -> None:
        outcome = self.outcomes.get(sig)
        if outcome is not None and not outcome.silent:
            self.optimizer.tell(asked, outcome)
