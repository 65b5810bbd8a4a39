"""Ends before the last epoch, and the reason why a fit ended.

A run ends early if nothing gets better any more (it is completed), if the loss is no number (it
has failed), or if a search has no hope for it (it is stopped).

The rules here are functions of the history. So a run that was killed comes to the same end, without
storing how near to it it was. `KeepStop` carries the decision of another callback through the
checkpoint.
"""

import math
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, Timer

from ...best_so_far import metrics_of, monitored, since_best, since_best_each
from ..errors import UserError
from .history import Entry, History
from .signals import Stopped


class EarlyStop(Checkpoint):
    """Ends the run after `patience` validations without a better metric.

    It must stand behind the history in the list of callbacks.
    """

    def __init__(self, history: History, patience: int):
        self.history, self.patience = history, patience

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Decide as an earlier attempt did, maybe epochs ago.

        `trainer.min_epochs` may have put off the end that it decided.
        """
        if max(since_best_each(self.history.monitored), default=0) >= self.patience:
            trainer.should_stop = True

    def on_entry(self, trainer: Trainer, module: LightningModule) -> None:
        """End the run if the new entry is one too many without a better metric."""
        if since_best(self.history.monitored) >= self.patience:
            trainer.should_stop = True


class KeepStop(Callback):
    """Carries `trainer.should_stop` through the checkpoint.

    A callback of the user's may have set it before min_epochs or min_steps allowed the end. Or the
    run was killed in its test, when there was nothing left to train.
    """

    def __init__(self) -> None:
        self.decided = False

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["should_stop"] = trainer.should_stop

    def on_load_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # A checkpoint of an older version has no such key.
        self.decided = checkpoint.get("should_stop", False)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        # Lightning 2.6.6 loads the checkpoint before it calls this hook.
        trainer.should_stop = trainer.should_stop or self.decided


class StopHopeless(Checkpoint):
    """Ends a search's trial if its best metric so far is worse than the search asks for.

    Args:
        rule: {"metric": "valid.acc", "mode": "max", "floors": [None, 0.4, ...]}, with a floor for
            each entry of the history. None: no floor.
    """

    def __init__(self, history: History, rule: Mapping[str, Any]):
        self.history, self.rule = history, rule

    # As the next epoch begins, the entry before it is in the checkpoint. And a trial that has
    # reached its last epoch is never stopped.
    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """End the trial if it is below the floor of the last entry.

        Raises:
            Stopped: it is, on every rank alike, because all ranks have the same history.
        """
        done, floors = len(self.history.entries), self.rule["floors"]
        if not 0 < done <= len(floors) or floors[done - 1] is None:
            return
        floor, metric = floors[done - 1], self.rule["metric"]
        values = monitored(self.history.entries, metric, self.rule["mode"])
        reached = [value for value in values if math.isfinite(value)]
        # `monitored` has the other sign for a metric that is to be small.
        sign = 1.0 if self.rule["mode"] == "max" else -1.0
        if reached and max(reached) < sign * floor:
            entries = "validations" if self.history.by_validation else "epochs"
            raise Stopped(
                f"{metric} {sign * max(reached):.4g} after {done} {entries}, the median is {floor:.4g}"
            )


class StopOnNan(Checkpoint):
    """Ends the run before anything of an epoch that diverged is saved.

    It looks when sums are read anyway: at an entry of the history, and at a checkpoint within an
    epoch. A look at each step would make the CPU wait for the GPU each time. It must stand right
    behind the history in the list of callbacks.
    """

    def __init__(self, history: History):
        self.history = history
        # For a checkpoint within an epoch, which has no entry.
        history.check = self.refuse

    def on_entry(self, trainer: Trainer, module: LightningModule) -> None:
        """Refuse the new entry if a loss in it is not finite."""
        self.refuse(self.history.entries[-1], self.history.place)

    def refuse(self, entry: Entry, place: str) -> None:
        """Refuse means in which a loss is not finite.

        Raises:
            UserError: a loss is not finite, on every rank alike, because all have the same means.
        """
        for split, metrics in metrics_of(entry).items():
            for name, value in metrics.items():
                if "loss" in name.lower() and not math.isfinite(value):
                    raise UserError(
                        f"diverged in {place}: the {split} {name} is {value}.",
                        "lower optim.lr, or give schedule.warmup_epochs or "
                        "trainer.gradient_clip_val; to continue anyway: stop_on_nan=false",
                    )


def end_reason(trainer: Trainer) -> str:
    """Return why the fit ended: max_steps, max_epochs, max_time or stopped early.

    Raises:
        UserError: the fit returned before its end. Such a run is not finished.
    """
    # Steps come first: if a resumed fit has reached both limits, it stops at the steps.
    if trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps:
        return "max_steps"
    is_last = trainer.max_epochs not in (None, -1) and trainer.current_epoch >= trainer.max_epochs
    if is_last and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return "max_epochs"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer):
            remaining = callback.time_remaining()  # None without a limit
            if remaining is not None and remaining <= 0:
                return "max_time"
    if trainer.should_stop:
        return "stopped early"
    raise UserError("the training returned before its end. The reason is not known.")
