"""What is stored of an experiment, record by record, and every state that it can be in."""

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any


class State(str, Enum):
    """Every state that an experiment can be in.

    What each verb does with each: see the table in the README.
    """

    NEW = "new"  # known to a grid, never started nor submitted
    WAITING = "waiting"  # at the scheduler, or with us
    RUNNING = "running"
    # killed, preempted, node lost, reboot: goes on from its last checkpoint
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"  # reached its end, or stopped by its own rules
    FAILED = "failed"  # an exception, out of memory, diverged
    CANCELLED = "cancelled"  # by the user
    TIMED_OUT = "timed out"  # for good: no requeue was left
    STOPPED = "stopped"  # by a search

    @property
    def ended(self) -> bool:
        """Nothing more will happen without someone asking for it."""
        return self in ENDS

    def __str__(self) -> str:
        return self.value


ENDS = {State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT, State.STOPPED}


# not done, and nothing is on its way
ILL = {State.FAILED, State.TIMED_OUT, State.INTERRUPTED, State.CANCELLED}


@dataclass
class RunState:
    """What a run says of itself in `state.json`. Times are seconds since the epoch (UTC)."""

    state: State = State.NEW
    cause: str = ""  # one line: why it ended, or was interrupted
    attempt: int = 0  # the number of the attempt that wrote this
    epoch: int = 0  # epochs finished
    epochs: int | None = None  # epochs asked for; None: no limit
    batch: int = 0  # batches finished in the current epoch
    batches: int = 0  # batches an epoch
    step: int = 0  # optimizer steps since birth
    steps: int | None = None  # steps asked for; None: no limit
    fruitless: int = 0  # attempts, this one included, since the last checkpoint
    speed: float | None = None  # batches a second, lately
    # seconds: the longest, so far, that this attempt took from one `updated` to the next
    gap: float | None = None
    best: dict[str, Any] = field(default_factory=dict)  # {"epoch": 5, "acc": 0.97, "loss": 0.1}
    started: float | None = None  # this attempt
    updated: float | None = None
    ended: float | None = None
    beat: float | None = None  # `updated` by the clock that nobody sets: it counts from the boot
    host: str = ""
    job_id: str = ""
    codes: int = 0  # different ones that it ran so far; 0: not known


@dataclass
class Start:
    """What an attempt set out with: written once, when it is known where it goes on."""

    epoch: int  # the first that it trains, from 1
    # {"commit": ..., "dirty": [paths], "hash": of all code, which names a snapshot}
    code: dict[str, Any]
    step: int = 0  # optimizer steps before it
    # values of dotted keys that came after the experiment was made
    added: dict[str, Any] = field(default_factory=dict)

    def same_code(self, other: "Start") -> bool:
        """By content, where both know it."""
        keys = ["hash"] if self.code.get("hash") and other.code.get("hash") else ["commit", "dirty"]
        return all(self.code.get(key) == other.code.get(key) for key in keys)


@dataclass
class Birth:
    """What is written once, when an experiment is made, and never again."""

    sig: str
    argv: list[str]
    delta: list[list[Any]]
    config: dict[str, Any]  # the values that count in the signature, resolved
    rule: int  # the version of the signature's rule
    threads: int  # changes sums, hence frozen; does not count in the signature
    code: dict[str, Any]  # as Start's
    versions: dict[str, str]  # {"python": "3.11.7", "torch": ...}
    born: float
    host: str = ""
    user: str = ""
    # continue_from: {"given": ..., "file": name, "sha256": ...}
    origin: dict[str, str] = field(default_factory=dict)
    # {"data": "digits"}: the configuration's; empty: not known
    groups: dict[str, Any] = field(default_factory=dict)


NO_ROOM = "no room at the scheduler"  # how the error of a job begins that waits with us


@dataclass
class Job:
    """What is known of one job that an experiment was submitted as."""

    # names this submission; a job that finds another one here has been replaced, and leaves
    token: str
    cluster: str  # the executor: "slurm"
    submitted: float
    job_id: str = ""  # empty between the intent and the record
    log: str = ""  # path of its output
    user: str = ""
    host: str = ""
    grid: str = ""  # the grid that submitted it
    # what it was submitted with, to see a change
    resources: dict[str, Any] = field(default_factory=dict)
    # the values that do not count, as of the submission
    excluded: dict[str, Any] = field(default_factory=dict)
    # as Start's; its hash is empty where it runs the live files
    code: dict[str, Any] = field(default_factory=dict)
    cancelled: str = ""  # by whom and when, as the user asked for it
    number: int = 0  # it is the Nth submission; 0: not stored yet
    name: str = ""  # the scheduler's name of the job: how one is found whose id was never recorded
    task: int | None = None  # its index in a job array
    queue: str = ""  # which cluster of that kind, by its own name: ids mean nothing elsewhere
    queue_folder: str = ""  # of a local queue; empty: an earlier version
    # job ids, each to start if the one before it failed
    dependents: list[str] = field(default_factory=list)
    error: str = ""  # why the scheduler never got it
    # the process that made the intent (claims.Holder)
    writer: dict[str, Any] = field(default_factory=dict)
    # when a search wants it to end early (endings.py)
    stop: dict[str, Any] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """The scheduler had no room for it: it waits with us, until a `dora grid` puts it in."""
        return self.error.startswith(NO_ROOM)

    @property
    def ids(self) -> list[str]:
        """Every id that the scheduler may know it by."""
        return [job_id for job_id in (self.job_id, *self.dependents) if job_id]


@dataclass
class SearchRecord:
    """The trials of a search in the order in which they were asked for:

    `outputs/grids/NAME/search.json`.

    What came of them is not in it: that is in the experiments. With the same seed most of it can be
        found again
    without it; it keeps what was asked where the file of the search, or a library, was changed
    since.
    """

    question: dict[str, Any] = field(default_factory=dict)  # space, objective, optimizer, seed
    budget: int = 0  # trials, as of the start: some optimizers go by it
    at_once: int = 1  # as of the start
    # experiments that were told before the first ask
    reused: list[str] = field(default_factory=list)
    # {"sig", "values", "told": how many, at its ask}
    trials: list[dict[str, Any]] = field(default_factory=list)


def from_stored(cls: type, content: Any) -> Any:
    """`cls` from stored content; keys of other versions are passed over.

    None where it does not fit.
    """
    if not isinstance(content, dict):
        return None
    known = {item.name for item in fields(cls)}
    try:
        return cls(**{key: value for key, value in content.items() if key in known})
    except TypeError:  # a key without a default is missing
        return None
