"""A request to submit an experiment with given resources and code, and the outcome of the request.

`apply.py` and `single.py` make requests. `submission.py` submits them. A job runs one experiment,
or several (`job.pack`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dora.conf import SlurmConfig

from ..experiment.folder import Experiment
from ..experiment.snapshot import snapshot_of
from ..experiments import Experiments
from ..jobs.packing import Packing
from ..jobs.resources import Shape, stored

# The folder of the code that a job runs, and a description of this code (`Job.code`).
JobCode = tuple[Path, Mapping[str, Any]]


@dataclass(frozen=True)
class Request:
    """An experiment to submit."""

    experiment: Experiment
    slurm: SlurmConfig
    shape: Shape
    # The number of submissions so far, when this request was made. If another command submits the
    # experiment in the meantime, this request is not submitted, because its number is taken.
    seen: int
    code_root: Path  # the folder of the code that the job runs
    code: Mapping[str, Any] = field(default_factory=dict)  # the description of that code (Job.code)
    # the values that do not count in the signature
    excluded: Mapping[str, Any] = field(default_factory=dict)
    grid: str = ""  # empty: it does not come from a grid
    # ids of jobs that are cancelled now, and must be over before the new job starts
    replaces: Sequence[str] = ()
    stop: Mapping[str, Any] = field(default_factory=dict)  # when a search ends it early (Job.stop)
    packing: Packing = Packing()
    raised: Mapping[str, Any] = field(default_factory=dict)  # as `Job.raised`
    tells: bool = False  # whether the last job of the grid sends a message (telling.py)

    @property
    def number(self) -> int:
        """The number of this submission."""
        return self.seen + 1

    @property
    def kind(self) -> str:
        """A text. Requests with the same text (code, resources, shape) can be in one array."""
        return f"{self.code_root}\0{kind_of(self.slurm, self.shape)}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a request: a job, or the reason why there is none."""

    experiment: Experiment
    job_id: str = ""  # empty: this request has no job
    trouble: str = ""  # why it has no job
    held: bool = False  # the scheduler had no room: a later command submits the experiment
    refused: bool = False  # the scheduler refused the request: there is certainly no job

    @property
    def submitted(self) -> bool:
        return bool(self.job_id)


def kind_of(slurm: SlurmConfig, shape: Shape) -> str:
    """The resources of a job as text. Jobs with the same text ask for the same resources."""
    # `stored` leaves out the comment, but sbatch takes one comment for a whole array.
    return f"{stored(slurm, shape)}\0{slurm.comment}"


def kept(main: Experiments, experiment: Experiment, code: JobCode) -> JobCode:
    """Store an archive of the code in the experiment's folder. Returns `code` unchanged.

    If the job runs the live files, nothing is stored: the run stores its code when it starts.
    """
    if code[1]["hash"]:
        main.code.keep(experiment.code_archive(main.code.hash))
    return code


def code_before(experiment: Experiment, dora_dir: Path) -> JobCode | None:
    """The code of the experiment's last job. None if there was no job, or its snapshot is gone."""
    job = experiment.job()
    if job is None or not job.code.get("hash"):
        return None
    name = str(job.code["hash"])
    root = snapshot_of(name, experiment.code_archive(name), dora_dir)
    return (root, job.code) if root is not None else None
