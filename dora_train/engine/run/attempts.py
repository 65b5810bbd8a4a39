"""Gives up a job that starts again and again without getting anywhere.

The attempts are counted in `state.json`. session.py is the one user.
"""

from typing import TYPE_CHECKING

from ..errors import UserError
from ..experiment.records import MOST_IN_VAIN, RunState, State

if TYPE_CHECKING:
    from .session import Session


def attempts_in_vain(before: RunState, job_id: str) -> int:
    """Return the attempts without a new checkpoint, with the one that begins now."""
    # Only a job is started again by itself.
    if not job_id:
        return 0
    # After an end, a person has asked for another start.
    if before.state.ended:
        return 1
    return before.fruitless + 1


def refuse_in_vain(session: "Session", before: RunState) -> None:
    """Fail a job that would be requeued for ever, e.g. out of memory or on a broken node.

    A person may always try again.

    Raises:
        UserError: in a job, after three attempts without a new checkpoint.
    """
    if session.state.job_id and session.state.fruitless > MOST_IN_VAIN and session.ranks.is_first:
        last = before.cause or "ended without reporting a result"
        cause = f"{MOST_IN_VAIN} attempts without a new checkpoint; the last: {last}"
        session.report(State.FAILED, cause=cause)
        raise UserError(f"XP {session.experiment.sig}: {cause}")
