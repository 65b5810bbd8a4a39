"""Which code an attempt runs, and how many different codes its experiment ran.

session.py is the one user.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import environment
from ..experiment.records import Start
from ..experiments import Experiments

if TYPE_CHECKING:
    from .session import Session


def keep_code(session: "Session", main: Experiments) -> None:
    """Note in the session which code this attempt runs, and keep an archive of it."""
    if not session.ranks.is_first:
        return
    job, token = session.experiment.job(), environment.this_job().token
    # A job that runs a snapshot was told its code: there is no git where the snapshot lies.
    if job is not None and token and job.token == token and job.code.get("hash"):
        session.code = job.code
        return
    session.code, session.edited = main.code.stored(), main.code.edited
    main.code.keep(session.experiment.code_archive(main.code.hash))
    known = [start.code for start in session.experiment.starts()]
    # Once for each code, not at each attempt.
    if main.code.note and session.code not in known:
        session.log(main.code.note)


def number_of_codes(starts: Sequence[Start]) -> int:
    """Return how many different codes the attempts of an experiment ran."""
    number = 0
    for at, start in enumerate(starts):
        if not any(start.same_code(other) for other in starts[:at]):
            number += 1
    return number
