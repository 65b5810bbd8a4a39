"""Each experiment is submitted once, whatever is killed in between, and without trusting locks.

A submission has a number, as an attempt has (claims.py). Whoever saw N submissions may make
`jobs/N+1.json`, which only one process can: that file is the intent, and its maker alone calls
sbatch. Then `jobs/N+1.id.json` says what came of it. Killed between the two, the intent stays
without an id, and the next command settles it (`settle`): it finds the job by its name, which holds
the token of the intent, and writes the id down; or the scheduler answers that it knows no such job,
and the intent is given up. A job looks up its token at its start, and leaves where another
submission took its place, so that even a maker that was only slow starts nothing twice.
"""

import os
import shlex
import socket
import sys
import time
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..access import age_of, inode
from ..errors import UserError
from ..experiment import claims
from ..experiment.claims import Holder
from ..experiment.folder import ARRAYS, Experiment
from ..experiment.records import NO_ROOM, Job, from_stored
from ..files import write_json
from ..jobs.executor import Executor, NoRoom, NotSubmitted, Order, Receipt, Unanswered
from ..jobs.queue.executor import place
from ..jobs.resources import parameters, stored
from .request import Outcome, Request

PATIENCE = 60  # seconds that the maker of an intent has to tell the scheduler
ORPHANED = 5  # seconds that sbatch may outlive a maker that was killed
BUSY = "another command submits it at this moment"
# names the `fault` at which this process ends itself, for the tests that kill it there
FAULT = "DORA_FAULT"


def submit_all(
    batches: Sequence[Sequence[Request]], executor: Executor, dora_dir: Path, careful: bool = False
) -> list[Outcome]:
    """Submit each batch, as one array or as few as the scheduler has room for; the rest of it waits
    with us.

    Args:
        careful: there was no room before: begin with one job, and go on with twice as many each
            time.
    """
    outcomes: list[Outcome] = []
    full: set[str] = set()  # partitions and the like that took no more
    for batch in batches:
        left, size, limit = list(batch), 1 if careful else len(batch), _limit(batch[0])
        while left and limit not in full:
            asked, rest = left[:size], left[size:]
            made = submit(asked, executor, dora_dir)
            held = {outcome.experiment for outcome in made if outcome.held}
            outcomes += [outcome for outcome in made if not outcome.held]
            left = [
                replace(request, seen=request.number)
                for request in asked
                if request.experiment in held
            ] + rest
            if held and len(asked) == 1:
                full.add(limit)
            size = max(1, len(held) // 2) if held else size * (2 if careful else 1)
            careful = careful and not held
        outcomes += [_held(request) for request in left]
    return outcomes


def _limit(request: Request) -> str:
    """What a limit on the number of jobs may hang on."""
    slurm = request.slurm
    return (
        f"{slurm.partition}\0{slurm.qos}\0{slurm.account}\0{sorted(request.shape.sbatch.items())}"
    )


def _held(request: Request) -> Outcome:
    """A request that waits with us, and says so in its experiment's folder, once."""
    before = request.experiment.job_at(request.seen)
    if before is None or not before.held or before.cancelled:
        if not request.experiment.intend_job(
            Job(
                token=uuid.uuid4().hex[:12],
                cluster="",
                submitted=time.time(),
                user=claims.user_name(),
                host=socket.gethostname(),
                grid=request.grid,
                code=dict(request.code),
                number=request.number,
            )
        ):
            return Outcome(request.experiment, trouble=BUSY)
        request.experiment.record_job(request.number, error=NO_ROOM)
    return Outcome(request.experiment, trouble=NO_ROOM, held=True)


def submit(requests: Sequence[Request], executor: Executor, dora_dir: Path) -> list[Outcome]:
    """Submit one experiment, or several as one array; each only if nobody else did since it was
    looked at."""
    token = uuid.uuid4().hex[:12]
    is_array = len(requests) > 1
    name = f"dora_array_{token}" if is_array else f"dora_{requests[0].experiment.sig}_{token}"
    mine, outcomes = [], []
    for task, request in enumerate(requests):
        job = _intent(request, executor, token, name, task if is_array else None)
        if request.experiment.intend_job(job):
            mine.append((request, task))
            fault("one intent")
        else:
            outcomes.append(Outcome(request.experiment, trouble=BUSY))
    if not mine:
        return outcomes
    executor.cancel(
        {job_id: _token_of(request, job_id) for request, _ in mine for job_id in request.replaces}
    )
    fault("cancelled")
    order = _order(mine, token, name, dora_dir, is_array)
    return outcomes + _place(order, mine, executor)


def _token_of(request: Request, job_id: str) -> str:
    """The token of the submission that got this id."""
    before = (request.experiment.job_at(number) for number in range(request.seen, 0, -1))
    return next((job.token for job in before if job is not None and job_id in job.ids), "")


def _intent(request: Request, executor: Executor, token: str, name: str, task: int | None) -> Job:
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
        task=task,
        queue=executor.queue,
        queue_folder=str(place()) if executor.name == "local" else "",
        writer=_writer(request.experiment, token),
        stop=dict(request.stop),
    )


def _writer(experiment: Experiment, token: str) -> dict[str, Any]:
    """This process, and the folder that the job is for: a copy of it has no part in the job."""
    folder = experiment.folder
    return asdict(
        replace(Holder.here(0, token=token), folder=os.path.realpath(folder), inode=inode(folder))
    )


def _order(
    mine: Sequence[tuple[Request, int]], token: str, name: str, dora_dir: Path, is_array: bool
) -> Order:
    first = mine[0][0]
    if is_array:
        folder = dora_dir / ARRAYS / token
        target = folder / "tasks.json"
        _write_tasks(target, mine, token)
    else:
        folder, target = first.experiment.submitit, first.experiment.folder
    return Order(
        name=name,
        folder=folder,
        command=job_command(first.slurm.python, first.code_root, target, "" if is_array else token),
        parameters=parameters(first.slurm, first.shape),
        tasks=[task for _, task in mine] if is_array else None,
        after=sorted({job_id for request, _ in mine for job_id in request.replaces}),
        dependents=first.slurm.dependents,
        setup=[
            f"export DORA_DIR={shlex.quote(str(dora_dir.absolute()))}",
            # a rank that dies takes the others along, instead of letting them wait
            "export SLURM_KILL_BAD_EXIT=1",
        ],
    )


def _write_tasks(path: Path, mine: Sequence[tuple[Request, int]], token: str) -> None:
    """What each task of an array runs, by its index:

    `[folder, token]`; null for those that another command took.
    """
    tasks: list[Any] = [None] * (max(task for _, task in mine) + 1)
    for request, task in mine:
        tasks[task] = [str(request.experiment.folder.absolute()), token]
    write_json(path, tasks)


def job_command(python: str | None, code_root: Path, target: Path, token: str) -> str:
    """The line of shell that a job runs: `job.py FOLDER TOKEN`, or `job.py LIST` for an array.

    `python` is shell already (a container's call, say).
    """
    words = [
        str(code_root / "dora_train" / "engine" / "job.py"),
        str(target.absolute()),
        *([token] if token else []),
    ]
    return " ".join([python or shlex.quote(sys.executable), "-u", *map(shlex.quote, words)])


def _place(order: Order, mine: Sequence[tuple[Request, int]], executor: Executor) -> list[Outcome]:
    """Give the order to the scheduler, and write down what came of it."""
    mine = [(request, task) for request, task in mine if _stands(request)]
    if not mine:
        return []
    try:
        receipt = executor.submit(order)
    except NotSubmitted as error:
        return [_refused(request, error) for request, _ in mine]
    except Unanswered as error:
        found = (executor.find([order.name]) or {}).get(order.name)
        if found is None:  # the intent stays: the next command finds out
            trouble = f"{error}; whether it was submitted, the next command will know"
            return [Outcome(request.experiment, trouble=trouble) for request, _ in mine]
        receipt = Receipt(found)
    fault("sbatch")
    return [
        _recorded(order, request, task, receipt.job_id, receipt.dependents, executor)
        for request, task in mine
    ]


def _recorded(
    order: Order,
    request: Request,
    task: int,
    main_id: str,
    dependents: Sequence[str],
    executor: Executor,
) -> Outcome:
    index = task if order.tasks is not None else None
    job_id = main_id if index is None else f"{main_id}_{index}"
    log = str(executor.log_path(order, main_id, index))
    if request.experiment.record_job(request.number, job_id, log, dependents) or _adopted(
        request, job_id
    ):
        fault("one record")
        return Outcome(request.experiment, job_id)
    # Too slow: another command gave this intent up.
    executor.cancel(dict.fromkeys([job_id, *dependents], order.name.rpartition("_")[2]))
    return Outcome(request.experiment, trouble="another command took it over")


def _refused(request: Request, error: NotSubmitted) -> Outcome:
    """Write down that there is no job; one of a grid that the scheduler had no room for waits with
    us."""
    # one job for itself has nobody to put it in later
    held = isinstance(error, NoRoom) and bool(request.grid)
    request.experiment.record_job(
        request.number, error=f"{NO_ROOM}: {error}" if held else str(error)
    )
    return Outcome(request.experiment, trouble=str(error), held=held, refused=not held)


def put_back(outcomes: Sequence[Outcome], anew: Collection[str]) -> list[Outcome]:
    """Give back the results of experiments that were to begin anew, if the scheduler refused their
    job.

    Args:
        anew: their signatures.
    """
    found = []
    for outcome in outcomes:
        if outcome.refused and outcome.experiment.sig in anew:
            outcome.experiment.put_back()
            outcome = replace(outcome, trouble=f"{outcome.trouble} Its results are as they were.")
        found.append(outcome)
    return found


def _stands(request: Request) -> bool:
    """The intent was not given up in the meantime."""
    job = request.experiment.job_at(request.number)
    return job is not None and not job.error


def _adopted(request: Request, job_id: str) -> bool:
    job = request.experiment.job_at(request.number)
    return job is not None and job.job_id == job_id


# --- what a command that was killed left behind ---


def settle(experiments: Iterable[Experiment], executor: Executor) -> None:
    """Find out what became of intents without an id: adopt their jobs, or give them up."""
    known = [(experiment, experiment.job()) for experiment in experiments]
    open_ = [
        (experiment, job)
        for experiment, job in known
        if job is not None and is_open(job) and os.access(experiment.jobs, os.W_OK)
    ]
    left = [
        (experiment, job)
        for experiment, job in open_
        if not _adopt_from_attempt(experiment, job, executor)
    ]
    overdue = [(experiment, job) for experiment, job in left if _is_overdue(experiment, job)]
    here = [(experiment, job) for experiment, job in overdue if executor.answers_for(job)]
    for experiment, job in overdue:
        if (experiment, job) not in here and (executor.lost(job) or claims.is_taken()):
            experiment.record_job(job.number, error="whoever could tell what became of it is gone")
    if not here:
        return
    found = executor.find([job.name for _, job in here if job.name])
    if found is None:
        return
    for experiment, job in here:
        if job.name in found:
            _adopt(experiment, job, found[job.name], executor)
        else:
            experiment.record_job(
                job.number, error="the command that submitted it was ended before it could"
            )


def is_open(job: Job) -> bool:
    return not job.job_id and not job.error


def _adopt(experiment: Experiment, job: Job, main_id: str, executor: Executor) -> None:
    folder = (
        experiment.submitit
        if job.task is None
        else experiment.folder.parents[1] / ARRAYS / job.token
    )
    order = Order(job.name, "", folder, {})
    job_id = main_id if job.task is None else f"{main_id}_{job.task}"
    experiment.record_job(job.number, job_id, str(executor.log_path(order, main_id, job.task)))


def _adopt_from_attempt(experiment: Experiment, job: Job, executor: Executor) -> bool:
    """A job that has started said its id in its claim."""
    last = claims.latest(experiment)
    if last is None or not job.token or last.token != job.token or not last.job_id:
        return False
    _adopt(experiment, job, last.job_id.partition("_")[0], executor)
    return True


def _is_overdue(experiment: Experiment, job: Job) -> bool:
    """Its maker is gone, or has had its time; a maker that is proven to live is waited for."""
    writer = from_stored(Holder, job.writer)
    alive = writer.alive() if writer is not None else None
    if alive is None:  # by the disk's clock: its maker's may be another one than ours
        return age_of(experiment.jobs / f"{job.number}.json") > PATIENCE
    age = time.time() - job.submitted
    if alive is False and age < ORPHANED:
        time.sleep(max(0.0, ORPHANED - age))
    return alive is False


# --- the end of a job ---


def cancel(experiments: Iterable[Experiment], executor: Executor) -> list[str]:
    """Cancel the jobs of these experiments, all in one call; the ids."""
    ids: dict[str, str] = {}
    for experiment in experiments:
        job = experiment.job()
        if job is not None and (job.ids or job.held):
            experiment.cancel_job(job.number, claims.user_name())
            ids |= dict.fromkeys(job.ids, job.token or experiment.sig)  # a job's name holds both
    if ids:
        executor.cancel(ids)
    return list(ids)


def wait_until_over(
    experiments: Sequence[Experiment], executor: Executor, seconds: float = 90
) -> None:
    """Wait for the jobs of these experiments to be gone, so that their folders can be removed.

    Raises:
        UserError: one is still there.
    """
    from ..watch.status import look

    end = time.monotonic() + seconds
    while True:
        live = [
            sig for sig, status in look(experiments, executor, force=True).items() if status.live
        ]
        if not live:
            return
        if time.monotonic() > end:
            raise UserError(
                f"XP {live[0]} still runs {seconds:.0f} s after it was cancelled; nothing was removed.",
                "try again in a minute",
            )
        time.sleep(1)


def fault(point: str) -> None:
    """End this process without a trace where a test asks for it: what a kill -9 at this point
    leaves must be mended."""
    if os.environ.get(FAULT) == point:
        os._exit(137)
