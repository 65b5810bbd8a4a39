"""Decides whether an attempt ended through no fault of its own. Then an open grid resubmits it.

healing.py calls this. The status says how the attempt ended (`watch/status.py`). The folder says
who ran it, and whether it has saved a checkpoint since its start.
"""

import re
import signal

from ..experiment import claims
from ..experiment.folder import Experiment
from ..experiment.records import State
from ..watch.status import WORDS, Status

# The system, the scheduler or another process sends these. Any other signal that ends a run comes
# from a bug in it (SIGSEGV, SIGABRT ...), or from a person (SIGINT, SIGHUP).
FROM_OUTSIDE = (
    signal.SIGKILL,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
TIME_LIMIT = WORDS["TIMEOUT"]
NO_RESULT = WORDS["COMPLETED"][1]  # the job ended by itself, without reporting a result
LEFT = "left with exit code"  # the cause if the run's own code called sys.exit (run/leaving.py)


def is_faultless(experiment: Experiment, status: Status) -> bool:
    """Whether a job of this user was ended neither by itself nor by a person."""
    if not status.certain or not _was_our_job(experiment):
        return False
    if (status.state, status.cause) == TIME_LIMIT:
        # Otherwise the next job would start at the same point, and reach the limit again.
        return _saved_since_start(experiment)
    if status.state != State.INTERRUPTED:
        return False
    if status.cause == NO_RESULT or status.cause.startswith(LEFT):
        return False
    signum = _signal_in(status.cause)
    return signum is None or signum in FROM_OUTSIDE


def _was_our_job(experiment: Experiment) -> bool:
    """Whether a job of this user ran it last, and no `dora run` in a terminal did so later."""
    job, last = experiment.job(), claims.latest(experiment)
    if job is None or job.cancelled or job.user not in ("", claims.user_name()):
        return False
    if last is None or (job.token and last.token == job.token):
        return True
    return bool(last.token) or not last.is_after(job)


def _saved_since_start(experiment: Experiment) -> bool:
    """Whether the last attempt has saved a checkpoint."""
    run, last = experiment.state(), claims.latest(experiment)
    return last is not None and run.attempt == last.attempt and run.fruitless == 0


def _signal_in(cause: str) -> int | None:
    """The signal that a cause names, e.g. 9 for `killed by signal 9`. None: it names no signal."""
    if found := re.search(r"\bkilled by signal (\d+)", cause):
        return int(found[1])
    if found := re.search(r"\binterrupted by (SIG\w+)", cause):
        return getattr(signal, found[1], None)
    return None
