"""What became of submissions whose command was killed between the intent and the record.

`settle` finds the job of such an intent by its name, which holds the token of the intent, and
records its id. If the scheduler says that there is no such job, the intent is given up, and the
experiment can be submitted again (docs/submission.md).
"""

import os
import time
from collections.abc import Iterable

from ..access import age_of
from ..experiment import claims
from ..experiment.claims import Holder
from ..experiment.folder import ARRAYS, Experiment
from ..experiment.records import Job, from_stored
from ..jobs.executor import Executor, Order

PATIENCE = 60  # seconds that the process that made an intent has to tell the scheduler
ORPHANED = 5  # seconds that sbatch may go on after the process that called it was killed

Intent = tuple[Experiment, Job]


def settle(experiments: Iterable[Experiment], executor: Executor) -> None:
    """Record what became of intents without a record: the id of their job, or that there is none.

    An intent stays open if nobody can tell yet.
    """
    overdue = _overdue(_without_claim(_open_intents(experiments), executor))
    answered: list[Intent] = []
    for experiment, job in overdue:
        if executor.answers_for(job):
            answered.append((experiment, job))
        # Its scheduler cannot be asked from here. DORA_TAKE=1 says that the job is gone.
        elif executor.lost(job) or claims.is_taken():
            experiment.record_job(job.number, error="whoever could tell what became of it is gone")
    if not answered:
        return
    found = executor.find([job.name for _, job in answered if job.name])
    if found is None:
        return
    for experiment, job in answered:
        if job.name in found:
            _adopt(experiment, job, found[job.name], executor)
        else:
            experiment.record_job(
                job.number, error="the command that submitted it was ended before it could"
            )


def is_open(job: Job) -> bool:
    """Whether an intent has no record yet."""
    return not job.job_id and not job.error


def _open_intents(experiments: Iterable[Experiment]) -> list[Intent]:
    """The intents without a record that this user may write a record for."""
    found = []
    for experiment in experiments:
        job = experiment.job()
        if job is None or not is_open(job):
            continue
        may_write = os.access(experiment.jobs, os.W_OK)
        if may_write:
            found.append((experiment, job))
    return found


def _without_claim(intents: Iterable[Intent], executor: Executor) -> list[Intent]:
    """The intents whose job has not started. The ids of the others are recorded from their claims."""
    waiting = []
    for experiment, job in intents:
        if not _adopt_from_claim(experiment, job, executor):
            waiting.append((experiment, job))
    return waiting


def _adopt_from_claim(experiment: Experiment, job: Job, executor: Executor) -> bool:
    """Record the id of a job that has started. Its claim holds it.

    Returns:
        False if the job has not started.
    """
    last = claims.latest(experiment)
    # The token of an intent in a damaged file is empty. It must not fit the claim of a run that is
    # no job, whose token is empty as well.
    if last is None or not job.token or last.token != job.token or not last.job_id:
        return False
    _adopt(experiment, job, last.job_id.partition("_")[0], executor)
    return True


def _adopt(experiment: Experiment, job: Job, main_id: str, executor: Executor) -> None:
    """Record the id of a job that was found.

    Args:
        main_id: the id of the job, or of the whole array.
    """
    folder, job_id = experiment.submitit, main_id
    if job.task is not None:
        job_id = f"{main_id}_{job.task}"
    if job.task is not None and job.member is None:
        folder = experiment.folder.parents[1] / ARRAYS / job.token
    order = Order(job.name, "", folder, {})
    experiment.record_job(job.number, job_id, str(executor.log_path(order, main_id, job.task)))


def _overdue(intents: Iterable[Intent]) -> list[Intent]:
    """The intents whose process is gone, or has had its time."""
    found = []
    for experiment, job in intents:
        writer = from_stored(Holder, job.writer)
        alive = writer.alive() if writer is not None else None
        patience = PATIENCE
        # This process comes here when its own sbatch has ended without an answer, which may have
        # taken a minute. The scheduler may still take the job up.
        if writer is not None and writer.this_process():
            alive, patience = None, 2 * PATIENCE
        if alive is None:
            # By the clock of the disk: the clock of the process may differ from ours.
            if age_of(experiment.jobs / f"{job.number}.json") > patience:
                found.append((experiment, job))
        elif not alive:
            _wait_for_sbatch(job)
            found.append((experiment, job))
    return found


def _wait_for_sbatch(job: Job) -> None:
    """Wait until an sbatch whose caller was killed has ended: until then it may still submit."""
    age = time.time() - job.submitted
    if age < ORPHANED:
        # If a clock was set back, the age is negative.
        time.sleep(ORPHANED - max(0.0, age))
