"""A request to submit an experiment, as a certain job with certain code, and its outcome.

`apply.py` and `single.py` make requests. `submission.py` submits them. A job has one experiment, or
several that it works through (`job.pack`).
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

# the folder of the code that a job runs, and what is known of it (`Job.code`)
JobCode = tuple[Path, Mapping[str, Any]]


@dataclass(frozen=True)
class Request:
    """An experiment to submit."""

    experiment: Experiment
    slurm: SlurmConfig
    shape: Shape
    # The number of submissions when this one was decided. If another command has submitted since,
    # the number of this one is taken, and it is not made.
    seen: int
    code_root: Path  # the folder of the code that the job runs
    code: Mapping[str, Any] = field(default_factory=dict)  # what is known of that code
    excluded: Mapping[str, Any] = field(default_factory=dict)  # values that do not count
    grid: str = ""  # empty: no grid submits it
    # ids of jobs that are cancelled, and must be over before this one starts
    replaces: Sequence[str] = ()
    stop: Mapping[str, Any] = field(default_factory=dict)  # when it is to end early (Job.stop)
    packing: Packing = Packing()
    raised: Mapping[str, Any] = field(default_factory=dict)  # as `Job.raised`
    tells: bool = False  # the last job of the grid sends a message (telling.py)

    @property
    def number(self) -> int:
        """The number of this submission."""
        return self.seen + 1

    @property
    def kind(self) -> str:
        """The same text for all requests that one array can hold: of one code, resources, shape."""
        return f"{self.code_root}\0{kind_of(self.slurm, self.shape)}"


@dataclass(frozen=True)
class Outcome:
    """What came of a request."""

    experiment: Experiment
    job_id: str = ""  # empty: there is no job of ours
    trouble: str = ""  # why there is none
    held: bool = False  # the scheduler had no room: a later command submits it
    refused: bool = False  # the scheduler refused it: there is no job, and none is on its way

    @property
    def submitted(self) -> bool:
        return bool(self.job_id)


def kind_of(slurm: SlurmConfig, shape: Shape) -> str:
    """The resources of a job as text, to find those that ask for the same."""
    # `stored` leaves out the comment, but sbatch takes one comment for a whole array.
    return f"{stored(slurm, shape)}\0{slurm.comment}"


def kept(main: Experiments, experiment: Experiment, code: JobCode) -> JobCode:
    """Store an archive of the code with the experiment, and return the same code.

    A job that runs the live files has no archive here: the run makes it when it starts.
    """
    if code[1]["hash"]:
        main.code.keep(experiment.code_archive(main.code.hash))
    return code


def code_before(experiment: Experiment, dora_dir: Path) -> JobCode | None:
    """The snapshot that its last job ran. None: there was no job, or the snapshot is gone."""
    job = experiment.job()
    if job is None or not job.code.get("hash"):
        return None
    name = str(job.code["hash"])
    root = snapshot_of(name, experiment.code_archive(name), dora_dir)
    return (root, job.code) if root is not None else None
