"""Writes `last.ckpt` at an epoch's end, and `best.ckpt` of the best epoch that `last.ckpt` knows
of.

Not Lightning's ModelCheckpoint: that forgets its best score when the folder moves, stops updating
`last` once the metric stops improving, and leaves unreadable files when killed while it writes (6
of 12 kills; here none of 12).

A new best epoch goes to `best.next.ckpt` first. It takes the place of `best.ckpt` when `last.ckpt`
has that epoch in its history. So whenever the run is killed, `best.ckpt` is the best of the history
that the next attempt resumes with (resume.py).
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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

NEXT_BEST = "best.next.ckpt"
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
    """Writes beside, syncs and renames: a reader, or the next attempt, sees the old file or the new
    one, whole.

    `best.ckpt` is for use, not to resume from: it is written without what only a resume needs.
    (Lightning's own `weights_only` would leave out the averaged weights as well.)
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        path = Path(path)
        content = with_plain_hyper_parameters(checkpoint)
        if path.name in (BEST, NEXT_BEST):
            content = for_use(content)
        try:
            with written_aside(path) as aside:
                _save(content, aside)
        except OSError as error:
            what = "make room" if full(error) else "remove the cause"
            raise UserError(
                f"cannot write {path.name} into {path.parent}: {os.strerror(error.errno or 0)}",
                f"the checkpoint before it is whole; {what}, and give the same command again",
            ) from error


def with_plain_hyper_parameters(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Without the networks and functions that `save_hyperparameters()` puts into a checkpoint.

    `main` makes those anew. In a checkpoint they could only be read by running code.
    """
    content = dict(checkpoint)
    for key in ("hyper_parameters", "datamodule_hyper_parameters"):
        if key in content:
            content[key] = {name: value for name, value in content[key].items() if is_plain(value)}
    return content


def for_use(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What `best.ckpt` holds of a checkpoint: nothing that only a resume needs, and no Python
    objects, which others could not read safely."""
    return {
        key: value
        for key, value in checkpoint.items()
        if key not in RESUME_ONLY and is_plain(value)
    }


def is_plain(value: Any) -> bool:
    """Whether it is made of tensors and plain Python alone."""
    if isinstance(value, Mapping):
        return type(value) in (dict, OrderedDict) and all(map(is_plain, value.values()))
    if isinstance(value, (list, tuple, set)):
        return type(value) in (list, tuple, set) and all(map(is_plain, value))
    plain = (type(None), bool, int, float, complex, str, bytes)
    return type(value) in plain or isinstance(value, torch.Tensor)


def _save(content: dict[str, Any], path: Path) -> None:
    """Raises: OSError if the disk is the cause; any other error as torch has it."""
    try:
        torch.save(content, path)
    except RuntimeError as error:
        refusal = _refusal_of_disk(path)
        if refusal is None:
            raise
        raise refusal from error


def _refusal_of_disk(path: Path) -> OSError | None:
    """What the disk says to one more megabyte: torch's writer hides the number of its errors."""
    try:
        with open(path, "ab") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


class Checkpoints(Checkpoint):
    """Saves the weights of a new best entry, and everything as an epoch is over.

    Lightning calls a `Checkpoint` after all other callbacks.

    Args:
        every_epochs: epochs between two `last.ckpt`.
        saved: told of each checkpoint that is whole on disk.
    """

    def __init__(
        self,
        experiment: Experiment,
        history: History,
        is_first: bool,
        every_epochs: int,
        saved: Callable[[], None],
    ):
        self.experiment, self.history, self.is_first = experiment, history, is_first
        self.every_epochs, self.saved = every_epochs, saved
        self.plateaus: PlateausBeforeTheSave | None = None

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if self.plateaus is None:
            self.plateaus = PlateausBeforeTheSave(trainer)

    def on_entry(self, trainer: Trainer, module: LightningModule) -> None:
        if self.history.improved:
            trainer.save_checkpoint(next_best(self.experiment))
        if self.is_first and self.history.by_validation:  # whoever watches sees it within the epoch
            self.experiment.write_history(self.history.entries)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.plateaus is not None:
            self.plateaus.step()
        if self.history.epochs % self.every_epochs == 0:
            self.save_last(trainer)
        if self.is_first:
            self.experiment.write_history(self.history.entries)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """The end is saved whatever the interval; a run killed in its test has nothing to train
        again."""
        if self.history.epochs % self.every_epochs:
            self.save_last(trainer)

    def save_last(self, trainer: Trainer) -> None:
        """All ranks must call it together."""
        self.history.gather()
        if self.is_first:
            keep_previous(self.experiment.last_checkpoint)
        trainer.save_checkpoint(self.experiment.last_checkpoint)
        if self.is_first and next_best(self.experiment).exists():
            os.replace(next_best(self.experiment), self.experiment.best_checkpoint)
        trainer.strategy.barrier("best.ckpt")  # the test reads it on every rank
        self.saved()


def next_best(experiment: Experiment) -> Path:
    """Where the weights of a new best epoch wait for `last.ckpt`."""
    return experiment.folder / NEXT_BEST


def thin_out(experiment: Experiment, keep: str) -> None:
    """Remove what a finished run's result does not need.

    `keep`: all, last (no previous one) or best (weights only).
    """
    if keep in ("last", "best"):
        for path in (
            previous(experiment.last_checkpoint),
            *experiment.folder.glob("unused.*.ckpt"),
        ):
            path.unlink(missing_ok=True)
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
