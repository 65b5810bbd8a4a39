"""Cancelling the jobs of experiments, and waiting for their end."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ..errors import UserError, writable
from ..experiment import claims
from ..experiment.folder import Experiment
from ..experiment.records import Job
from ..jobs.executor import Executor
from ..jobs.pack import Member, list_of, members_of
from ..watch.status import look


def cancel(experiments: Iterable[Experiment], executor: Executor) -> list[str]:
    """Cancel the jobs of these experiments in one call.

    Returns:
        The ids of the jobs. A job that the scheduler had no room for has none: its experiment is
        only marked as cancelled. A packed job is cancelled if nothing is left of it.
    """
    tokens: dict[str, str] = {}  # by job id
    members: dict[str, list[Member]] = {}  # all of each packed job, by job id
    for experiment in experiments:
        job = experiment.job()
        if job is None or not (job.ids or job.held):
            continue
        # The mark comes first. Without it, the end of the job could count as an interruption, and
        # the next grid would resume the experiment.
        _mark(experiment, job)
        if job.member is not None:
            path = list_of(experiment, job.token)
            members.setdefault(job.job_id, members_of(path, job.task or 0))
            tokens.setdefault(job.job_id, job.token)
            continue
        # The name of a job holds its token and its signature. An intent of a damaged file has lost
        # its token.
        tokens |= dict.fromkeys(job.ids, job.token or experiment.sig)
    for job_id, others in members.items():
        # A member is ended by its job, which sees the mark. The job itself goes on for the others.
        if not all(member.is_over for member in others):
            del tokens[job_id]
    if tokens:
        executor.cancel(tokens)
    return list(tokens)


def _mark(experiment: Experiment, job: Job) -> None:
    """Write that a user has asked for the end of a job.

    Raises:
        UserError: it cannot be written, and nothing else would end the experiment: its job is held,
            or others share it.
    """
    writing = writable(experiment.folder)
    if job.ids and job.member is None:
        writing = even_without_a_mark(experiment)
    with writing:
        experiment.cancel_job(job.number, claims.user_name())


@contextmanager
def even_without_a_mark(experiment: Experiment) -> Iterator[None]:
    """Go on if the mark of a cancellation cannot be written, e.g. on a full disk. One line says so."""
    try:
        yield
    except OSError as error:
        print(
            f"XP {experiment.sig}: {error.strerror}, so nobody will know that it was cancelled.",
            file=sys.stderr,
        )


def is_member(experiment: Experiment) -> bool:
    """Whether its last job is a packed one, which other experiments share."""
    job = experiment.job()
    return job is not None and job.member is not None


def wait_until_over(
    experiments: Sequence[Experiment], executor: Executor, seconds: float = 90
) -> None:
    """Wait until the jobs of these experiments have ended, so that their folders can be removed.

    Raises:
        UserError: one still waits or runs after this time.
    """
    end = time.monotonic() + seconds
    while True:
        statuses = look(experiments, executor, force=True)
        live = [sig for sig, status in statuses.items() if status.live]
        if not live:
            return
        if time.monotonic() > end:
            raise UserError(
                f"XP {live[0]} still runs {seconds:.0f} s after it was cancelled; nothing was removed.",
                "try again in a minute",
            )
        time.sleep(1)
