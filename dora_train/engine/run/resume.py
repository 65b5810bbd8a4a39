"""Finds where a run resumes, and makes `best.ckpt` the best of the history that it resumes with.

A checkpoint can be used if two conditions hold. It is whole. And the weights of its history's best
epoch can be had: from `best.ckpt`, or from another checkpoint that was saved at that epoch's end.
Weights that are lost can only be trained again, from a checkpoint before them or from the start.
Other weights are never tested in their place.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..experiment.checkpoint import held_like, holds_objects, in_words, place_of, read_checkpoint
from ..experiment.folder import Experiment
from .checkpoints import AtomicCheckpointIO, next_best, previous
from .history import RULE

# Files that an attempt leaves if it is killed while it writes.
HALF_WRITTEN = (
    ".last.ckpt.*.tmp",
    ".best.ckpt.*.tmp",
    ".best.next.ckpt.*.tmp",
    ".previous.*.tmp",
    ".state.json.*.tmp",
    ".history.json.*.tmp",
)


@dataclass(frozen=True)
class Resume:
    """Where a run resumes. Finding it changes nothing on disk, only `take_up` does.

    Attributes:
        checkpoint: the file, or None if the run starts anew.
        content: of the checkpoint.
        best: the file with the weights of the best epoch, or None if there is none.
        warning: what is lost, and what is done about it.
    """

    checkpoint: Path | None = None
    content: dict[str, Any] = field(default_factory=dict)
    best: Path | None = None
    warning: str = ""

    @property
    def epoch(self) -> int:
        """The first epoch that is trained, from 1. The checkpoint may hold a part of it."""
        if not self.content:
            return 1
        return self.content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] + 1

    @property
    def steps(self) -> int:
        """The optimizer steps before it."""
        return self.content.get("global_step", 0)

    @property
    def first_void_step(self) -> int:
        """The first optimizer step whose log entry belongs to nothing that the checkpoint holds.

        An epoch is logged at its last step. A checkpoint of the epoch's end has that entry. One
        within its validation has the same step but not the entry: an attempt that was killed
        between the two may have logged it.
        """
        if not self.content:
            return 1
        epoch = self.content["loops"]["fit_loop"]["epoch_progress"]["current"]
        is_over = epoch["ready"] == epoch["processed"]
        return self.steps + 1 if is_over else self.steps

    @property
    def holds_objects(self) -> bool:
        """Whether its checkpoint holds more than tensors and plain Python."""
        return self.checkpoint is not None and holds_objects(self.checkpoint)

    @property
    def history(self) -> dict[str, Any]:
        """The state of the callback `History`, empty at the start."""
        if not self.content:
            return {}
        return self.content["callbacks"]["History"]

    @property
    def rule(self) -> int:
        """The rule by which the run counts: see `History`."""
        if not self.content:
            return RULE
        return self.history.get("rule", 1)

    @property
    def best_entry(self) -> dict[str, Any]:
        """The best entry of the history, as `result.json` has it. Empty if it has none."""
        return self.history.get("best", {})

    @property
    def reached(self) -> int:
        """How far the history goes: an epoch from 1, or a step if its entries have steps."""
        if "step" in self.best_entry:
            return self.content["global_step"]
        return len(self.history["history"])


def find_resume(experiment: Experiment) -> Resume:
    """Return the resume from `last.ckpt`, or the checkpoint before it, or the start.

    The first of them that can be used is taken.
    """
    last, before = experiment.last_checkpoint, previous(experiment.last_checkpoint)
    if not last.exists() and not before.exists():
        return Resume()
    newest = _usable(experiment, last)
    if isinstance(newest, Resume):
        return newest
    why_not = newest
    older = _usable(experiment, before)
    if isinstance(older, Resume):
        more = f"; {older.warning}" if older.warning else ""
        return replace(older, warning=f"{why_not}: going on from the one before it{more}")
    return Resume(warning=f"{why_not}: starting anew")


def _usable(experiment: Experiment, path: Path) -> Resume | str:
    """Return the resume from this checkpoint, or the reason why it cannot be used."""
    # `own`: this experiment wrote it, so it may hold the Python objects of its module.
    content = read_checkpoint(path, own=True)
    if content is None:
        return f"{path.name} {_condition(path, {})}"
    resume = Resume(path, content)
    entry = resume.best_entry
    if not entry:
        return resume
    best = experiment.best_checkpoint
    holder = _file_with_best(experiment, entry)
    if holder in (best, next_best(experiment)):
        return replace(resume, best=holder)
    condition = f"best.ckpt {_condition(best, entry)}"
    if holder is not None:
        return replace(
            resume, best=holder, warning=f"{condition}: written again from {holder.name}"
        )
    # `best.ckpt` is of a later entry. The same steps lead to it again.
    if (held_like(best, entry, own=True) or 0) > resume.reached:
        return replace(resume, warning=f"{condition}, which is trained again")
    return f"{condition}, so the weights of {in_words(entry)}, the best in {path.name}, are lost"


def _file_with_best(experiment: Experiment, entry: Mapping[str, Any]) -> Path | None:
    """Return a file that holds the weights of the best entry, if there is one."""
    last = experiment.last_checkpoint
    # The one that waits comes first: meanwhile another rank may give it the name best.ckpt.
    files = (next_best(experiment), experiment.best_checkpoint, last, previous(last))
    for file in files:
        if held_like(file, entry, own=True) == place_of(entry):
            return file
    return None


def _condition(path: Path, best: Mapping[str, Any]) -> str:
    """Return in words that a file is missing or damaged, or of which epoch or step it is."""
    if not path.exists():
        return "is missing"
    held = held_like(path, best, own=True)
    if held is None:
        return "is damaged"
    return f"is of {in_words(best, held)}"


def take_up(experiment: Experiment, resume: Resume) -> None:
    """Make the files agree with `resume`, before the first save.

    Files that an earlier attempt was killed in the middle of writing are removed. On a preemptible
    cluster they would fill the disk.
    """
    _take_up_best(experiment, resume)
    last = experiment.last_checkpoint
    # A checkpoint that is not used gets another name. At the next save it would take the place of
    # the whole one before it.
    for path in (last, previous(last)):
        if resume.checkpoint not in (last, path):
            _put_aside(path)
    # It is of an epoch that is trained again.
    next_best(experiment).unlink(missing_ok=True)
    # The file may have entries that are in no checkpoint.
    entries = resume.history.get("history", [])
    if experiment.history() != entries:
        experiment.write_history(entries)
    for name in HALF_WRITTEN:
        for path in experiment.folder.glob(name):
            path.unlink(missing_ok=True)


def _put_aside(path: Path) -> None:
    """Keep a file under a name that nothing reads."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, path.with_name(f"unused.{path.name}"))


def _take_up_best(experiment: Experiment, resume: Resume) -> None:
    """Make `best.ckpt` the weights of the best entry that `resume` knows."""
    best = experiment.best_checkpoint
    if resume.best == next_best(experiment):
        os.replace(resume.best, best)
    elif resume.best not in (None, best):
        content = read_checkpoint(resume.best, own=True)
        assert content is not None  # `_file_with_best` has read it
        # Lightning counts epochs from 0.
        epoch = resume.best_entry["epoch"]
        AtomicCheckpointIO().save_checkpoint({**content, "epoch": epoch - 1}, best)
    elif not resume.best_entry:
        # It is of an earlier attempt, of which nothing else is left.
        best.unlink(missing_ok=True)


def weights_to_test(experiment: Experiment, best: Mapping[str, Any]) -> Path:
    """Return the file with the weights of the best epoch, or of the last epoch if none is the best.

    Args:
        best: as `result.json` has it.

    Raises:
        UserError: the weights of the best epoch are lost.
    """
    if not best:
        return experiment.last_checkpoint
    path = experiment.best_checkpoint
    if held_like(path, best, own=True) == place_of(best):
        return path
    condition = _condition(path, best)
    # If it stayed, the next attempt would wait for its epoch to come again.
    _put_aside(path)
    raise UserError(
        f"best.ckpt {condition}: the weights of {in_words(best)}, the best, are lost.",
        "nothing was tested; the same command trains them again",
    )
