"""The folder of an experiment: the names and formats of its files, and how they are read and written.

This is where the two wings meet. A run and a grid never call each other: each reads and writes these files, so that
either may be killed, or live on another machine. Light on purpose: it imports no torch, no Dora, no Hydra.

    outputs/xps/SIG/
      .argv.json      the overrides, as stock Dora stores them
      birth.json      written once: argv, delta, the values that count, rule, code, versions, threads
      state.json      what the run last said of itself: its state, cause, epoch, step, speed, best metrics
      attempts/N.json who started it the Nth time: the claim (see claims.py)
      attempts/N.start.json  the first epoch that this attempt trained, and the code that it ran
      code/HASH.tar.gz  the files that it ran, of that hash. Earlier versions kept code/HASH.patch: what leads from
                      the commit to them, if they were not those of the commit
      jobs/N.json     the job it was submitted as the Nth time: token, executor, resources, excluded values. Made
                      before the scheduler is told, exclusively, and never changed: whoever makes it, submits
      jobs/N.id.json  the job id that the scheduler gave, or why it gave none
      jobs/N.cancel.json, attempts/N.cancel.json   who asked for its end, and when
      inputs.json     the classes, and how an image becomes an input: what predict.py needs of the data set. Written
                      at each start, from the data that the run reads
      history.json    one entry an epoch, no clock in it
      result.json     best and test metrics, written at the end
      confusion.json  how often the test set's class (row) was taken for which (column), just before; null: not known
      last.ckpt       where the training resumes, with the history inside; previous.ckpt: the one before it
      best.ckpt       the weights of the best epoch in the history of last.ckpt. A new best epoch waits in
                      best.next.ckpt until last.ckpt knows of it
      train.log metrics.csv events.out.tfevents.*
    outputs/cleared/SIG/    the same of before a `--clear`, until the new run has its first checkpoint
"""

import errno
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from . import machine
from .files import exists, inode, numbered, unreadable

XPS, GRIDS, CODES, ARRAYS = "xps", "grids", "codes", "arrays"  # Dora's names for the folders below DORA_DIR
CLEARED = "cleared"  # beside them: results that --clear has put aside

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
    beat: float | None = None  # `updated` by the clock that nobody sets: it counts from the boot
    host: str = ""
    job_id: str = ""
    codes: int = 0  # different ones that it ran so far; 0: not known


@dataclass
class Start:
    """What an attempt set out with: written once, when it is known where it goes on."""

    epoch: int  # the first that it trains, from 1
    code: dict[str, Any]  # {"commit": ..., "dirty": [paths], "hash": of all code, which names a snapshot}
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
    groups: dict[str, Any] = field(default_factory=dict)  # {"data": "digits"}: the configuration's; empty: not known


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
    queue_folder: str = ""  # of a local queue; empty: an earlier version
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
    """The content of a JSON file; None if it is missing or damaged, so that no reader fails on it.

    Raises:
        UserError: this user may not read it, so that nobody knows what is in it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise unreadable(path) from error
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
        _allow_colleagues(aside)
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _allow_colleagues(path: Path, mode: int = 0o666) -> None:
    """What tempfile makes is private; colleagues share an outputs folder.

    Some file systems know no such rights.
    """
    with suppress(PermissionError):
        path.chmod(mode & ~_umask())


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
    """Write `content` unless `path` exists, whole or not at all.

    Returns:
        Whether this call wrote it: of several at once, on several machines too, exactly one gets True.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    aside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
            file.flush()
            os.fsync(file.fileno())
        _allow_colleagues(aside)
        return _take_name(aside, path)
    finally:
        aside.unlink(missing_ok=True)


# What os.link raises on file systems without hard links: FAT, exFAT, some FUSE, SMB and container mounts.
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP}


def _take_name(aside: Path, path: Path) -> bool:
    """Give the file `aside` the name `path` too, unless it is taken. Of several, one gets True."""
    try:
        os.link(aside, path)  # fails if the name exists; atomic on NFS too
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    return _take_name_without_links(aside, path)


def _take_name_without_links(aside: Path, path: Path) -> bool:
    """The same by renaming folders: a folder takes the place of another only if that one is empty.

    So the first whose folder has the common name is the winner. The others move its file into its
    place as well, since the winner may have been killed before it could. The folder stays, with a
    mark in it: as long as it is not empty, nobody else can win.
    """
    if path.exists():
        return False
    turn = path.with_name(f".{path.name}.first")
    mine = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        (mine / "taken").touch()
        os.replace(aside, mine / path.name)
        _allow_colleagues(mine, 0o777)
        won = _renamed(mine, turn)
        with suppress(FileNotFoundError):  # it is in its place
            os.replace(turn / path.name, path)
        return won
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def _renamed(folder: Path, target: Path) -> bool:
    """Rename a folder that is not empty; False if `target` is one already."""
    try:
        folder.rename(target)
        return True
    except OSError:
        if target.is_dir():
            return False
        raise


def second_name(path: Path, other: Path) -> None:
    """Let `other`, which does not exist, be the same file as `path`; a copy of it where there are no hard links."""
    try:
        os.link(path, other)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(path, other)


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


def cleared_folder(xps: Path) -> Path:
    """Where `--clear` puts results aside: on the disk of the experiments, and not among them.

    Whatever lists experiments, TensorBoard too, must not see one twice.
    """
    return xps.resolve().with_name(CLEARED)


def _discard(folder: Path) -> None:
    """Remove a folder and all in it. It is renamed first, so that nobody sees half of it."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.{time.time_ns()}.removed")
    with suppress(FileNotFoundError):
        folder.rename(aside)
    for left in folder.parent.glob(f".{folder.name}.*.removed"):  # and what a kill has left of earlier ones
        shutil.rmtree(left, ignore_errors=True)


@dataclass(frozen=True)
class Experiment:
    """One experiment's folder.

    Reading never fails on a missing or damaged file: it says None, or empty. A file that this user
    may not read is a UserError, from whatever reads.
    """

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
        """Raises: UserError if this user may not read the folder."""
        return exists(self.folder / "birth.json")

    @property
    def cleared(self) -> Path:
        """Where its results from before `--clear` lie until the new run has a checkpoint."""
        return cleared_folder(self.folder.parent) / self.sig

    def put_aside(self) -> None:
        """Take the folder away for a start from scratch; what was put aside before stays what can be had back.

        Unless the run since then has results of its own: those are what is put aside now. One rename does it, so that
        whatever is killed, either place holds the results, whole.
        """
        if self.has_results():
            _discard(self.cleared)
        if self.cleared.exists():
            _discard(self.folder)
        elif self.folder.exists():
            self.cleared.parent.mkdir(parents=True, exist_ok=True)
            self.folder.rename(self.cleared)

    def put_back(self) -> None:
        """Undo `put_aside`: the run that was to come was refused."""
        if self.cleared.exists():
            _discard(self.folder)
            self.cleared.rename(self.folder)

    def forget_cleared(self) -> None:
        """Remove for good what was put aside: the new run has a checkpoint."""
        if self.cleared.exists():
            _discard(self.cleared)

    def has_results(self) -> bool:
        """Whether a run has left anything here that would be missed."""
        found = (self.last_checkpoint, self.best_checkpoint, self.folder / "result.json")
        return any(path.exists() for path in found)

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
        return max(numbered(self.jobs), default=0)

    def attempt_numbers(self) -> list[int]:
        """Of all attempts so far, ascending."""
        return numbered(self.attempts)

    def job(self) -> Job | None:
        """The last submission that the scheduler got, may have got, or that waits with us for room.

        None as well if this folder is a copy: the job works on the original.
        """
        found = (self.job_at(number) for number in range(self.job_number(), 0, -1))
        last = next((job for job in found if job is not None and (job.held or not job.error)), None)
        return None if last is not None and self._is_copied_from(last.writer) else last

    def _is_copied_from(self, writer: Mapping[str, Any]) -> bool:
        folder, number = writer.get("folder"), writer.get("inode")
        if not folder or number == inode(self.folder):
            return False
        return machine.wrote_elsewhere(str(folder), str(writer.get("boot_id")), self.folder)

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
        numbers = numbered(self.attempts, ".start.json")
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

    def code_archive(self, name: str) -> Path:
        """The files that it ran, of the hash `name`."""
        return self.folder / "code" / f"{name}.tar.gz"

    def patch(self, name: str) -> Path:
        """What leads from a commit to the files of the hash `name`, as earlier versions kept it."""
        return self.folder / "code" / f"{name}.patch"

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
