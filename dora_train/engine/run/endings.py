"""Ends before the last epoch: nothing gets better any more (complete), the loss is no number
(failed), or a search has no hope for it (stopped).

The rules here are functions of the history, so that a run that was killed comes to the same end
without storing how near it was. What another callback decided is carried through the checkpoint.
"""

import math
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from ...best_so_far import metrics_of, monitored, since_best, since_best_each
from ..errors import UserError
from .history import Entry, History
from .signals import Stopped


class EarlyStop(Checkpoint):
    """Ends the run after `patience` validations without a better metric.

    Must stand behind the history.
    """

    def __init__(self, history: History, patience: int):
        self.history, self.patience = history, patience

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """As an earlier attempt decided, maybe epochs ago:

        `trainer.min_epochs` puts the end off.
        """
        if max(since_best_each(self.history.monitored), default=0) >= self.patience:
            trainer.should_stop = True

    def on_entry(self, trainer: Trainer, module: LightningModule) -> None:
        if since_best(self.history.monitored) >= self.patience:
            trainer.should_stop = True


class KeepStop(Callback):
    """Carries `trainer.should_stop` through the checkpoint.

    A callback of the user's may have set it before min_epochs or min_steps allowed the end. Or the
    run was killed in its test, with nothing left to train.
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
        self.decided = checkpoint.get("should_stop", False)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.decided


class StopHopeless(Checkpoint):
    """Ends a search's trial if its best so far is worse than the search wants by then.

    Looks as the next epoch begins: the one before it is in the checkpoint by then, and the last one
    always counts.

    Args:
        rule: {"metric": "valid.acc", "mode": "max", "floors": [None, 0.4, ...]}, a floor for each
            entry of the history; None: none.
    """

    def __init__(self, history: History, rule: Mapping[str, Any]):
        self.history, self.rule = history, rule

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Raises: Stopped on every rank alike, since all have the same history."""
        done, floors = len(self.history.entries), self.rule["floors"]
        floor = floors[done - 1] if 0 < done <= len(floors) else None
        metric, mode = self.rule["metric"], self.rule["mode"]
        sign = 1.0 if mode == "max" else -1.0
        reached = [
            value for value in monitored(self.history.entries, metric, mode) if math.isfinite(value)
        ]
        entries = "validations" if self.history.by_validation else "epochs"
        if floor is not None and reached and max(reached) < sign * floor:
            raise Stopped(
                f"{metric} {sign * max(reached):.4g} after {done} {entries}, the median is {floor:.4g}"
            )


class StopOnNan(Checkpoint):
    """Ends the run before anything of an epoch that diverged is saved; must stand right behind the
    history.

    Looks where sums are read anyway: at an entry of the history, and at a checkpoint within an
    epoch. Looking at each step would make the CPU wait for the GPU each time.
    """

    def __init__(self, history: History):
        self.history = history
        history.check = self.refuse

    def on_entry(self, trainer: Trainer, module: LightningModule) -> None:
        self.refuse(self.history.entries[-1], self.history.place)

    def refuse(self, entry: Entry, place: str) -> None:
        """Raises: UserError if a loss is not finite. All ranks have the same means."""
        for split, metrics in metrics_of(entry).items():
            for name, value in metrics.items():
                if "loss" in name.lower() and not math.isfinite(value):
                    raise UserError(
                        f"diverged in {place}: the {split} {name} is {value}.",
                        "lower optim.lr, or give schedule.warmup_epochs or "
                        "trainer.gradient_clip_val; stop_on_nan=false goes on",
                    )
