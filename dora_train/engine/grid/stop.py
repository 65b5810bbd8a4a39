"""Stopping one experiment, as a job or as a process of this machine.

`dora info -C` and `dora launch` call it.
"""

import os
import signal

from ..errors import UserError
from ..experiment import claims
from ..experiment.folder import Experiment
from ..jobs.executor import Executor
from ..watch.status import look
from . import cancellation


def cancel(experiment: Experiment, executor: Executor) -> str:
    """Stop an experiment, as a job or as a process of this machine.

    Returns:
        What was done, as a sentence.

    Raises:
        UserError: another user runs it, or it cannot be reached from here.
    """
    sig = experiment.sig
    status = look([experiment], executor, force=True)[sig]
    if not status.live:
        return f"XP {sig} neither waits nor runs: it is {status.state}."
    if status.user and status.user != claims.user_name():
        raise UserError(
            f"XP {sig} is {status.state} on {status.where}, of {status.user}: only that user can stop it."
        )
    if status.by_job:
        job = experiment.job()
        if job is None or not executor.answers_for(job):
            queue = "nowhere"
            if job is not None:
                queue = f"{job.cluster} ({job.queue}), submitted from {job.host}"
            raise UserError(
                f"XP {sig} is {status.where} of {queue}, out of reach from here: stop it there.",
                f"if you know that it is gone: DORA_TAKE=1 dora run -f {sig}",
            )
        ids = cancellation.cancel([experiment], executor)
        if not ids and job.member is not None:
            return f"XP {sig}: cancelled; the other experiments of job {job.job_id} go on."
        return f"XP {sig}: job {', '.join(ids)} cancelled."
    return _stop_process(experiment)


def _stop_process(experiment: Experiment) -> str:
    """Send SIGTERM to a run of this machine: it saves a checkpoint, and ends."""
    last, _ = claims.holder(experiment)
    if last is None or not last.in_reach():
        where = last.where() if last else "nowhere we know of"
        raise UserError(
            f"XP {experiment.sig} is on {where}, which cannot be reached from here: stop it there."
        )
    # The mark comes first. Without it, the end of the run would count as an interruption, and the
    # next grid would resume it.
    with cancellation.even_without_a_mark(experiment):
        experiment.cancel_attempt(last.attempt, claims.user_name())
    try:
        os.kill(last.pid, signal.SIGTERM)
    except PermissionError:
        user = last.user or "another user"
        raise UserError(
            f"process {last.pid} belongs to {user}: only that user can stop it."
        ) from None
    except ProcessLookupError:  # it ended in the meantime
        pass
    return (
        f"XP {experiment.sig}: process {last.pid} was asked to stop; it saves a checkpoint first."
    )
