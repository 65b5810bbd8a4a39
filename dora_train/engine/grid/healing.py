"""Lets an open `dora grid` resubmit experiments that something else has interrupted.

It makes the same submission as the next call of `dora grid` would, with the same code. It waits
before each submission, and longer each time that no new checkpoint was saved. After `MOST_IN_VAIN`
such attempts it gives up. faultless.py decides which interruptions are left to the user.
"""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .. import environment
from ..errors import UserError
from ..experiment.folder import Experiment
from ..experiment.records import MOST_IN_VAIN, State
from ..jobs.executor import Executor
from ..shell import typed
from ..watch.status import Status, look
from .faultless import is_faultless
from .memory import more_for
from .request import Outcome
from .sheep import Sheep

FIRST_WAIT = 10.0  # seconds from an interruption to the next submission
LONGEST_WAIT = 600.0

Resume = Callable[[Sequence[Sheep]], Sequence[Outcome]]


@dataclass
class Case:
    """What this command knows about one experiment that was interrupted.

    Attributes:
        restarts: how often this command has submitted it since its last checkpoint.
        checkpoint: that checkpoint, as `_stamp` describes it.
        due: when to submit it, in seconds of the monotonic clock. None: it is not to be submitted.
        left: its status when it was left to the user. None: it was not.
    """

    restarts: int = 0
    checkpoint: tuple[int, int] | None = None
    due: float | None = None
    left: Status | None = None


class Healing:
    """The interruptions of one grid.

    Args:
        grid: its name.
        silent: print nothing.
    """

    def __init__(self, grid: str, silent: bool = False):
        self.grid, self.silent = grid, silent
        self._cases: dict[str, Case] = {}  # by signature

    def heal(self, sheep: Iterable[Sheep], executor: Executor, resume: Resume) -> bool:
        """Resubmit the interrupted experiments whose waiting time is over.

        Args:
            sheep: the experiments of the grid.
            resume: submits experiments as the next `dora grid` would.

        Returns:
            Whether an experiment still waits to be submitted by this command.
        """
        if not environment.heals():
            return False
        due = [one for one in sheep if self._is_due(one)]
        if due:
            self._submit(due, executor, resume)
            for one in due:  # if it could not be submitted, it waits again, for longer
                self._is_due(one)
        return bool(self.pending())

    def pending(self) -> set[str]:
        """The signatures of the interrupted experiments that this command will submit."""
        return {sig for sig, case in self._cases.items() if case.due is not None}

    def minds(self, experiment: Experiment, status: Status) -> bool:
        """Whether this command resubmits an interrupted experiment, or has given it up."""
        return environment.heals() and is_faultless(experiment, status)

    def _is_due(self, sheep: Sheep) -> bool:
        """Whether to submit an experiment now. A new interruption is also noted here."""
        status, sig = sheep.status, sheep.xp.sig
        if status.state not in (State.INTERRUPTED, State.TIMED_OUT) and not self._more(sheep):
            if sig in self._cases:
                self._cases[sig].due = self._cases[sig].left = None
            return False
        case = self._cases.setdefault(sig, Case())
        if case.left == status:
            return False
        if case.due is None:
            self._take_up(case, sheep)
        return case.due is not None and time.monotonic() >= case.due

    def _more(self, sheep: Sheep) -> str:
        """The memory or GPU that its next job gets after it ran out of memory. Empty: no change."""
        return more_for(sheep.experiment.job(), sheep.status, sheep.xp.values)

    def _take_up(self, case: Case, sheep: Sheep) -> None:
        """Decide when to submit an experiment, or leave it to the user."""
        experiment, status = sheep.experiment, sheep.status
        if not (is_faultless(experiment, status) or self._more(sheep)):
            case.left = status
            return
        checkpoint = _stamp(experiment)
        if checkpoint != case.checkpoint:
            case.restarts, case.checkpoint = 0, checkpoint
        # `fruitless` also counts the attempts before this command was started.
        in_vain = max(case.restarts, experiment.state().fruitless)
        if in_vain >= MOST_IN_VAIN and not self._more(sheep):
            case.left = status
            self._say(
                sheep,
                f"not submitted again: {MOST_IN_VAIN} attempts without a new checkpoint, the last "
                f"{status.why}; to try once more: {typed()} grid {self.grid}",
            )
            return
        case.due = time.monotonic() + wait_before(case.restarts)

    def _submit(self, due: Sequence[Sheep], executor: Executor, resume: Resume) -> None:
        by_sig = {one.xp.sig: one for one in due}
        for sig in by_sig:
            self._cases[sig].due = None
        try:
            outcomes = resume(due)
        except UserError as error:
            outcomes = [Outcome(one.experiment, trouble=str(error)) for one in due]
        for outcome in outcomes:
            sheep = by_sig[outcome.experiment.sig]
            self._cases[sheep.xp.sig].restarts += 1
            if outcome.submitted:
                self._say(sheep, f"submitted again: it was {sheep.status.why}")
            elif not outcome.held:
                print(f"{sheep.xp.sig}: not submitted again: {outcome.trouble}", file=sys.stderr)
        statuses = look([one.experiment for one in due], executor)
        for sig, sheep in by_sig.items():
            sheep.status = statuses[sig]

    def _say(self, sheep: Sheep, words: str) -> None:
        if not self.silent:
            print(f"{time.strftime('%H:%M:%S')}  {sheep.xp.sig}  {words}", flush=True)


def wait_before(restarts: int) -> float:
    """Seconds to wait before the next submission.

    Args:
        restarts: the number of submissions since the last checkpoint.

    >>> [wait_before(restarts) for restarts in range(3)]
    [10.0, 20.0, 40.0]
    """
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0**restarts)


def _stamp(experiment: Experiment) -> tuple[int, int] | None:
    """The time and inode of the last checkpoint, which a new one changes. None: there is none."""
    try:
        found = experiment.last_checkpoint.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
