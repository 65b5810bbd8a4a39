"""The folder of an experiment: the names and formats of its files, and how they are read and
written.

This is where the two wings meet. A run and a grid never call each other: each reads and writes
these files, so that either may be killed, or live on another machine. Light on purpose: it imports
no torch, no Dora, no Hydra.

    outputs/xps/SIG/
      .argv.json      the overrides, as stock Dora stores them
      birth.json      written once: argv, delta, the values that count, rule, code, versions, threads
      state.json      what the run last said of itself: its state, cause, epoch, step, speed, best metrics
      attempts/N.json who started it the Nth time: the claim (see claims.py)
      attempts/N.start.json  the first epoch that this attempt trained, and the code that it ran
      code/HASH.tar.gz  the files that it ran, of that hash. Earlier versions kept code/HASH.patch: what leads from
                      the commit to them, if they were not those of the commit
      jobs/N.json     the job it was submitted as the Nth time: token, executor, resources, excluded values. Made
                      before the scheduler is told, exclusively, and never changed: whoever makes
                          it, submits
      jobs/N.id.json  the job id that the scheduler gave, or why it gave none
      jobs/N.cancel.json, attempts/N.cancel.json   who asked for its end, and when
      inputs.json     the classes, and how an image becomes an input: what predict.py needs of the data set. Written
                      at each start, from the data that the run reads
      data.json.gz    what its data consisted of at its first start: {file: [part, size, checksum]};
                      see contents.py
      history.json    one entry an epoch, no clock in it; within epochs one a validation, with its step
      result.json     best and test metrics, written at the end
      confusion.json  how often the test set's class (row) was taken for which (column), just before; null: not known
      last.ckpt       where the training resumes, with the history inside; previous.ckpt: the one before it
      best.ckpt       the weights of the best epoch in the history of last.ckpt. A new best epoch waits in
                      best.next.ckpt until last.ckpt knows of it
      train.log metrics.csv events.out.tfevents.*
    outputs/cleared/SIG/    the same of before a `--clear`, until the new run has its first checkpoint
"""

import gzip
import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..access import exists
from ..files import read_json, write_json, write_once, written_aside
from .ledger import Ledger
from .records import Birth, RunState, SearchRecord, Start, State, from_stored

# Dora's names for the folders below DORA_DIR
XPS, GRIDS, CODES, ARRAYS = "xps", "grids", "codes", "arrays"
CLEARED = "cleared"  # beside them: results that --clear has put aside
BEST = "best.ckpt"


def read_search(folder: Path) -> SearchRecord | None:
    """The record of the search whose grid has this folder; None where there is none, or it is
    damaged."""
    record = from_stored(SearchRecord, read_json(folder / "search.json"))
    if record is None or not isinstance(record.trials, list) or not isinstance(record.reused, list):
        return None
    fits = all(
        isinstance(trial, dict) and {"sig", "values", "told"} == set(trial)
        for trial in record.trials
    )
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
    # and what a kill has left of earlier ones
    for left in folder.parent.glob(f".{folder.name}.*.removed"):
        shutil.rmtree(left, ignore_errors=True)


@dataclass(frozen=True)
class Experiment(Ledger):
    """One experiment's folder.

    Reading never fails on a missing or damaged file: it says None, or empty. A file that this user
    may not read is a UserError, from whatever reads.
    """

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
        """Take the folder away for a start from scratch; what was put aside before stays what can
        be had back.

        Unless the run since then has results of its own: those are what is put aside now. One
            rename does it, so that
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
        return from_stored(Birth, read_json(self.folder / "birth.json"))

    def write_birth(self, birth: Birth) -> bool:
        """Write the birth, once. False where another process was first."""
        # for stock Dora, and for `-f`; first: a birth is all there
        write_once(self.folder / ".argv.json", birth.argv)
        return write_once(self.folder / "birth.json", asdict(birth))

    def argv(self) -> list[str] | None:
        """The overrides that made it; experiments of stock Dora have these and no birth."""
        argv = read_json(self.folder / ".argv.json")
        return argv if isinstance(argv, list) else None

    def state(self) -> RunState:
        content = read_json(self.folder / "state.json")
        run = from_stored(RunState, content)
        if run is None or run.state not in {state.value for state in State}:
            return RunState()
        run.state = State(run.state)
        return run

    def write_state(self, run: RunState) -> None:
        write_json(self.folder / "state.json", asdict(run))

    def codes(self) -> list[Start]:
        """The codes that it ran, in order, each with where it began; one that it came back to is
        there again.

        One of which nothing is left, as the next attempt went on from before it, does not count.
        Before the first attempt: the code that is to run.
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
        return (
            history
            if isinstance(history, list) and all(isinstance(entry, dict) for entry in history)
            else []
        )

    def write_history(self, history: list[dict]) -> None:
        write_json(self.folder / "history.json", history)

    def inputs(self) -> Any:
        """What `dora_train.data.inputs.Inputs` holds, as plain Python; None where none was
        stored."""
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
        """`{"best": {"epoch": 16, "loss": ..., "acc": ...}, "test": {...}, "epochs": 20, "reason":
        ...}`."""
        result = read_json(self.folder / "result.json")
        return result if isinstance(result, dict) else None

    def write_result(self, result: dict) -> None:
        write_json(self.folder / "result.json", result)

    def confusion(self) -> list[list[int]] | None:
        """[true class][given class], of the test set; the classes' names are in `inputs()`."""
        matrix = read_json(self.folder / "confusion.json")
        square = isinstance(matrix, list) and all(
            isinstance(row, list) and len(row) == len(matrix) for row in matrix
        )
        return (
            matrix
            if square and all(type(count) is int for row in matrix for count in row)
            else None
        )

    def write_confusion(self, matrix: list[list[int]] | None) -> None:
        write_json(self.folder / "confusion.json", matrix)
