"""Makes the order that a submission gives to the scheduler: the job's command and its tasks."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import environment
from ..experiment.folder import ARRAYS
from ..files import write_json
from ..jobs import pack
from ..jobs.executor import Order
from ..jobs.resources import parameters
from .packs import Jobs
from .request import Request

# Its arguments: the folder of the job's code, the outputs folder, the grid. The code comes first on
# sys.path, so that the command runs the same version as the job.
LAST_JOB = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from dora_train.engine.grid.last_job import main; main(sys.argv[2:])"
)


@dataclass(frozen=True)
class Task:
    """A request, and its place in the jobs that are submitted.

    Attributes:
        index: the index of its job in the array. None: it is no array.
        member: the index of its experiment in a packed job. None: the job is not shared.
    """

    request: Request
    index: int | None = None
    member: int | None = None


def tasks_of(jobs: Jobs[Request]) -> list[Task]:
    """A task for each experiment of these jobs. Either all of the jobs are packed, or none."""
    is_array = len(jobs) > 1
    is_packed = any(len(requests) > 1 for requests in jobs)
    tasks = []
    for index, requests in enumerate(jobs):
        for member, request in enumerate(requests):
            tasks.append(Task(request, index if is_array else None, member if is_packed else None))
    return tasks


def make_order(tasks: Sequence[Task], token: str, name: str, dora_dir: Path) -> Order:
    """Make the order for a single job, a packed job or an array.

    For a packed job or an array, it also writes the list of the experiments to disk.

    Args:
        tasks: in the order of their indices. All have the same code, resources and shape, and the
            same packing (packs.py).
        dora_dir: the outputs folder.
    """
    first = tasks[0].request
    chosen = parameters(first.slurm, first.shape)
    folder = dora_dir / ARRAYS / token
    target = folder / pack.LIST
    indices = None
    if tasks[0].index is not None:
        indices = sorted({task.index or 0 for task in tasks})
    if tasks[0].member is not None:
        chosen = first.packing.widened(chosen)
        write_json(target, _packed(tasks, token))
        program = [str(pack.program(first.code_root)), str(target.absolute())]
    elif indices is not None:
        _write_tasks(target, tasks, token)
        program = job_program(first.code_root, target, "")
    else:
        folder = first.experiment.submitit
        program = job_program(first.code_root, first.experiment.folder, token)
    replaced: set[str] = set()
    for task in tasks:
        replaced.update(task.request.replaces)
    return Order(
        name=name,
        folder=folder,
        command=job_command(first.slurm.python, program),
        parameters=chosen,
        tasks=indices,
        after=sorted(replaced),
        dependents=first.slurm.dependents,
        variables={
            environment.OUTPUTS: str(dora_dir.absolute()),
            # If a rank dies, srun then ends the others. Otherwise they would wait for it forever.
            "SLURM_KILL_BAD_EXIT": "1",
            **environment.short_spins(),
        },
        program=() if first.slurm.python else program,
        # `threads` does not count as a resource, so it may differ between the tasks of an array.
        threads=max(int(task.request.excluded.get("threads") or 1) for task in tasks),
        group=f"{dora_dir.absolute()}/{first.grid}",
        last=_last_job(first, dora_dir) if first.tells else (),
    )


def _write_tasks(path: Path, tasks: Sequence[Task], token: str) -> None:
    """Write the list of an array. It has `[folder, token]` for each index.

    The entry is null if another command has submitted the experiment of this index.
    """
    last_index = tasks[-1].index or 0
    entries: list[list[str] | None] = [None] * (last_index + 1)
    for task in tasks:
        entries[task.index or 0] = [str(task.request.experiment.folder.absolute()), token]
    write_json(path, entries)


def _packed(tasks: Sequence[Task], token: str) -> dict[str, Any]:
    """The list of a packed job, or of an array of packed jobs: see `pack.Pack.read`.

    The entry of an experiment is `[folder, token, number of the submission]`.
    """
    jobs: list[list[list[Any]]] = [[] for _ in range((tasks[-1].index or 0) + 1)]
    for task in tasks:
        folder = str(task.request.experiment.folder.absolute())
        jobs[task.index or 0].append([folder, token, task.request.number])
    packing = tasks[0].request.packing
    return {
        "at_once": packing.at_once,
        "gpus": packing.gpus,
        "per_gpu": packing.per_gpu,
        "libraries": packing.libraries,
        "jobs": jobs,
    }


def _last_job(request: Request, dora_dir: Path) -> list[str]:
    """The command that sends a message after the last job of a grid (last_job.py)."""
    code, outputs = str(request.code_root), str(dora_dir.absolute())
    return [sys.executable, "-c", LAST_JOB, code, outputs, request.grid]


def job_program(code_root: Path, target: Path, token: str) -> list[str]:
    """The program of a job and its arguments: `job.py FOLDER TOKEN`, or `job.py LIST` for an array.

    Args:
        target: the folder of the experiment, or the list of the array.
        token: empty for an array, because its list contains the token.
    """
    words = [str(code_root / "dora_train" / "engine" / "job.py"), str(target.absolute())]
    if token:
        words.append(token)
    return words


def job_command(python: str | None, program: Sequence[str]) -> str:
    """The shell command that runs the program of a job.

    Args:
        python: inserted without quotes, because it may be a shell command itself, e.g. one that
            starts a container. None: this interpreter.
    """
    return " ".join([python or shlex.quote(sys.executable), "-u", *map(shlex.quote, program)])
