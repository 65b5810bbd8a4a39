"""The records that are stored of an experiment, and every state that it can be in."""

from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


class State(str, Enum):
    """Every state that an experiment can be in.

    The README has a table of what each verb does with each state.
    """

    NEW = "new"  # known to a grid, never started nor submitted
    WAITING = "waiting"  # at the scheduler, or with us
    RUNNING = "running"
    # killed, preempted, node lost, reboot: it resumes at its last checkpoint
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"  # reached its end, or stopped by its own rules
    FAILED = "failed"  # an exception, out of memory, diverged
    CANCELLED = "cancelled"  # by the user
    TIMED_OUT = "timed out"  # for good: no requeue was left
    STOPPED = "stopped"  # by a search

    @property
    def ended(self) -> bool:
        """Whether it stays as it is until a user asks for more."""
        return self in ENDS

    def __str__(self) -> str:
        return self.value


ENDS = {State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT, State.STOPPED}
MOST_IN_VAIN = 3  # attempts without a new checkpoint, after which a job is not started again
# It did not reach its end, and no job or process works at it.
ILL = {State.FAILED, State.TIMED_OUT, State.INTERRUPTED, State.CANCELLED}


@dataclass
class RunState:
    """A run's report on itself in `state.json`. Times are seconds since the epoch (UTC)."""

    state: State = State.NEW
    cause: str = ""  # one line that says why it ended, or was interrupted
    attempt: int = 0  # the number of the attempt that wrote this
    epoch: int = 0  # epochs finished
    epochs: int | None = None  # epochs asked for; None: no limit
    batch: int = 0  # batches finished in the current epoch
    batches: int = 0  # batches per epoch
    step: int = 0  # optimizer steps since birth
    steps: int | None = None  # steps asked for; None: no limit
    fruitless: int = 0  # attempts, this one included, since the last checkpoint
    speed: float | None = None  # batches per second, lately
    # seconds: the longest time, so far, that this attempt took from one `updated` to the next
    gap: float | None = None
    best: dict[str, Any] = field(default_factory=dict)  # {"epoch": 5, "acc": 0.97, "loss": 0.1}
    started: float | None = None  # of this attempt
    updated: float | None = None
    ended: float | None = None
    beat: float | None = None  # `updated` by the clock that counts from the boot: it is never set
    host: str = ""
    job_id: str = ""
    codes: int = 0  # versions of the code that it ran so far. 0: not known
    # why another run of the same would have other bits. Empty: it would not
    unpromised: list[str] = field(default_factory=list)

    @property
    def bits(self) -> str:
        """`not promised: deterministic=false`. Empty if they are promised."""
        if not self.unpromised:
            return ""
        return f"not promised: {', '.join(self.unpromised)}"


@dataclass
class Start:
    """The first epoch and the code of an attempt. Written once, when it is known where it
    resumes."""

    epoch: int  # the first that it trains, from 1
    # {"commit": ..., "dirty": [paths], "hash": of all code, which names a snapshot}
    code: dict[str, Any]
    step: int = 0  # optimizer steps before it
    # values of dotted keys that came after the experiment was made
    added: dict[str, Any] = field(default_factory=dict)
    # as in the birth; empty in files of earlier versions
    versions: dict[str, str] = field(default_factory=dict)

    def same_code(self, other: "Start") -> bool:
        """Whether the code of two starts is the same: by its hash, if both have one."""
        keys = ["commit", "dirty"]
        if self.code.get("hash") and other.code.get("hash"):
            keys = ["hash"]
        return all(self.code.get(key) == other.code.get(key) for key in keys)


@dataclass
class Usage:
    """What one rank of an attempt has used so far. Seconds, bytes and joules."""

    rank: int = 0
    wall: float = 0.0
    saved: float = 0.0  # of these, those before the last checkpoint was whole
    done: bool = False  # it has reached the end of the run
    cores: int = 1  # that it may use
    cpu: float = 0.0  # of CPU time, with its data workers
    memory: int = 0  # the peak, with its data workers
    gpus: int = 0
    gpu_busy: float | None = None  # in which its GPU computed. None: not known
    gpu_memory: int = 0  # the peak of what torch has reserved
    energy: float | None = None  # of its GPU, and its share of the CPUs. None: not known


@dataclass
class Birth:
    """The record that is written when an experiment is made, and never changed."""

    sig: str
    argv: list[str]
    delta: list[list[Any]]
    config: dict[str, Any]  # the values that count in the signature, resolved
    rule: int  # the version of the signature's rule
    threads: int  # it changes sums, hence it is frozen, but it does not count in the signature
    code: dict[str, Any]  # as `Start.code`
    versions: dict[str, str]  # {"python": "3.11.7", "torch": ...}
    born: float
    host: str = ""
    user: str = ""
    # continue_from: {"given": ..., "file": name, "sha256": ...}
    origin: dict[str, str] = field(default_factory=dict)
    # {"data": "digits"}: the option of each group of the configuration. Empty: not known
    groups: dict[str, Any] = field(default_factory=dict)
    # Frozen for the same reason as `threads`. Earlier versions did not ask for it
    deterministic: bool = False

    @property
    def fixed(self) -> dict[str, Any]:
        """The values that are frozen although they do not count in the signature."""
        return {"threads": self.threads, "deterministic": self.deterministic}


# The error of a job begins with this if a later `dora grid` is to submit it.
NO_ROOM = "no room at the scheduler"


@dataclass
class Job:
    """One job of an experiment."""

    # It names this submission. A job that finds another token here was replaced, and ends.
    token: str
    cluster: str  # the executor: "slurm"
    submitted: float
    job_id: str = ""  # empty between the intent and the record
    log: str = ""  # path of its output
    user: str = ""
    host: str = ""
    grid: str = ""  # the grid that submitted it
    # those of the submission, so that a change can be seen
    resources: dict[str, Any] = field(default_factory=dict)
    # the values that do not count, as of the submission
    excluded: dict[str, Any] = field(default_factory=dict)
    # as `Start.code`. Its hash is empty if it runs the live files
    code: dict[str, Any] = field(default_factory=dict)
    cancelled: str = ""  # by whom and when, as the user asked for it
    number: int = 0  # it is the Nth submission. 0: not stored yet
    name: str = ""  # the scheduler's name of the job, by which it is found if its id is not known
    task: int | None = None  # its index in a job array
    # its index among the experiments of a packed job. None: the job is for it alone
    member: int | None = None
    queue: str = ""  # the name of the cluster. Another cluster may use the same job ids
    queue_folder: str = ""  # of a local queue. Empty in files of earlier versions
    # job ids, each of which starts if the one before it failed
    dependents: list[str] = field(default_factory=list)
    error: str = ""  # why the scheduler has no such job
    # the process that made the intent (claims.Holder)
    writer: dict[str, Any] = field(default_factory=dict)
    # {"oom": 2, "gpu": "a100"}: how often its memory was raised, and the GPU that it asks for
    # instead, since an earlier job had too little memory (grid/memory.py)
    raised: dict[str, Any] = field(default_factory=dict)
    # the conditions under which a search ends it early (run/endings.py)
    stop: dict[str, Any] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """Whether the scheduler had no room for it. It waits until a `dora grid` submits it."""
        return self.error.startswith(NO_ROOM)

    @property
    def ids(self) -> list[str]:
        """All ids that it may have at the scheduler."""
        return [job_id for job_id in (self.job_id, *self.dependents) if job_id]


@dataclass
class SearchRecord:
    """The trials of a search in the order in which the optimizer asked for them.

    It is stored in `outputs/grids/NAME/search.json`. The results of the trials are in their
    experiments. With the same seed the optimizer would ask for the same trials again. The record is
    needed if the file of the search, or a library, was changed since.
    """

    question: dict[str, Any] = field(default_factory=dict)  # space, objective, optimizer, seed
    budget: int = 0  # number of trials, as of the start: some optimizers depend on it
    at_once: int = 1  # as of the start
    # signatures of experiments whose results the optimizer had before its first trial
    reused: list[str] = field(default_factory=list)
    # {"sig", "values", "told": number of results that the optimizer had when it asked}
    trials: list[dict[str, Any]] = field(default_factory=list)


def from_stored(cls: type[T], content: object) -> T | None:
    """A record of class `cls` from stored content. None if the content does not fit.

    Keys of other versions are ignored.
    """
    if not isinstance(content, dict):
        return None
    known = _names_of(cls)  # type: ignore[arg-type]  # a class has a hash
    try:
        return cls(**{key: value for key, value in content.items() if key in known})
    except TypeError:  # a key without a default is missing
        return None


@cache
def _names_of(cls: type) -> frozenset[str]:
    """The names of the fields of a dataclass."""
    return frozenset(item.name for item in fields(cls))
