"""Submits each experiment exactly once, even if a process is killed in between. It uses no locks.

Submissions are numbered, as attempts are (claims.py). A process that has seen N submissions tries
to create `jobs/N+1.json`, the intent. Only one process can create it, and only this process calls
sbatch. Then it writes the result to `jobs/N+1.id.json`, the record. If it is killed in between, the
next command finds out whether there is a job (settlement.py). Each job checks its token when it
starts, and ends if another submission has replaced it. So a slow process starts nothing twice.
"""

import os
import socket
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..access import inode
from ..experiment import claims
from ..experiment.claims import Holder
from ..experiment.folder import Experiment
from ..experiment.records import NO_ROOM, Job
from ..jobs.executor import Executor, NoRoom, NotSubmitted, Order, Receipt, Unanswered
from ..jobs.queue.executor import place
from ..jobs.resources import stored
from .faults import fault
from .order import Task, make_order, tasks_of
from .packs import Jobs
from .request import Outcome, Request

BUSY = "another command submits it at this moment"


def submit_all(
    batches: Sequence[Jobs[Request]], executor: Executor, dora_dir: Path, careful: bool = False
) -> list[Outcome]:
    """Submit the jobs of each batch as one array, or as several if the scheduler has no room for one.

    Requests for which it has no room at all are held: a later command submits them.

    Args:
        careful: whether there was no room before. It then begins with one job, and doubles the
            number each time.
    """
    outcomes: list[Outcome] = []
    full: set[str] = set()  # the limits that are reached
    for batch in batches:
        left, size, limit = list(batch), len(batch), _limit(batch[0][0])
        if careful:
            size = 1
        while left and limit not in full:
            asked, rest = left[:size], left[size:]
            held = set()
            for outcome in submit(asked, executor, dora_dir):
                if outcome.held:
                    held.add(outcome.experiment)
                else:
                    outcomes.append(outcome)
            again = _again(asked, held)
            left = again + rest
            if held:
                careful, size = False, max(1, len(again) // 2)  # there may be room for half of them
                if len(asked) == 1:  # no room even for a single job
                    full.add(limit)
            elif careful:
                size *= 2
        for request in chain.from_iterable(left):
            outcomes.append(_hold(request))
    return outcomes


def _again(jobs: Jobs[Request], held: Collection[Experiment]) -> Jobs[Request]:
    """The same jobs, with only the experiments for which the scheduler had no room."""
    found: Jobs[Request] = []
    for requests in jobs:
        wanted = []
        for request in requests:
            if request.experiment in held:
                # The attempt to submit it has used up its number.
                wanted.append(replace(request, seen=request.number))
        if wanted:
            found.append(wanted)
    return found


def _limit(request: Request) -> str:
    """A key for the limit on the number of jobs that a request counts towards."""
    slurm = request.slurm
    options = sorted(request.shape.sbatch.items())
    return f"{slurm.partition}\0{slurm.qos}\0{slurm.account}\0{options}"


def _hold(request: Request) -> Outcome:
    """Record in the experiment's folder that it waits for room. It is recorded only once."""
    held = Outcome(request.experiment, trouble=NO_ROOM, held=True)
    before = request.experiment.job_at(request.seen)
    if before is not None and before.held and not before.cancelled:
        return held
    # Its old job waits or runs, and is not cancelled for a new one that has no room.
    if request.replaces and before is not None and not before.held:
        return Outcome(request.experiment, trouble=f"{NO_ROOM}: its job stays as it is")
    job = Job(
        token=uuid.uuid4().hex[:12],
        cluster="",
        submitted=time.time(),
        user=claims.user_name(),
        host=socket.gethostname(),
        grid=request.grid,
        code=dict(request.code),
        raised=dict(request.raised),
        number=request.number,
    )
    if not request.experiment.intend_job(job):
        return Outcome(request.experiment, trouble=BUSY)
    request.experiment.record_job(request.number, error=NO_ROOM)
    return held


def submit(jobs: Jobs[Request], executor: Executor, dora_dir: Path) -> list[Outcome]:
    """Submit one job, or several as one array.

    An experiment is left out if another command has submitted it in the meantime.
    """
    token = uuid.uuid4().hex[:12]
    name = f"dora_{_name(jobs)}_{token}"
    mine: list[Task] = []
    outcomes = []
    for task in tasks_of(jobs):
        request = task.request
        if request.experiment.intend_job(_intent(task, executor, token, name)):
            mine.append(task)
            fault("one intent")  # a test may kill the process here (faults.py)
        else:
            outcomes.append(Outcome(request.experiment, trouble=BUSY))
    if not mine:
        return outcomes
    # Only after the intents: before that, another command may still submit the experiments.
    executor.cancel(_replaced(mine))
    fault("cancelled")
    order = make_order(mine, token, name, dora_dir)
    return outcomes + _give(order, mine, executor)


def _name(jobs: Jobs[Request]) -> str:
    """The middle of the scheduler's name for a job."""
    if len(jobs) > 1:
        return "array"
    if len(jobs[0]) > 1:
        return "pack"
    return jobs[0][0].experiment.sig


def _replaced(tasks: Sequence[Task]) -> dict[str, str]:
    """The ids of the jobs that are replaced, each with its token."""
    tokens = {}
    for task in tasks:
        for job_id in task.request.replaces:
            tokens[job_id] = _token_of(task.request, job_id)
    return tokens


def _token_of(request: Request, job_id: str) -> str:
    """The token of the submission that has this job id. Empty if there is none."""
    for number in range(request.seen, 0, -1):
        job = request.experiment.job_at(number)
        if job is not None and job_id in job.ids:
            return job.token
    return ""


def _intent(task: Task, executor: Executor, token: str, name: str) -> Job:
    """The job that is about to be submitted."""
    request = task.request
    return Job(
        token=token,
        cluster=executor.name,
        submitted=time.time(),
        user=claims.user_name(),
        host=socket.gethostname(),
        grid=request.grid,
        resources=stored(request.slurm, request.shape),
        excluded=dict(request.excluded),
        code=dict(request.code),
        number=request.number,
        name=name,
        task=task.index,
        member=task.member,
        queue=executor.queue,
        queue_folder=str(place()) if executor.name == "local" else "",
        writer=_writer(request.experiment, token),
        stop=dict(request.stop),
        raised=dict(request.raised),
    )


def _writer(experiment: Experiment, token: str) -> dict[str, Any]:
    """A description of this process and of the experiment's folder.

    The folder distinguishes a copied experiment from the original: the job belongs only to the
    original.
    """
    folder = experiment.folder
    process = Holder.here(0, token=token)
    return asdict(replace(process, folder=os.path.realpath(folder), inode=inode(folder)))


def _give(order: Order, tasks: Sequence[Task], executor: Executor) -> list[Outcome]:
    """Give the order to the scheduler, and record the outcome of each request."""
    # While old jobs were cancelled, another command may have given up our intents.
    tasks = [task for task in tasks if _is_ours(task.request)]
    if not tasks:
        return []
    outcomes = []
    try:
        receipt = executor.submit(order)
    except NotSubmitted as error:
        for task in tasks:
            outcomes.append(_refused(task.request, error))
        return outcomes
    except Unanswered as error:
        found = (executor.find([order.name]) or {}).get(order.name)
        if found is None:  # the intents stay open. The next command settles them (settlement.py)
            trouble = f"{error}; whether it was submitted, the next command will know"
            return [Outcome(task.request.experiment, trouble=trouble) for task in tasks]
        receipt = Receipt(found)
    fault("sbatch")
    for task in tasks:
        outcomes.append(_recorded(order, task, receipt, executor))
    return outcomes


def _is_ours(request: Request) -> bool:
    """Whether our intent still holds: no other command has given it up in the meantime."""
    job = request.experiment.job_at(request.number)
    return job is not None and not job.error


def _recorded(order: Order, task: Task, receipt: Receipt, executor: Executor) -> Outcome:
    """Record the id of a job that the scheduler has accepted.

    If another command gave up the intent in the meantime, the job is cancelled: that command may
    have submitted the experiment already. A packed job is not cancelled. It leaves out this
    experiment, and runs the others.
    """
    request, job_id = task.request, receipt.job_id
    if task.index is not None:
        job_id = f"{receipt.job_id}_{task.index}"
    if task.member is not None:  # a member writes its log into its own folder (pack.py)
        order = replace(order, folder=request.experiment.submitit)
    log = str(executor.log_path(order, receipt.job_id, task.index))
    recorded = request.experiment.record_job(request.number, job_id, log, receipt.dependents)
    if recorded or _is_adopted(request, job_id):
        fault("one record")
        return Outcome(request.experiment, job_id)
    if task.member is None:
        token = order.name.rpartition("_")[2]
        executor.cancel(dict.fromkeys([job_id, *receipt.dependents], token))
    return Outcome(request.experiment, trouble="another command took it over")


def _is_adopted(request: Request, job_id: str) -> bool:
    """Whether another command has settled our intent, and has recorded the same job."""
    job = request.experiment.job_at(request.number)
    return job is not None and job.job_id == job_id


def _refused(request: Request, error: NotSubmitted) -> Outcome:
    """Record that there is no job. If there was only no room, an experiment of a grid is held.

    A single experiment (`dora launch`) is not held, because no later command would submit it.
    """
    held = isinstance(error, NoRoom) and request.grid != ""
    reason = f"{NO_ROOM}: {error}" if held else str(error)
    request.experiment.record_job(request.number, error=reason)
    return Outcome(request.experiment, trouble=str(error), held=held, refused=not held)


def put_back(outcomes: Sequence[Outcome], anew: Collection[str]) -> list[Outcome]:
    """Restore the old results of experiments that start from scratch, if the job was refused.

    Args:
        anew: the signatures of the experiments that start from scratch.

    Returns:
        The outcomes. If results were restored, the outcome says so.
    """
    found = []
    for outcome in outcomes:
        if outcome.refused and outcome.experiment.sig in anew:
            outcome.experiment.put_back()
            outcome = replace(outcome, trouble=f"{outcome.trouble} Its results are as they were.")
        found.append(outcome)
    return found
