"""What happens between two steps: all ranks agree whether to save and whether to leave.

A checkpoint within a validation is one of the moment before it: the next attempt validates from the
first batch on.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint

from ..upstream.lightning import (
    as_before_validation,
    ends_the_epoch,
    trains_no_further,
    validates_next,
)
from .signals import Interrupted, Signals

SAVE = 1000  # above every signal's number: "save, and go on"


class StepBoundary(Checkpoint):
    """After each batch: save when it is time to, or save and leave when any rank was signalled.

    Lightning calls a `Checkpoint` after all other callbacks: by then each has decided whether the
    training ends here.

    Args:
        signals: the flag of this rank.
        save: writes `last.ckpt`; all ranks call it together.
        every_minutes: between two checkpoints within an epoch; 0: none but at its end.
    """

    def __init__(
        self,
        signals: Signals,
        world_size: int,
        save: Callable[[Trainer], None],
        every_minutes: float,
    ):
        self.signals, self.world_size, self.save = signals, world_size, save
        self.every = every_minutes * 60 or float("inf")
        self._saved = time.monotonic()

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        self._saved = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        self._leave(trainer)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if _can_go_on_from_here(trainer):
            self._save_or_leave(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *args: Any) -> None:
        self._saved = time.monotonic()

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        ends = trainer.sanity_checking or trains_no_further(trainer)
        if ends or not _is_between_steps(trainer):
            self._leave(trainer)
        else:
            with as_before_validation(trainer):
                self._save_or_leave(trainer)

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._leave(trainer)  # the last checkpoint is that of the training's end

    def _save_or_leave(self, trainer: Trainer) -> None:
        due = time.monotonic() - self._saved > self.every
        agreed = self._agreed(trainer, SAVE if due else 0)
        if agreed:
            self.save(trainer)
            self._saved = time.monotonic()
        if agreed % SAVE:
            raise Interrupted(agreed % SAVE)

    def _leave(self, trainer: Trainer) -> None:
        """Leave with the checkpoint that there is: what was done since is done again, with the same
        result."""
        signum = self._agreed(trainer, 0)
        if signum:
            raise Interrupted(signum)

    def _agreed(self, trainer: Trainer, due: int) -> int:
        """The sum of the largest `due` and the largest signal of any rank: the same number on every
        rank."""
        if self.world_size == 1:
            return due + self.signals.signum
        wishes = torch.tensor([due, self.signals.signum], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(wishes, op=torch.distributed.ReduceOp.MAX)
        return int(wishes.sum())


def _can_go_on_from_here(trainer: Trainer) -> bool:
    """Whether a checkpoint after this batch holds all that the next one needs; the same on every
    rank.

    Not after the last batch, or the last step that is trained: Lightning 2.6.6 would take the epoch
    for finished, without its validation and its entry. Not before a validation: it would be left
    out. A checkpoint within the validation comes soon.
    """
    goes_on = not ends_the_epoch(trainer) and not validates_next(trainer)
    return _is_between_steps(trainer) and goes_on


def _is_between_steps(trainer: Trainer) -> bool:
    """Not between the batches of one optimizer step: their gradients are in no checkpoint."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return progress.is_last_batch or progress.current.ready % trainer.accumulate_grad_batches == 0
