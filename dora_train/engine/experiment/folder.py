"""The folder of an experiment: the names and formats of its files, and how they are read and
written.

A run and a grid never call each other. Each reads and writes these files, so that either may be
killed, or run on another machine. It imports nothing slow: no torch, no Dora, no Hydra.

    outputs/xps/SIG/
      .argv.json      the overrides, as stock Dora stores them
      birth.json      written once: argv, delta, the values that count, rule, code, versions, threads
      state.json      the run's last report: its state, cause, epoch, step, speed, best metrics
      attempts/N.json the process that started it the Nth time: the claim (see claims.py)
      attempts/N.start.json  the first epoch that this attempt trained, its code and versions
      code/HASH.tar.gz  the files that it ran, of that hash. Earlier versions kept code/HASH.patch:
                      the difference between the commit and these files
      jobs/N.json     its Nth submission: token, executor, resources, excluded values. It is made
                      exclusively, before the scheduler is asked, and never changed. The process
                      that makes it also submits
      jobs/N.id.json  the job id that the scheduler gave, or why it gave none
      jobs/N.end.json how it ended as a member of a packed job (see jobs/pack.py)
      jobs/N.cancel.json, attempts/N.cancel.json   who asked for its end, and when
      inputs.json     the classes, and how an image becomes an input, for predict.py. Written at each
                      start, from the data that the run reads
      data.json.gz    the files of its data at its first start: {file: [part, size, checksum]}
                      (see contents.py)
      history.json    one entry per epoch, without any time of the clock. If it validates within
                      epochs, one per validation, with its step
      result.json     best and test metrics, written at the end
      confusion.json  how often a class of the test set (row) was taken for which (column). Written
                      just before result.json. null: not known
      last.ckpt       the training resumes here. It holds the history, too
      previous.ckpt   the checkpoint before it
      best.ckpt       the weights of the best epoch in the history of last.ckpt. A new best epoch
                      waits in best.next.ckpt until last.ckpt has its entry
      train.log metrics.csv events.out.tfevents.*
    outputs/finished.index  copies of the small files of finished experiments (finished.py)
    outputs/cleared/SIG/    the results of before a `--clear`, until the new run has a checkpoint
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
STATES = [state.value for state in State]


def read_search(folder: Path) -> SearchRecord | None:
    """The record of the search whose grid has this folder. None if there is none, or it is
    damaged."""
    record = from_stored(SearchRecord, read_json(folder / "search.json"))
    if record is None or not isinstance(record.trials, list) or not isinstance(record.reused, list):
        return None
    for trial in record.trials:
        if not isinstance(trial, dict) or set(trial) != {"sig", "values", "told"}:
            return None
    return record


def write_search(folder: Path, record: SearchRecord) -> None:
    """Write the record, if it has changed."""
    if read_search(folder) != record:
        write_json(folder / "search.json", asdict(record))


def is_signature(name: str) -> bool:
    """Whether `name` can be a signature: eight hexadecimal digits."""
    return len(name) == 8 and is_hexadecimal(name)


def is_hexadecimal(text: str) -> bool:
    """Whether `text` has only hexadecimal digits, in lower case."""
    return set(text) <= set("0123456789abcdef")


def cleared_folder(xps: Path) -> Path:
    """The folder where `--clear` puts results aside.

    It is on the disk of the experiments, so that they can be renamed into it. It is not among them:
    a program that lists experiments, such as TensorBoard, must not see one twice.
    """
    return xps.resolve().with_name(CLEARED)


def _discard(folder: Path) -> None:
    """Remove a folder and all in it. It is renamed first, so that no reader sees half of it."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.{time.time_ns()}.removed")
    with suppress(FileNotFoundError):
        folder.rename(aside)
    # A kill may have left earlier ones.
    for left in folder.parent.glob(f".{folder.name}.*.removed"):
        shutil.rmtree(left, ignore_errors=True)


def _are_all(kind: type, values: list) -> bool:
    return all(isinstance(value, kind) for value in values)


@dataclass(frozen=True)
class Experiment(Ledger):
    """One experiment's folder.

    A missing or damaged file is read as None, or as an empty value. A file that this user may not
    read raises UserError in all methods that read.
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
        """The log of a rank other than 0, by Dora's name for it."""
        return self.folder / f"worker_{rank}.log"

    def exists(self) -> bool:
        """Whether the experiment was made here.

        Raises:
            UserError: this user may not read the folder.
        """
        return exists(self.folder / "birth.json")

    @property
    def cleared(self) -> Path:
        """The folder of its results from before `--clear`, until the new run has a checkpoint."""
        return cleared_folder(self.folder.parent) / self.sig

    def put_aside(self) -> None:
        """Take the folder away for a start from scratch.

        Results that were put aside before stay there, unless the run since then has results of its
        own. One rename does it, so that after a kill the results are in either place, and whole.
        """
        if self.has_results():
            _discard(self.cleared)
        if self.cleared.exists():
            _discard(self.folder)
        elif self.folder.exists():
            self.cleared.parent.mkdir(parents=True, exist_ok=True)
            self.folder.rename(self.cleared)

    def put_back(self) -> None:
        """Undo `put_aside`, if the new run is refused."""
        if self.cleared.exists():
            _discard(self.folder)
            self.cleared.rename(self.folder)

    def forget_cleared(self) -> None:
        """Remove the results that were put aside, for good. Now the new run has a checkpoint."""
        if self.cleared.exists():
            _discard(self.cleared)

    def has_results(self) -> bool:
        """Whether a run has left a checkpoint or a result here."""
        found = (self.last_checkpoint, self.best_checkpoint, self.folder / "result.json")
        return any(path.exists() for path in found)

    def birth(self) -> Birth | None:
        return from_stored(Birth, self.read("birth.json"))

    def write_birth(self, birth: Birth) -> bool:
        """Write the birth, once. False if another process was first."""
        # First the file for stock Dora and for `-f`: where a birth is, all is.
        write_once(self.folder / ".argv.json", birth.argv)
        return write_once(self.folder / "birth.json", asdict(birth))

    def argv(self) -> list[str] | None:
        """The overrides that made it. Experiments of stock Dora have these and no birth."""
        return self.read_as(".argv.json", list)

    def state(self) -> RunState:
        """The run's last report. A new one if there is none."""
        content = self.read("state.json")
        run = from_stored(RunState, content)
        if run is None or run.state not in STATES:
            return RunState()
        run.state = State(run.state)
        return run

    def write_state(self, run: RunState) -> None:
        write_json(self.folder / "state.json", asdict(run))

    def codes(self) -> list[Start]:
        """The versions of the code that it ran, in order, each with its first epoch.

        A version is listed again if the run returned to it. It is left out if a later attempt redid
        all of its epochs. Before the first attempt, it is the code that is to run.
        """
        starts = self.starts()
        if not starts:
            for record in (self.job(), self.birth()):
                if record is not None and record.code:
                    return [Start(1, record.code)]
            return []
        # If it began in the middle, its first attempt was of a version without such files.
        if starts[0].step and (birth := self.birth()):
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
        """The patch from a commit to the files of the hash `name`, which earlier versions kept."""
        return self.folder / "code" / f"{name}.patch"

    def history(self) -> list[dict]:
        """One entry per epoch, e.g. `{"train": {"loss": 0.2, "acc": 0.9}, "valid": {...}}`."""
        history = self.read_as("history.json", list) or []
        return history if _are_all(dict, history) else []

    def write_history(self, history: list[dict]) -> None:
        write_json(self.folder / "history.json", history)

    def inputs(self) -> Any:
        """`dora_train.data.inputs.Inputs` as plain Python. None if none was stored."""
        return self.read("inputs.json")

    def write_inputs(self, inputs: dict[str, Any]) -> None:
        write_json(self.folder / "inputs.json", inputs)

    def contents(self) -> dict[str, list[Any]] | None:
        """The files of its data when it began (contents.py). None if they were not stored."""
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
        return self.read_as("result.json", dict)

    def write_result(self, result: dict) -> None:
        write_json(self.folder / "result.json", result)

    def confusion(self) -> list[list[int]] | None:
        """Counts by [true class][given class], of the test set.

        The names of the classes are in `inputs()`.
        """
        matrix = self.read_as("confusion.json", list)
        if matrix is None or not _are_all(list, matrix):
            return None
        for row in matrix:
            if len(row) != len(matrix) or set(map(type, row)) - {int}:
                return None
        return matrix

    def write_confusion(self, matrix: list[list[int]] | None) -> None:
        write_json(self.folder / "confusion.json", matrix)
