"""The folder of an experiment: the names and formats of its files, and how they are read and written.

This is where the two wings meet. A run and a grid never call each other: each reads and writes these files, so that
either may be killed, or live on another machine. Light on purpose: it imports no torch, no Dora, no Hydra.

    outputs/xps/SIG/
      .argv.json      the overrides, as stock Dora stores them
      birth.json      written once: argv, delta, the values that count, rule, code, versions, threads
      state.json      what the run last said of itself: its state, cause, epoch, step, speed, best metrics
      attempts/N.json who started it the Nth time: the claim (see claims.py)
      attempts/N.start.json  the first epoch that this attempt trained, and the code that it ran
      code/HASH.patch what leads from the commit to the files that it ran, where they were not those of the commit
      jobs/N.json     the job it was submitted as the Nth time: token, executor, resources, excluded values. Made
                      before the scheduler is told, exclusively, and never changed: whoever makes it, submits
      jobs/N.id.json  the job id that the scheduler gave, or why it gave none
      jobs/N.cancel.json, attempts/N.cancel.json   who asked for its end, and when
      inputs.json     the classes, and how an image becomes an input: what predict.py needs of the data set. Written
                      at each start, from the data that the run reads
      data.json.gz    what its data consisted of at its first start: {file: [part, size, checksum]};
                      see contents.py
      history.json    one entry an epoch, no clock in it
      result.json     best and test metrics, written at the end
      confusion.json  how often the test set's class (row) was taken for which (column), just before; null: not known
      last.ckpt best.ckpt train.log metrics.csv events.out.tfevents.*
"""

import gzip
import json
import os
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

XPS, GRIDS, CODES, ARRAYS = "xps", "grids", "codes", "arrays"  # Dora's names for the folders below DORA_DIR


BEST = "best.ckpt"
NO_ROOM = "no room at the scheduler"  # how the error of a job begins that waits with us


class State(str, Enum):
    """Every state that an experiment can be in. What each verb does with each: see the table in the README."""

    NEW = "new"  # known to a grid, never started nor submitted
    WAITING = "waiting"  # at the scheduler, or with us
    RUNNING = "running"
    INTERRUPTED = "interrupted"  # killed, preempted, node lost, reboot: goes on from its last checkpoint
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
ILL = {State.FAILED, State.TIMED_OUT, State.INTERRUPTED, State.CANCELLED}  # not done, and nothing is on its way


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
    fruitless: int = 0  # attempts, this one included, since the last checkpoint
    speed: float | None = None  # batches a second, lately
    gap: float | None = None  # seconds: the longest, so far, that this attempt took from one `updated` to the next
    best: dict[str, Any] = field(default_factory=dict)  # {"epoch": 5, "acc": 0.97, "loss": 0.1}
    started: float | None = None  # this attempt
    updated: float | None = None
    ended: float | None = None
    host: str = ""
    job_id: str = ""
    codes: int = 0  # different ones that it ran so far; 0: not known


@dataclass
class Start:
    """What an attempt set out with: written once, when it is known where it goes on."""

    epoch: int  # the first that it trains, from 1
    code: dict[str, Any]  # {"commit": ..., "dirty": [paths], "hash": of all files, which names a snapshot}
    step: int = 0  # optimizer steps before it
    added: dict[str, Any] = field(default_factory=dict)  # values of dotted keys that came after the experiment was made

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
    origin: dict[str, str] = field(default_factory=dict)  # continue_from: {"given": ..., "file": name, "sha256": ...}


@dataclass
class Job:
    """What is known of one job that an experiment was submitted as."""

    token: str  # names this submission; a job that finds another one here has been replaced, and leaves
    cluster: str  # the executor: "slurm"
    submitted: float
    job_id: str = ""  # empty between the intent and the record
    log: str = ""  # path of its output
    user: str = ""
    host: str = ""
    grid: str = ""  # the grid that submitted it
    resources: dict[str, Any] = field(default_factory=dict)  # what it was submitted with, to see a change
    excluded: dict[str, Any] = field(default_factory=dict)  # the values that do not count, as of the submission
    code: dict[str, Any] = field(default_factory=dict)  # as Start's; its hash is empty where it runs the live files
    cancelled: str = ""  # by whom and when, as the user asked for it
    number: int = 0  # it is the Nth submission; 0: not stored yet
    name: str = ""  # the scheduler's name of the job: how one is found whose id was never recorded
    task: int | None = None  # its index in a job array
    queue: str = ""  # which cluster of that kind, by its own name: ids mean nothing elsewhere
    dependents: list[str] = field(default_factory=list)  # job ids, each to start if the one before it failed
    error: str = ""  # why the scheduler never got it
    writer: dict[str, Any] = field(default_factory=dict)  # the process that made the intent (claims.Holder)
    stop: dict[str, Any] = field(default_factory=dict)  # when a search wants it to end early (endings.py)

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
    """The trials of a search in the order in which they were asked for: `outputs/grids/NAME/search.json`.

    What came of them is not in it: that is in the experiments. With the same seed most of it can be found again
    without it; it keeps what was asked where the file of the search, or a library, was changed since.
    """

    question: dict[str, Any] = field(default_factory=dict)  # space, objective, optimizer, seed
    budget: int = 0  # trials, as of the start: some optimizers go by it
    at_once: int = 1  # as of the start
    reused: list[str] = field(default_factory=list)  # experiments that were told before the first ask
    trials: list[dict[str, Any]] = field(default_factory=list)  # {"sig", "values", "told": how many, at its ask}


def _from_dict(cls: type, content: Any) -> Any:
    """`cls` from stored content; keys of other versions are passed over. None where it does not fit."""
    if not isinstance(content, dict):
        return None
    known = {item.name for item in fields(cls)}
    try:
        return cls(**{key: value for key, value in content.items() if key in known})
    except TypeError:  # a key without a default is missing
        return None


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where it is missing or damaged: a reader never fails on one bad file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` at the end, whole and on disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o666 & ~_umask())  # mkstemp makes it private; colleagues share an outputs folder
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint's file, a zip, holds what was written: torch's reader looks at no checksum.

    What a damaged file raises is not to be foreseen (BadZipFile, NotImplementedError, struct.error ...).
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            # miniz, which torch reads with, takes a part whose attributes say so for a folder: it reads nothing, unsaid
            return archive.testzip() is None and not any(part.external_attr for part in archive.infolist())
    except Exception:
        return False


def write_json(path: Path, content: Any) -> None:
    """Write `content` whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content) + "\n", encoding="utf-8")


def write_once(path: Path, content: Any) -> bool:
    """Write `content` unless `path` exists; of several writers at once exactly one gets True, on NFS as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    aside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(0o666 & ~_umask())
        os.link(aside, path)
        return True
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)


def read_search(folder: Path) -> SearchRecord | None:
    """The record of the search whose grid has this folder; None where there is none, or it is damaged."""
    record = _from_dict(SearchRecord, read_json(folder / "search.json"))
    if record is None or not isinstance(record.trials, list) or not isinstance(record.reused, list):
        return None
    fits = all(isinstance(trial, dict) and {"sig", "values", "told"} == set(trial) for trial in record.trials)
    return record if fits else None


def write_search(folder: Path, record: SearchRecord) -> None:
    """Write the record, where it is another one than before."""
    if read_search(folder) != record:
        write_json(folder / "search.json", asdict(record))


def is_signature(name: str) -> bool:
    """Whether `name` can be a signature: eight hexadecimal digits."""
    return len(name) == 8 and all(letter in "0123456789abcdef" for letter in name)


@dataclass(frozen=True)
class Experiment:
    """One experiment's folder. Reading never fails on a missing or damaged file: it says None, or empty."""

    folder: Path

    @property
    def sig(self) -> str:
        return self.folder.name

    @property
    def last_checkpoint(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        return self.folder / BEST

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    @property
    def metrics_csv(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def attempts(self) -> Path:
        return self.folder / "attempts"

    @property
    def submitit(self) -> Path:
        return self.folder / "submitit"

    def worker_log(self, rank: int) -> Path:
        """Where a rank other than 0 writes, by Dora's name for it."""
        return self.folder / f"worker_{rank}.log"

    def exists(self) -> bool:
        return (self.folder / "birth.json").exists()

    def remove(self) -> None:
        """Remove the folder and all in it, for a start from scratch. It is renamed first: nobody sees half of it."""
        aside = self.folder.with_name(f".{self.sig}.{os.getpid()}.{time.time_ns()}.removed")
        try:
            self.folder.rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    def birth(self) -> Birth | None:
        return _from_dict(Birth, read_json(self.folder / "birth.json"))

    def write_birth(self, birth: Birth) -> bool:
        """Write the birth, once. False where another process was first."""
        write_once(self.folder / ".argv.json", birth.argv)  # for stock Dora, and for `-f`; first: a birth is all there
        return write_once(self.folder / "birth.json", asdict(birth))

    def argv(self) -> list[str] | None:
        """The overrides that made it; experiments of stock Dora have these and no birth."""
        argv = read_json(self.folder / ".argv.json")
        return argv if isinstance(argv, list) else None

    def state(self) -> RunState:
        content = read_json(self.folder / "state.json")
        run = _from_dict(RunState, content)
        if run is None or run.state not in {state.value for state in State}:
            return RunState()
        run.state = State(run.state)
        return run

    def write_state(self, run: RunState) -> None:
        write_json(self.folder / "state.json", asdict(run))

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    def job_number(self) -> int:
        """The number of the last submission, whatever came of it; 0: there was none."""
        try:
            return max((int(path.stem) for path in self.jobs.glob("*.json") if path.stem.isdigit()), default=0)
        except OSError:
            return 0

    def job(self) -> Job | None:
        """The last submission that the scheduler got, or may have got, or that waits with us for room there."""
        found = (self.job_at(number) for number in range(self.job_number(), 0, -1))
        return next((job for job in found if job is not None and (job.held or not job.error)), None)

    def job_at(self, number: int) -> Job | None:
        """The Nth submission; one whose file is damaged has an empty token: it may still be at the scheduler."""
        path = self.jobs / f"{number}.json"
        try:
            submitted = path.stat().st_mtime
        except OSError:
            return None
        job = _from_dict(Job, read_json(path)) or Job(token="", cluster="", submitted=submitted)
        record = read_json(self.jobs / f"{number}.id.json")
        for key in ("job_id", "log", "dependents", "error"):
            if isinstance(record, dict) and key in record:
                setattr(job, key, record[key])
        if "snapshot" in job.code:  # how a hash was named in earlier files
            job.code["hash"] = job.code.pop("snapshot")
        job.number, job.cancelled = number, self._cancelled_by(self.jobs, number)
        return job

    def intend_job(self, job: Job) -> bool:
        """Announce submission `job.number`. Of several processes exactly one gets True, and may go on to submit."""
        return write_once(self.jobs / f"{job.number}.json", asdict(job))

    def record_job(self, number: int, job_id: str = "", log: str = "", dependents: Sequence[str] = (),
                   error: str = "") -> bool:
        """Say what came of the intent, once. False: another process has said so already."""
        record = {"job_id": job_id, "log": log, "dependents": list(dependents), "error": error}
        return write_once(self.jobs / f"{number}.id.json", record)

    def cancel_job(self, number: int, by: str) -> None:
        """Note who asked for the end of submission `number`, so that its end can be told from an accident."""
        write_once(self.jobs / f"{number}.cancel.json", {"by": by, "time": time.time()})

    def cancel_attempt(self, number: int, by: str) -> None:
        """The same for an attempt that is no job."""
        write_once(self.attempts / f"{number}.cancel.json", {"by": by, "time": time.time()})

    def attempt_cancelled(self, number: int) -> str:
        """Who asked for the end of an attempt; empty: nobody."""
        return self._cancelled_by(self.attempts, number)

    @staticmethod
    def _cancelled_by(folder: Path, number: int) -> str:
        mark = read_json(folder / f"{number}.cancel.json")
        return str(mark.get("by") or "someone") if isinstance(mark, dict) else ""

    def write_start(self, attempt: int, start: Start) -> None:
        write_once(self.attempts / f"{attempt}.start.json", asdict(start))

    def starts(self) -> list[Start]:
        """Of all attempts that came to train, in their order."""
        numbers = sorted(int(path.name.partition(".")[0]) for path in self.attempts.glob("*.start.json")
                         if path.name.partition(".")[0].isdigit())
        found = (_from_dict(Start, read_json(self.attempts / f"{number}.start.json")) for number in numbers)
        return [start for start in found if start and isinstance(start.code, dict)]

    def codes(self) -> list[Start]:
        """The codes that it ran, in order, each with where it began; one that it came back to is there again.

        One of which nothing is left, as the next attempt went on from before it, does not count. Before the first
        attempt: the code that is to run.
        """
        starts, birth = self.starts(), self.birth()
        if not starts:
            job = self.job()
            code = (job.code if job else {}) or (birth.code if birth else {})
            return [Start(1, code)] if code else []
        if starts[0].step and birth:  # it began before there were such files
            starts.insert(0, Start(1, birth.code))
        found: list[Start] = []
        for start in starts:
            while found and found[-1].step >= start.step:
                found.pop()
            if not found or not found[-1].same_code(start):
                found.append(start)
        return found

    def patch(self, name: str) -> Path:
        """What led from a commit to the files whose hash is `name`; missing where they were those of the commit."""
        return self.folder / "code" / f"{name}.patch"

    def write_patch(self, name: str, patch: bytes) -> None:
        with written_aside(self.patch(name)) as aside:
            aside.write_bytes(patch)

    def history(self) -> list[dict]:
        """One entry an epoch, e.g. `{"train": {"loss": 0.2, "acc": 0.9}, "valid": {...}}`."""
        history = read_json(self.folder / "history.json")
        return history if isinstance(history, list) and all(isinstance(entry, dict) for entry in history) else []

    def write_history(self, history: list[dict]) -> None:
        write_json(self.folder / "history.json", history)

    def inputs(self) -> Any:
        """What `dora_train.inputs.Inputs` holds, as plain Python; None where none was stored."""
        return read_json(self.folder / "inputs.json")

    def write_inputs(self, inputs: dict[str, Any]) -> None:
        write_json(self.folder / "inputs.json", inputs)

    def contents(self) -> dict[str, list[Any]] | None:
        """What its data consisted of when it began (contents.py); None if that was not stored."""
        try:
            contents = json.loads(gzip.decompress((self.folder / "data.json.gz").read_bytes()))
        except (OSError, EOFError, ValueError, zlib.error):
            return None
        return contents if isinstance(contents, dict) else None

    def write_contents(self, contents: Mapping[str, Sequence[Any]]) -> None:
        with written_aside(self.folder / "data.json.gz") as aside:
            aside.write_bytes(gzip.compress(json.dumps(contents).encode()))

    def result(self) -> dict | None:
        """`{"best": {"epoch": 16, "loss": ..., "acc": ...}, "test": {...}, "epochs": 20, "reason": ...}`."""
        result = read_json(self.folder / "result.json")
        return result if isinstance(result, dict) else None

    def write_result(self, result: dict) -> None:
        write_json(self.folder / "result.json", result)

    def confusion(self) -> list[list[int]] | None:
        """[true class][given class], of the test set; the classes' names are in `inputs()`."""
        matrix = read_json(self.folder / "confusion.json")
        square = isinstance(matrix, list) and all(isinstance(row, list) and len(row) == len(matrix) for row in matrix)
        return matrix if square and all(type(count) is int for row in matrix for count in row) else None

    def write_confusion(self, matrix: list[list[int]] | None) -> None:
        write_json(self.folder / "confusion.json", matrix)
