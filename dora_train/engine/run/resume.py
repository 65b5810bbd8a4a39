"""Where a run resumes, and that `best.ckpt` is then the best of the history that it resumes with.

A checkpoint can be used if it is whole, and if the weights of its history's best epoch can be had:
from `best.ckpt`, or from another checkpoint that was saved at that epoch's end. Weights that are
lost can only be trained again, from a checkpoint before them or from the start. Other weights are
never tested in their place.
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
    """Where a run resumes. Finding it changes nothing on disk; `take_up` does."""

    checkpoint: Path | None = None  # None: the run starts anew
    content: dict[str, Any] = field(default_factory=dict)  # of the checkpoint
    best: Path | None = None  # the file with the weights of the best epoch; None: there is none
    warning: str = ""  # what is lost, and what is done about it

    @property
    def epoch(self) -> int:
        """The first epoch that is trained, from 1; the checkpoint may hold a part of it."""
        if not self.content:
            return 1
        return self.content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] + 1

    @property
    def holds_objects(self) -> bool:
        """Whether its checkpoint holds more than tensors and plain Python."""
        return self.checkpoint is not None and holds_objects(self.checkpoint)

    @property
    def history(self) -> dict[str, Any]:
        """What `History` saved; empty at the start."""
        return self.content["callbacks"]["History"] if self.content else {}

    @property
    def rule(self) -> int:
        """By which rule the run counts: see `History`."""
        return self.history.get("rule", 1) if self.content else RULE

    @property
    def best_entry(self) -> dict[str, Any]:
        """The best entry of the history, as `result.json` has it; empty: it has none."""
        return self.history.get("best", {})

    @property
    def reached(self) -> int:
        """How far the history goes: an epoch from 1; a step if its entries have steps."""
        if "step" in self.best_entry:
            return self.content["global_step"]
        return len(self.history["history"])


def find_resume(experiment: Experiment) -> Resume:
    """From `last.ckpt` if it can be used, else from the one before it, else from the start."""
    last, before = experiment.last_checkpoint, previous(experiment.last_checkpoint)
    if not last.exists() and not before.exists():
        return Resume()
    newest = _usable(experiment, last)
    if isinstance(newest, Resume):
        return newest
    older = _usable(experiment, before)
    if isinstance(older, Resume):
        more = f"; {older.warning}" if older.warning else ""
        return replace(older, warning=f"{newest}: going on from the one before it{more}")
    return Resume(warning=f"{newest}: starting anew")


def _usable(experiment: Experiment, path: Path) -> Resume | str:
    """The resume from this checkpoint, or why there can be none."""
    content = read_checkpoint(path, own=True)
    if content is None:
        return f"{path.name} {_how_it_is(path, {})}"
    best, waiting = experiment.best_checkpoint, next_best(experiment)
    resume = Resume(path, content)
    entry = resume.best_entry
    place = place_of(entry)
    # The one that waits first: meanwhile another rank may put it in the place of best.ckpt.
    files = (waiting, best, experiment.last_checkpoint, previous(experiment.last_checkpoint))
    holder = next(
        (file for file in files if entry and held_like(file, entry, own=True) == place), None
    )
    if not entry or holder in (best, waiting):
        return replace(resume, best=holder)
    if holder is not None:
        warning = f"best.ckpt {_how_it_is(best, entry)}: written again from {holder.name}"
        return replace(resume, best=holder, warning=warning)
    if (held_like(best, entry, own=True) or 0) > resume.reached:  # the same steps lead there again
        how = _how_it_is(best, entry)
        return replace(resume, warning=f"best.ckpt {how}, which is trained again")
    lost = f"the weights of {in_words(entry)}, the best in {path.name}, are lost"
    return f"best.ckpt {_how_it_is(best, entry)}, so {lost}"


def _how_it_is(path: Path, best: Mapping[str, Any]) -> str:
    """In words: missing, damaged, or of which epoch or step."""
    if not path.exists():
        return "is missing"
    held = held_like(path, best, own=True)
    return f"is of {in_words(best, held)}" if held is not None else "is damaged"


def take_up(experiment: Experiment, resume: Resume) -> None:
    """Before the first save, make the files those that `resume` names.

    A checkpoint that is not used gets another name: it must not take the place of the whole one
    before it. What earlier attempts were killed in the middle of writing is removed: on a
    preemptible cluster it would fill the disk.
    """
    _take_up_best(experiment, resume)
    last = experiment.last_checkpoint
    for path in (last, previous(last)):
        if resume.checkpoint not in (last, path):
            _put_aside(path)
    next_best(experiment).unlink(missing_ok=True)  # of an epoch that is trained again
    entries = resume.history.get("history", [])
    if experiment.history() != entries:  # the file may be ahead
        experiment.write_history(entries)
    for name in HALF_WRITTEN:
        for path in experiment.folder.glob(name):
            path.unlink(missing_ok=True)


def _put_aside(path: Path) -> None:
    """Keep a file under a name that nothing reads."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, path.with_name(f"unused.{path.name}"))


def _take_up_best(experiment: Experiment, resume: Resume) -> None:
    best = experiment.best_checkpoint
    if resume.best == next_best(experiment):
        os.replace(resume.best, best)
    elif resume.best not in (None, best):
        content = read_checkpoint(resume.best, own=True)
        assert content is not None
        epoch = resume.best_entry["epoch"]
        AtomicCheckpointIO().save_checkpoint({**content, "epoch": epoch - 1}, best)
    elif not resume.best_entry:
        best.unlink(missing_ok=True)  # of an earlier attempt, of which nothing is left


def weights_to_test(experiment: Experiment, best: Mapping[str, Any]) -> Path:
    """The file with the weights of the best epoch; those of the last epoch if no epoch is the best.

    Args:
        best: as `result.json` has it.

    Raises:
        UserError: they are lost.
    """
    if not best:
        return experiment.last_checkpoint
    path = experiment.best_checkpoint
    if held_like(path, best, own=True) == place_of(best):
        return path
    how = _how_it_is(path, best)
    _put_aside(path)  # the next attempt must not wait for its epoch to come again
    raise UserError(
        f"best.ckpt {how}: the weights of {in_words(best)}, the best, are lost.",
        "nothing was tested; the same command trains them again",
    )
