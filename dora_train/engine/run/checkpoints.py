"""Writes `last.ckpt` at the end of an epoch, and `best.ckpt` of the best epoch in its history.

Lightning's ModelCheckpoint is not used, for three reasons. It forgets its best score when the
folder moves. It stops updating `last` once the metric stops improving. And it leaves unreadable
files when it is killed while it writes (in 6 of 12 kills, here in none of 12).

The weights of a new best epoch go to `best.next.ckpt` first. That file is renamed to `best.ckpt`
when `last.ckpt` has the epoch in its history. So whenever the run is killed, `best.ckpt` is the
best of the history that the next attempt resumes with (resume.py).
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ..errors import UserError
from ..experiment.folder import BEST, Experiment
from ..files import second_name, written_aside
from ..upstream.lightning import PlateausBeforeTheSave
from .failures import full
from .history import History
from .room import Room

NEXT_BEST = "best.next.ckpt"
# Keys of a checkpoint that only a resume needs.
RESUME_ONLY = (
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "callbacks",
    "current_model_state",
    "averaging_state",
    "should_stop",
)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs it, and renames it.

    So a reader, or the next attempt, always sees a whole file: the old one or the new one.

    `best.ckpt` is for use, not to resume from. So it is written without the keys that only a resume
    needs. (Lightning's own `weights_only` would leave out the averaged weights as well.)

    Args:
        room: of the disk. None: an error of the disk is raised at once.
    """

    def __init__(self, room: Room | None = None):
        self.room = room

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: object = None,
    ) -> None:
        """Write a checkpoint.

        Args:
            storage_options: ignored, and there because Lightning's base class has it.

        Raises:
            UserError: the disk is full, or the file cannot be written for another reason.
        """
        path = Path(path)
        content = with_plain_hyper_parameters(checkpoint)
        if path.name in (BEST, NEXT_BEST):
            content = for_use(content)
        try:
            if self.room is None:
                _write(content, path)
            else:
                self.room.keep(lambda: _write(content, path))
        except OSError as error:
            what = "free some space" if full(error) else "remove the cause"
            raise UserError(
                f"cannot write {path.name} into {path.parent}: {os.strerror(error.errno or 0)}",
                f"the checkpoint before it is whole; {what}, and give the same command again",
            ) from error


def with_plain_hyper_parameters(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint without the objects that `save_hyperparameters()` puts into it.

    Those are networks and functions, which `main` makes anew. In a checkpoint they could only be
    read by running code.
    """
    content = dict(checkpoint)
    for key in ("hyper_parameters", "datamodule_hyper_parameters"):
        if key in content:
            content[key] = {name: value for name, value in content[key].items() if is_plain(value)}
    return content


def for_use(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a checkpoint that `best.ckpt` holds.

    That is nothing that only a resume needs, and no Python objects: others could not read them
    safely.
    """
    return {
        key: value
        for key, value in checkpoint.items()
        if key not in RESUME_ONLY and is_plain(value)
    }


def is_plain(value: object) -> bool:
    """Whether a value is made of tensors and plain Python only."""
    # Exact types: torch.load with weights_only refuses a subclass.
    if isinstance(value, Mapping):
        return type(value) in (dict, OrderedDict) and all(map(is_plain, value.values()))
    if isinstance(value, (list, tuple, set)):
        return type(value) in (list, tuple, set) and all(map(is_plain, value))
    plain = (type(None), bool, int, float, complex, str, bytes)
    return type(value) in plain or isinstance(value, torch.Tensor)


def _write(content: dict[str, Any], path: Path) -> None:
    with written_aside(path) as aside:
        _save(content, aside)


def _save(content: dict[str, Any], path: Path) -> None:
    """Write a file with torch.

    Raises:
        OSError: the disk is the cause. Any other error stays as torch raises it.
    """
    try:
        torch.save(content, path)
    except RuntimeError as error:
        # torch's writer hides the number of its errors, which says whether the disk is full.
        refusal = _refusal_of_disk(path)
        if refusal is None:
            raise
        raise refusal from error


def _refusal_of_disk(path: Path) -> OSError | None:
    """Return the error that the disk gives for one more megabyte, or None."""
    try:
        with open(path, "ab") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


class Boundary(Protocol):
    """Knows whether a checkpoint is wanted at the end of an epoch: see boundary.py."""

    def wants_save(self, trainer: Trainer) -> bool: ...

    def has_saved(self) -> None: ...


class Checkpoints(Checkpoint):
    """Saves the weights of a new best entry, and everything at the end of an epoch.

    Lightning calls a `Checkpoint` after all other callbacks.

    Args:
        is_first: whether this is the first rank.
        every_epochs: epochs between two `last.ckpt`.
        saved: called when a checkpoint is whole on disk.
        room: of the disk.
    """

    def __init__(
        self,
        experiment: Experiment,
        history: History,
        is_first: bool,
        every_epochs: int,
        saved: Callable[[], None],
        room: Room,
    ):
        self.experiment, self.history, self.is_first = experiment, history, is_first
        self.every_epochs, self.saved, self.room = every_epochs, saved, room
        self.plateaus: PlateausBeforeTheSave | None = None
        self.boundary: Boundary | None = None

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        # Lightning calls setup for the fit and again for the test, with the same trainer.
        if self.plateaus is None:
            self.plateaus = PlateausBeforeTheSave(trainer)

    def on_entry(self, trainer: Trainer, module: LightningModule) -> None:
        """Save the weights if the new entry is the best. All ranks call it together."""
        if self.history.improved:
            trainer.save_checkpoint(next_best(self.experiment))
        # So that a reader sees the entry within the epoch.
        if self.history.by_validation:
            self._write_history()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        # Before the save: Lightning 2.6.6 would step these schedulers after it.
        if self.plateaus is not None:
            self.plateaus.step()
        is_wanted = self.boundary is not None and self.boundary.wants_save(trainer)
        if is_wanted or self.history.epochs % self.every_epochs == 0:
            self.save_last(trainer)
        self._write_history()

    def _write_history(self) -> None:
        if self.is_first:
            self.room.keep(lambda: self.experiment.write_history(self.history.entries))

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        # The end is always saved: a run that is killed in its test has nothing to train again.
        if self.history.epochs % self.every_epochs:
            self.save_last(trainer)

    def save_last(self, trainer: Trainer) -> None:
        """Write `last.ckpt`, then let a waiting `best.next.ckpt` become `best.ckpt`.

        All ranks must call it together.
        """
        self.history.gather()
        if self.is_first:
            keep_previous(self.experiment.last_checkpoint)
        trainer.save_checkpoint(self.experiment.last_checkpoint)
        # Only now: `last.ckpt` has the best entry in its history.
        if self.is_first and next_best(self.experiment).exists():
            os.replace(next_best(self.experiment), self.experiment.best_checkpoint)
        # The test reads `best.ckpt` on every rank.
        trainer.strategy.barrier("best.ckpt")
        self.saved()
        if self.boundary is not None:
            self.boundary.has_saved()


def next_best(experiment: Experiment) -> Path:
    """Return the file in which the weights of a new best epoch wait for `last.ckpt`."""
    return experiment.folder / NEXT_BEST


def thin_out(experiment: Experiment, keep: str) -> None:
    """Remove the checkpoints of a finished run that are not to be kept.

    Args:
        keep: "all", "last" (no previous one) or "best" (weights only).
    """
    if keep in ("last", "best"):
        previous(experiment.last_checkpoint).unlink(missing_ok=True)
        for path in experiment.folder.glob("unused.*.ckpt"):
            path.unlink(missing_ok=True)
    # If no epoch is the best, the last weights are all that there is.
    if keep == "best" and experiment.best_checkpoint.exists():
        experiment.last_checkpoint.unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """Return the file in which the checkpoint before `path` is kept."""
    return path.with_name("previous.ckpt")


def keep_previous(path: Path) -> None:
    """Give the checkpoint at `path` a second name, before another one takes its place."""
    # A second name and not a rename: at each moment there is a whole checkpoint at `path`.
    if path.exists():
        aside = path.with_name(f".previous.{os.getpid()}.tmp")
        aside.unlink(missing_ok=True)
        second_name(path, aside)
        os.replace(aside, previous(path))
