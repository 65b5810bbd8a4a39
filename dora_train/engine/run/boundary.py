"""What happens between two steps: all ranks agree whether to save and whether to leave.

A checkpoint within a validation describes the moment before it. The next attempt validates from the
first batch on.
"""

import time

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint

from ..upstream.lightning import (
    as_before_validation,
    ends_the_epoch,
    train_loaders,
    trains_no_further,
    validates_next,
)
from .checkpoints import Checkpoints
from .loaders import can_resume_within
from .signals import Interrupted, Signals

# Means "save, and go on". It is above every signal's number, so that the sum tells both.
SAVE = 1000


class StepBoundary(Checkpoint):
    """Looks after each batch whether a checkpoint is due, or any rank was signalled.

    If a checkpoint is due, all ranks save. If a rank was signalled, all ranks save and leave. If
    the next attempt could not go on within the epoch, they leave without a new checkpoint.
    Lightning calls a `Checkpoint` after all other callbacks. By then each of them has decided
    whether the training ends here.

    Args:
        signals: the flag of this rank.
        checkpoints: writes `last.ckpt`. At the end of an epoch, it asks this object whether to.
        every_minutes: between two checkpoints. 0: `checkpoint.every_epochs` alone says when.
    """

    def __init__(
        self,
        signals: Signals,
        world_size: int,
        checkpoints: Checkpoints,
        every_minutes: float,
    ):
        self.signals, self.world_size = signals, world_size
        self.save = checkpoints.save_last
        checkpoints.boundary = self  # it asks at the end of an epoch
        self.every = every_minutes * 60 or float("inf")  # seconds
        self._saved = time.monotonic()
        self._signum = 0  # of a rank, at the end of the epoch before, which is saved by now

    def on_train_start(self, trainer: Trainer, *args: object) -> None:
        # The validation before the training may have taken minutes.
        self._saved = time.monotonic()

    def wants_save(self, trainer: Trainer) -> bool:
        """Whether a checkpoint is due at the end of an epoch, or any rank was signalled.

        All ranks must call it together.
        """
        agreed = self._agreed(trainer, SAVE if self._is_due() else 0)
        self._signum = agreed % SAVE
        return agreed > 0

    def has_saved(self) -> None:
        """Note that a checkpoint was saved. The next one is due `every_minutes` later."""
        self._saved = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, *args: object) -> None:
        if self._signum:
            raise Interrupted(self._signum)

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        if _can_go_on_from_here(trainer):
            self._save_or_leave(trainer)
        elif not ends_the_epoch(trainer) and not can_resume_within(train_loaders(trainer)):
            self._leave(trainer)  # the epoch may be endless

    def on_validation_batch_end(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
        ends = trainer.sanity_checking or trains_no_further(trainer)
        if ends or not _can_resume(trainer):
            self._leave(trainer)
        else:
            with as_before_validation(trainer):
                self._save_or_leave(trainer)

    def on_test_batch_end(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
        # The last checkpoint is that of the training's end. The test is done again.
        self._leave(trainer)

    def _save_or_leave(self, trainer: Trainer) -> None:
        """Save if it is due, or save and leave if any rank was signalled.

        Raises:
            Interrupted: a rank was signalled.
        """
        agreed = self._agreed(trainer, SAVE if self._is_due() else 0)
        if agreed:
            self.save(trainer)
        if agreed % SAVE:
            raise Interrupted(agreed % SAVE)

    def _is_due(self) -> bool:
        return time.monotonic() - self._saved > self.every

    def _leave(self, trainer: Trainer) -> None:
        """Leave without a new checkpoint if any rank was signalled.

        The next attempt does the work since the last checkpoint again, with the same result.

        Raises:
            Interrupted: a rank was signalled.
        """
        signum = self._agreed(trainer, 0)
        if signum:
            raise Interrupted(signum)

    def _agreed(self, trainer: Trainer, due: int) -> int:
        """Return the largest `due` plus the largest signal of any rank.

        It is the same number on every rank.
        """
        if self.world_size == 1:
            return due + self.signals.signum
        wishes = torch.tensor([due, self.signals.signum], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(wishes, op=torch.distributed.ReduceOp.MAX)
        return int(wishes.sum())


def _can_go_on_from_here(trainer: Trainer) -> bool:
    """Whether a checkpoint after this batch holds all that the next batch needs.

    It does not after the last batch of an epoch, or after the last step that is trained. There
    Lightning 2.6.6 would take the epoch for finished, without its validation and its entry. It does
    not before a validation either, which a resume would leave out. A checkpoint within the
    validation comes soon. The answer is the same on every rank.
    """
    goes_on = not ends_the_epoch(trainer) and not validates_next(trainer)
    return _can_resume(trainer) and goes_on


def _is_between_steps(trainer: Trainer) -> bool:
    """Whether the batch before was the last one of an optimizer step.

    Between the batches of one step there are gradients, which are in no checkpoint.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return progress.is_last_batch or progress.current.ready % trainer.accumulate_grad_batches == 0


def _can_resume(trainer: Trainer) -> bool:
    """Whether the next attempt could go on from here, within an epoch."""
    return _is_between_steps(trainer) and can_resume_within(train_loaders(trainer))
