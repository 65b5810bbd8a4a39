"""`last.ckpt` at each epoch's end, `best.ckpt` when an epoch is the best: whole files, with the history inside.

Not Lightning's ModelCheckpoint: that forgets its best score when the folder moves, stops updating `last` once the
metric stops improving, and leaves unreadable files when killed while it writes (6 of 12 kills; here none of 12).
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ..errors import UserError
from ..store import BEST, Experiment, is_whole, second_name, written_aside
from .history import History

RESUME_ONLY = ("optimizer_states", "lr_schedulers", "loops", "callbacks", "current_model_state", "averaging_state")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside, syncs and renames: a reader, or the next attempt, sees the old file or the new one, whole.

    `best.ckpt` is for use, not to go on from: it is written without what only a resume needs. (Lightning's own
    `weights_only` would leave out the averaged weights as well.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if Path(path).name == BEST:
            checkpoint = {key: value for key, value in checkpoint.items() if key not in RESUME_ONLY}
        try:
            with written_aside(Path(path)) as aside:
                torch.save(checkpoint, aside)
        except (OSError, RuntimeError) as error:  # torch's writer hides the number of the error
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no room for it"
            raise UserError(f"cannot write {Path(path).name} into {Path(path).parent}: {reason}",
                            "the checkpoint before it is whole; make room, and give the same command again") from error


class Checkpoints(Checkpoint):
    """Saves after the history has its entry, and writes `history.json` from what was saved.

    Lightning calls a `Checkpoint` after all other callbacks.

    Args:
        every_epochs: epochs between two `last.ckpt`.
        saved: told of each checkpoint that is whole on disk.
    """

    def __init__(self, experiment: Experiment, history: History, is_first: bool, every_epochs: int,
                 saved: Callable[[], None]):
        self.experiment, self.history, self.is_first = experiment, history, is_first
        self.every_epochs, self.saved = every_epochs, saved

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.history.improved:
            trainer.save_checkpoint(self.experiment.best_checkpoint)
        if len(self.history.entries) % self.every_epochs == 0:
            self.save_last(trainer)
        if self.is_first:
            self.experiment.write_history(self.history.entries)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """The end is saved whatever the interval; a run killed in its test has nothing to train again."""
        if len(self.history.entries) % self.every_epochs:
            self.save_last(trainer)

    def save_last(self, trainer: Trainer) -> None:
        """All ranks must call it together."""
        self.history.gather()
        if self.is_first:
            keep_previous(self.experiment.last_checkpoint)
        trainer.save_checkpoint(self.experiment.last_checkpoint)
        self.saved()


def thin_out(experiment: Experiment, keep: str) -> None:
    """Remove what a finished run's result does not need. `keep`: all, last (no previous one) or best (weights only)."""
    if keep in ("last", "best"):
        previous(experiment.last_checkpoint).unlink(missing_ok=True)
    if keep == "best" and experiment.best_checkpoint.exists():
        experiment.last_checkpoint.unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """Where the checkpoint before `path` is kept."""
    return path.with_name("previous.ckpt")


def keep_previous(path: Path) -> None:
    """Give the checkpoint at `path` a second name, before another takes its place."""
    if path.exists():
        aside = path.with_name(f".previous.{os.getpid()}.tmp")
        aside.unlink(missing_ok=True)
        second_name(path, aside)
        os.replace(aside, previous(path))


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds, on the CPU; None where it is missing, or not whole."""
    if not is_whole(path):
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whole, and yet nothing that torch has written
        return None
    return content if isinstance(content, dict) and "loops" in content and "state_dict" in content else None


def first_epoch(checkpoint: Mapping[str, Any]) -> int:
    """The first that is trained from here on, from 1; the checkpoint may hold a part of it."""
    return checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] + 1 if checkpoint else 1


def newest_usable(experiment: Experiment) -> tuple[Path | None, dict[str, Any], str]:
    """The checkpoint to go on from, what it holds, and a warning where the last one is damaged. Changes nothing."""
    last, before = experiment.last_checkpoint, previous(experiment.last_checkpoint)
    content = read_checkpoint(last)
    if content is not None:
        return last, content, ""
    content = read_checkpoint(before)
    if content is not None:
        state = "damaged" if last.exists() else "missing"
        return before, content, f"{last.name} is {state}: going on from the one before it"
    if last.exists() or before.exists():
        return None, {}, f"{last.name} is damaged, and there is none before it: starting anew"
    return None, {}, ""


def put_aside(experiment: Experiment, used: Path | None) -> None:
    """Before the first save: a damaged `last.ckpt` must not take the place of the whole one before it.

    It is kept under another name. What earlier attempts were killed in the middle of writing is nobody's, and removed:
    on a preemptible cluster it would fill the disk.
    """
    last = experiment.last_checkpoint
    if used != last and last.exists():
        os.replace(last, last.with_name("damaged.ckpt"))
    if used is None and previous(last).exists():
        os.replace(previous(last), last.with_name("damaged.previous.ckpt"))
    for name in (".last.ckpt.*.tmp", ".best.ckpt.*.tmp", ".previous.*.tmp", ".state.json.*.tmp", ".history.json.*.tmp"):
        for path in experiment.folder.glob(name):
            path.unlink(missing_ok=True)
