"""How an attempt ends: it writes its state and its cause, and leaves with an exit code.

session.py is the one user.
"""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...data_error import DataError
from ..errors import UserError
from ..experiment.records import State
from ..shell import typed
from ..words import shown_path
from .failures import full, is_lost_rank
from .signals import Interrupted, Stopped

if TYPE_CHECKING:
    from .session import Session


@contextmanager
def end_recorded(session: "Session") -> Iterator[None]:
    """Write the state and the cause of a run that leaves the block before it is finished.

    Such a run never exits with 0, unless its search stopped it.

    Raises:
        SystemExit: a signal or a search ended it, or the code exited by itself.
        UserError: main returned too early, a data file is missing, or another rank is gone.
    """
    sig = session.experiment.sig
    try:
        yield
        if not session.finished:
            raise UserError(f"main returned before XP {sig} reached its end.")
    except Interrupted as interrupt:
        _interrupted(session, interrupt.signum)
    except KeyboardInterrupt:
        _interrupted(session, signal.SIGINT)
    except Stopped as stop:
        session.end(State.STOPPED, str(stop))
        session.log(f"stopped by its search: {stop} · finish it: {typed()} run -f {sig}")
        # It did what it was asked to do. On another code, a scheduler would start it again.
        sys.exit(0)
    except SystemExit as leaving:
        if session.finished:
            raise
        # Lightning 2.6.6 turns a KeyboardInterrupt, of a second Ctrl-C, into exit code 1.
        if session.signals.signum:
            _interrupted(session, session.signals.signum)
        # sys.exit(0) in the middle of a training is no failure. It can be resumed.
        left = State.FAILED if leaving.code else State.INTERRUPTED
        session.end(left, f"left with exit code {leaving.code}")
        sys.exit(leaving.code or 1)
    except BaseException as error:
        if is_lost_rank(error, session.ranks.world_size):
            _lost(session, error)
        if not session.finished:
            session.end(State.FAILED, cause_of(error))
        # Its message says what to do about a file that is missing or damaged.
        if isinstance(error, DataError):
            raise UserError(str(error)) from error
        _log_error(session, error)
        raise


def _interrupted(session: "Session", signum: int) -> None:
    """Leave as a shell reports a signal: with 128 + its number."""
    name = signal.Signals(signum).name
    session.end(State.INTERRUPTED, f"interrupted by {name}")
    session.log(f"interrupted by {name} · go on: {typed()} run -f {session.experiment.sig}")
    sys.exit(128 + signum)


def _lost(session: "Session", error: BaseException) -> None:
    """Leave because another rank was killed, or its node was.

    Raises:
        UserError: always.
    """
    # If that rank failed by itself, it has written its own cause, which stays.
    session.end(State.INTERRUPTED, "another rank is gone")
    # The network or the driver may be the cause, with all ranks alive.
    _log_error(session, error)
    folder = shown_path(session.experiment.folder)
    raise UserError(
        f"XP {session.experiment.sig}: another rank is gone, so rank {session.ranks.rank} leaves.",
        f"what it saw: {both_ends(error)}",
        f"their logs: {folder}/worker_*.log; of a job: {folder}/submitit",
    ) from error


def _log_error(session: "Session", error: BaseException) -> None:
    """Write the traceback of a bug into `train.log`. Python itself prints it on the terminal."""
    if session.ranks.is_first and not isinstance(error, UserError) and not full(error):
        with open(session.experiment.log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)))


def cause_of(error: BaseException) -> str:
    """Return one line: the type and the first line of an error, or a user's message alone."""
    if isinstance(error, (UserError, DataError)):
        return str(error).splitlines()[0]
    kind = type(error)
    name = kind.__name__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    lines = str(error).strip().splitlines()
    return f"{name}: {lines[0][:300]}" if lines else name


def both_ends(error: BaseException) -> str:
    """Return the first and the last line of an error: NCCL gives the cause in the last one."""
    text, lines = cause_of(error), str(error).strip().splitlines()
    if len(lines) < 2:
        return text
    return f"{text} ... {lines[-1].strip()[:300]}"
