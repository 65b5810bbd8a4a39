"""Each experiment is submitted once, whatever is killed in between, and without trust in locks.

A submission has a number, as an attempt has (claims.py). A process that saw N submissions may make
`jobs/N+1.json`. Only one process can: that file is the intent, and its maker alone calls sbatch.
Then `jobs/N+1.id.json`, the record, says what came of it. If the maker is killed between the two,
the next command finds out (settlement.py). A job looks up its token at its start, and leaves if
another submission took its place. So a maker that was only slow starts nothing twice either.
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

    The requests that it has no room for at all are held: a later command submits them.

    Args:
        careful: there was no room before. Begin with one job, and submit twice as many each time.
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
                careful, size = False, max(1, len(again) // 2)
                if len(asked) == 1:
                    full.add(limit)
            elif careful:
                size *= 2
        for request in chain.from_iterable(left):
            outcomes.append(_hold(request))
    return outcomes


def _again(jobs: Jobs[Request], held: Collection[Experiment]) -> Jobs[Request]:
    """The same jobs, with those experiments only that the scheduler had no room for."""
    found: Jobs[Request] = []
    for requests in jobs:
        wanted = []
        for request in requests:
            if request.experiment in held:
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
    """Write down in its folder, once, that an experiment waits with us for room."""
    held = Outcome(request.experiment, trouble=NO_ROOM, held=True)
    before = request.experiment.job_at(request.seen)
    if before is not None and before.held and not before.cancelled:
        return held
    job = Job(
        token=uuid.uuid4().hex[:12],
        cluster="",
        submitted=time.time(),
        user=claims.user_name(),
        host=socket.gethostname(),
        grid=request.grid,
        code=dict(request.code),
        number=request.number,
    )
    if not request.experiment.intend_job(job):
        return Outcome(request.experiment, trouble=BUSY)
    request.experiment.record_job(request.number, error=NO_ROOM)
    return held


def submit(jobs: Jobs[Request], executor: Executor, dora_dir: Path) -> list[Outcome]:
    """Submit one job, or several as one array.

    An experiment that another command has submitted since it was looked at is left out.
    """
    token = uuid.uuid4().hex[:12]
    name = f"dora_{_name(jobs)}_{token}"
    mine: list[Task] = []
    outcomes = []
    for task in tasks_of(jobs):
        request = task.request
        if request.experiment.intend_job(_intent(task, executor, token, name)):
            mine.append(task)
            fault("one intent")
        else:
            outcomes.append(Outcome(request.experiment, trouble=BUSY))
    if not mine:
        return outcomes
    # Only after the intents: until one of them is made, another command may submit the experiment.
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
    """The ids of the jobs that give way to new ones, each with its token."""
    tokens = {}
    for task in tasks:
        for job_id in task.request.replaces:
            tokens[job_id] = _token_of(task.request, job_id)
    return tokens


def _token_of(request: Request, job_id: str) -> str:
    """The token of the submission that got this id. Empty: there is none."""
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
    """This process, and the folder that the job is for.

    The folder tells a copy of the experiment from the original: the copy has no part in the job.
    """
    folder = experiment.folder
    process = Holder.here(0, token=token)
    return asdict(replace(process, folder=os.path.realpath(folder), inode=inode(folder)))


def _give(order: Order, tasks: Sequence[Task], executor: Executor) -> list[Outcome]:
    """Give the order to the scheduler, and record what came of it."""
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
        if found is None:  # the intents stay open: the next command settles them
            trouble = f"{error}; whether it was submitted, the next command will know"
            return [Outcome(task.request.experiment, trouble=trouble) for task in tasks]
        receipt = Receipt(found)
    fault("sbatch")
    for task in tasks:
        outcomes.append(_recorded(order, task, receipt, executor))
    return outcomes


def _is_ours(request: Request) -> bool:
    """Whether no other command has given up our intent since we made it."""
    job = request.experiment.job_at(request.number)
    return job is not None and not job.error


def _recorded(order: Order, task: Task, receipt: Receipt, executor: Executor) -> Outcome:
    """Record the id of a job that the scheduler has taken.

    If another command gave up the intent in the meantime, the job is cancelled: that command may
    have submitted the experiment already. A packed job goes on with its other experiments, and
    leaves out this one, as its intent was given up.
    """
    request, job_id = task.request, receipt.job_id
    if task.index is not None:
        job_id = f"{receipt.job_id}_{task.index}"
    if task.member is not None:
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
    """Whether another command, which settled our intent, has recorded the same job."""
    job = request.experiment.job_at(request.number)
    return job is not None and job.job_id == job_id


def _refused(request: Request, error: NotSubmitted) -> Outcome:
    """Record that there is no job. If only the room was missing, the experiment of a grid is held.

    A single experiment (`dora launch`) is not held: no later command would submit it.
    """
    held = isinstance(error, NoRoom) and request.grid != ""
    reason = f"{NO_ROOM}: {error}" if held else str(error)
    request.experiment.record_job(request.number, error=reason)
    return Outcome(request.experiment, trouble=str(error), held=held, refused=not held)


def put_back(outcomes: Sequence[Outcome], anew: Collection[str]) -> list[Outcome]:
    """Give back the results of experiments that were to start from scratch, if there is no job.

    Args:
        anew: the signatures of these experiments.

    Returns:
        The outcomes. Those of these experiments say so.
    """
    found = []
    for outcome in outcomes:
        if outcome.refused and outcome.experiment.sig in anew:
            outcome.experiment.put_back()
            outcome = replace(outcome, trouble=f"{outcome.trouble} Its results are as they were.")
        found.append(outcome)
    return found
