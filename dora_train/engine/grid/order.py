"""The order that a submission gives to the scheduler: the command of the job, and its tasks."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import environment
from ..experiment.folder import ARRAYS
from ..files import write_json
from ..jobs.executor import Order
from ..jobs.resources import parameters
from .request import Request

# The code of the job comes first on sys.path.
LAST_JOB = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from dora_train.engine.grid.last_job import main; main(sys.argv[2:])"
)
Task = tuple[Request, int]  # a request and its index in the array


def make_order(
    tasks: Sequence[Task], token: str, name: str, dora_dir: Path, is_array: bool
) -> Order:
    """One job for a single request, or one array. An array gets its list of tasks on disk.

    Args:
        tasks: in the order of their indices. All have the same code, resources and shape
            (`request.alike`).
        dora_dir: the outputs folder.
    """
    first = tasks[0][0]
    indices = None
    if is_array:
        indices = [index for _, index in tasks]
        folder = dora_dir / ARRAYS / token
        target = folder / "tasks.json"
        _write_tasks(target, tasks, token)
        program = job_program(first.code_root, target, "")
    else:
        folder = first.experiment.submitit
        program = job_program(first.code_root, first.experiment.folder, token)
    replaced: set[str] = set()
    for request, _ in tasks:
        replaced.update(request.replaces)
    return Order(
        name=name,
        folder=folder,
        command=job_command(first.slurm.python, program),
        parameters=parameters(first.slurm, first.shape),
        tasks=indices,
        after=sorted(replaced),
        dependents=first.slurm.dependents,
        variables={
            environment.OUTPUTS: str(dora_dir.absolute()),
            # If a rank dies, srun ends the others. Without this they wait for it forever.
            "SLURM_KILL_BAD_EXIT": "1",
            **environment.short_spins(),
        },
        program=() if first.slurm.python else program,
        group=f"{dora_dir.absolute()}/{first.grid}",
        last=_last_job(first, dora_dir) if first.tells else (),
    )


def _write_tasks(path: Path, tasks: Sequence[Task], token: str) -> None:
    """Write the experiment of each index of an array: `[folder, token]`.

    An index is null if another command took its experiment.
    """
    last_index = tasks[-1][1]
    entries: list[list[str] | None] = [None] * (last_index + 1)
    for request, index in tasks:
        entries[index] = [str(request.experiment.folder.absolute()), token]
    write_json(path, entries)


def _last_job(request: Request, dora_dir: Path) -> list[str]:
    """The command that sends a message after the last job of a grid (last_job.py)."""
    code, outputs = str(request.code_root), str(dora_dir.absolute())
    return [sys.executable, "-c", LAST_JOB, code, outputs, request.grid]


def job_program(code_root: Path, target: Path, token: str) -> list[str]:
    """The program of a job and its arguments: `job.py FOLDER TOKEN`, or `job.py LIST` for an array.

    Args:
        token: empty for an array, whose list has it.
    """
    words = [str(code_root / "dora_train" / "engine" / "job.py"), str(target.absolute())]
    if token:
        words.append(token)
    return words


def job_command(python: str | None, program: Sequence[str]) -> str:
    """The line of shell that runs the program of a job.

    Args:
        python: inserted as it is, because it may be a line of shell itself, e.g. the call of a
            container. None: this interpreter.
    """
    return " ".join([python or shlex.quote(sys.executable), "-u", *map(shlex.quote, program)])
