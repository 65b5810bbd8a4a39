"""What the grid asks of whatever runs jobs, and what it is told of one.

An executor is small on purpose: it submits, cancels, and says what it knows of a job. What state an
*experiment* is in is decided elsewhere (status.py). There are two, `slurm.py` and `queue/executor.py`;
`choose.py` chooses.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError
from ..experiment.records import Job


class Phase(str, Enum):
    """Where a job is, as far as its executor can say."""

    PENDING = "pending"
    RUNNING = "running"
    OVER = "over"  # it will do nothing any more
    UNKNOWN = "unknown"  # nobody could be asked: never taken for over


@dataclass(frozen=True)
class JobInfo:
    """What an executor says of one job."""

    job_id: str
    phase: Phase
    # its end in SLURM's own words: COMPLETED, FAILED, OUT_OF_MEMORY ...; empty: it does not know
    word: str = ""
    reason: str = ""  # why it is pending
    node: str = ""
    exit_code: int = 0
    signal: int = 0  # the signal that ended it
    exact: bool = True  # False: `exit_code` may be the number of a signal
    user: str = ""
    by: str = ""  # who cancelled it
    name: str = ""

    def of(self, token: str) -> "JobInfo":
        """The same, if the job's name holds the token; else a job of which nothing is known.

        Ids come again on a cluster that was set up anew, or after its highest.
        """
        return self if not self.name or token in self.name else JobInfo(self.job_id, Phase.OVER)


@dataclass(frozen=True)
class Order:
    """One call of the scheduler: a job, or an array of them."""

    name: str  # unique, so that the job is found again by it
    command: str  # a line of shell
    folder: Path  # for its log
    parameters: Mapping[str, Any]  # as resources.py makes them
    tasks: Sequence[int] | None = None  # indices of an array; None: a single job
    after: Sequence[str] = ()  # job ids that must be over before it starts
    dependents: int = 0  # jobs more, each to start if the one before it failed
    setup: Sequence[str] = field(default_factory=list)  # lines of shell before the command


@dataclass(frozen=True)
class Receipt:
    """What the scheduler gave for an order."""

    job_id: str
    dependents: Sequence[str] = ()


class NotSubmitted(UserError):
    """The scheduler refused the order: there is no job."""


class NoRoom(NotSubmitted):
    """The scheduler takes no more jobs of this user at the moment, or not as many in one array."""


class Unanswered(UserError):
    """The scheduler did not answer: whether there is a job, is not known."""


class Executor(Protocol):
    """What every executor can do.

    None of it raises because a scheduler is slow, absent or wrong, but `submit`.
    """

    @property
    def name(self) -> str:
        """The kind: "slurm" or "local"."""

    @property
    def queue(self) -> str:
        """The name of the cluster, or the queue, that answers here."""

    def where(self) -> str:
        """Where a job goes, and why there: "on SLURM (sbatch found, ...)"."""

    def missing(self) -> str:
        """Why nothing can be submitted from here, in a few words; empty where it can."""

    def answers_for(self, job: Job) -> bool:
        """Whether this job can be asked about here; ids mean nothing to another cluster."""

    def submit(self, order: Order) -> Receipt:
        """Raises: NotSubmitted, Unanswered."""

    def log_path(self, order: Order, job_id: str, task: int | None) -> Path:
        """Where the output of a job, or of a task of it, goes."""

    def lost(self, job: Job) -> bool:
        """Whether a job that cannot be asked about is proven gone."""

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel jobs.

        Args:
            job_ids: a mapping gives for each the token that its job's name must hold, as the id may
                be another's by now.
        """

    def move(self) -> None:
        """Let jobs start that wait and can, where that is for us to do."""

    def jobs(self, job_ids: Iterable[str], force: bool = False) -> dict[str, JobInfo]:
        """What is known of these jobs; each gets an answer, if need be `UNKNOWN`."""

    def find(self, names: Iterable[str]) -> dict[str, str] | None:
        """Job ids by the names of jobs; None: the scheduler did not answer, so that a missing name
        means nothing."""


def tokens(job_ids: Iterable[str]) -> Mapping[str, str]:
    """Job ids, each with the token that its job's name must hold; empty: any."""
    return job_ids if isinstance(job_ids, Mapping) else dict.fromkeys(job_ids, "")


# how a person reaches a cluster, not what a job was given
OWN = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
RANKS = {
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
}


def outside(variable: str) -> bool:
    """Whether a variable was left in the environment by an outer job or rank, and must not reach a
    new one.

    Inside `salloc`, SLURM_NTASKS or SLURM_MEM_PER_CPU of the outer job would overrule what is asked
    for.
    """
    given = variable.startswith(("SLURM_", "SUBMITIT_", "DORA_TRAIN_JOB", "DORA_TRAIN_TASK"))
    return (given and variable not in OWN) or variable in RANKS


def nowhere(executor: Executor) -> tuple[str, str]:
    """What to say where nothing can be submitted."""
    if executor.name == "local":
        return (
            f"nothing was submitted: {executor.missing()}.",
            "name a folder on a local disk: DORA_QUEUE=FOLDER, and the same command again",
        )
    return (
        f"no SLURM here ({executor.missing()}): nothing was submitted.",
        "on this machine: DORA_CLUSTER=local, and the same command again     see the plan: --dry_run",
    )
