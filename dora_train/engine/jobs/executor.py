"""The interface between the grid and the executors, which run jobs.

An executor is small on purpose: it submits jobs, cancels them, and answers questions about them.
The state of an *experiment* is decided in watch/status.py. There are two executors, slurm.py and
queue/executor.py. choose.py chooses one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
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
    OVER = "over"
    UNKNOWN = "unknown"  # the executor could not be asked: never taken for over


@dataclass(frozen=True)
class JobInfo:
    """An executor's answer on one job."""

    job_id: str
    phase: Phase
    # its state in SLURM's own words: COMPLETED, FAILED, OUT_OF_MEMORY ...; empty: not known
    word: str = ""
    reason: str = ""  # why it is pending
    node: str = ""
    gpus: Sequence[str] = ()  # those that the local queue gave it, as CUDA names them
    exit_code: int = 0
    signal: int = 0  # the signal that ended it
    exact: bool = True  # False: `exit_code` may be the number of a signal
    user: str = ""
    by: str = ""  # the user who cancelled it
    name: str = ""

    def of(self, token: str) -> "JobInfo":
        """The same answer if the job's name holds the token. Else ours is over, with no known end.

        Another job may have the id by now: a cluster that was set up anew starts again at 1, and so
        does one that reached its highest id.
        """
        if self.name and token not in self.name:
            return JobInfo(self.job_id, Phase.OVER)
        return self

    def is_running(self, token: str) -> bool | None:
        """Whether the job runs, and its name holds the token. None: not known."""
        if self.phase == Phase.UNKNOWN:
            return None
        return self.of(token).phase == Phase.RUNNING


@dataclass(frozen=True)
class Order:
    """One call of the scheduler: a job, or an array of them."""

    name: str  # unique, as the job may have to be found again by it
    command: str  # a line of shell
    folder: Path  # for its log
    parameters: Mapping[str, Any]  # as resources.py makes them
    tasks: Sequence[int] | None = None  # indices of an array; None: a single job
    after: Sequence[str] = ()  # job ids that must be over before it starts
    dependents: int = 0  # the number of further jobs, each to start if the one before it failed
    variables: Mapping[str, str] = field(default_factory=dict)  # of the environment of the command
    # what the command runs with this Python: a file and its arguments. Empty: it is another command
    program: Sequence[str] = ()
    threads: int = 1  # of each rank; in an array, the most that a task has
    group: str = ""  # names the jobs that belong together
    # a command for the end of the last job of the group. Only the local queue runs it
    last: Sequence[str] = ()


@dataclass(frozen=True)
class Receipt:
    """The ids of the jobs that were submitted for an order."""

    job_id: str
    dependents: Sequence[str] = ()  # may be fewer than were ordered


class NotSubmitted(UserError):
    """The scheduler refused the order: there is no job."""


class NoRoom(NotSubmitted):
    """The scheduler takes no more jobs of this user now, or not so many in one array."""


class Unanswered(UserError):
    """The scheduler did not answer, so it is not known whether there is a job."""


class Executor(Protocol):
    """The methods of every executor.

    Only `submit` raises if a scheduler is slow, absent or wrong.
    """

    @property
    def name(self) -> str:
        """The kind: "slurm" or "local"."""

    @property
    def queue(self) -> str:
        """The name of the cluster or of the local queue. Empty if there is none."""

    def where(self, gpus: Collection[int]) -> str:
        """Where jobs go, and why: "on SLURM (sbatch found, ...)".

        Args:
            gpus: how many GPUs the jobs ask for, each number once. Empty: no job is submitted.
        """

    def missing(self) -> str:
        """Why nothing can be submitted from here, in a few words. Empty if it can."""

    def answers_for(self, job: Job) -> bool:
        """Whether this executor can be asked about a job.

        The id of a job means nothing to another cluster.
        """

    def submit(self, order: Order) -> Receipt:
        """Submit a job or an array.

        Raises:
            NotSubmitted: it was refused.
            Unanswered: it is not known whether there is a job.
        """

    def log_path(self, order: Order, job_id: str, task: int | None) -> Path:
        """The file for the output of a job, or of one task of an array."""

    def lost(self, job: Job) -> bool:
        """Whether a job is proven gone, although it cannot be asked about."""

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel jobs.

        Args:
            job_ids: ids, or a mapping from ids to tokens. The name of a job must hold its token, as
                the id may be another job's by now.
        """

    def move(self) -> None:
        """Start the jobs that wait and can start. SLURM does this by itself."""

    def more_to_come(self) -> AbstractContextManager[None]:
        """Within this block, jobs may follow soon: a process that starts them quickly is kept."""

    def jobs(self, job_ids: Iterable[str], force: bool = False) -> dict[str, JobInfo]:
        """The answer on each of these jobs, by its id. Without one, its phase is `UNKNOWN`.

        Args:
            force: ask the scheduler now, even if it was asked a moment ago.
        """

    def find(self, names: Iterable[str]) -> dict[str, str] | None:
        """Job ids by the names of jobs.

        None: the scheduler did not answer. Then nothing is known of a missing name.
        """


def tokens(job_ids: Iterable[str]) -> Mapping[str, str]:
    """Job ids, each with the token that its job's name must hold. An empty token fits any name."""
    if isinstance(job_ids, Mapping):
        return job_ids
    return dict.fromkeys(job_ids, "")


def job_log(order: Order, job_id: str, task: int | None) -> Path:
    """The log of the first rank, named as by submitit: `123_0_log.out`, `123_7_0_log.out`.

    Args:
        job_id: the id of the job, or of the whole array.
        task: the index in an array. None: a single job.
    """
    if task is not None:
        job_id = f"{job_id}_{task}"
    return order.folder / f"{job_id}_0_log.out"


# a user sets these to reach a cluster, so they are not of an outer job
OWN = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
# torchrun and Lightning set these for a rank
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
    """Whether an environment variable comes from an outer job or rank.

    Such a variable must not reach a new job. Inside `salloc`, SLURM_NTASKS or SLURM_MEM_PER_CPU of
    the outer job would override the resources of the new one.
    """
    given = variable.startswith(("SLURM_", "SUBMITIT_", "DORA_TRAIN_JOB", "DORA_TRAIN_TASK"))
    return (given and variable not in OWN) or variable in RANKS


def nowhere(executor: Executor) -> tuple[str, str]:
    """The message and the hint if nothing can be submitted."""
    if executor.name == "local":
        return (
            f"nothing was submitted: {executor.missing()}.",
            "name a folder on a local disk: DORA_QUEUE=FOLDER, and the same command again",
        )
    return (
        f"no SLURM here ({executor.missing()}): nothing was submitted.",
        "on this machine: DORA_CLUSTER=local, and the same command again     see the plan: --dry_run",
    )
