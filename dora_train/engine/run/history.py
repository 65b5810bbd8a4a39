"""Builds the entries of the history from the sums of the steps, and chooses the best one.

There is one entry per epoch, with train and valid together. If a run validates within its epochs,
there is one entry per validation, with its step: {"step": 300, "train": {...}, "valid": {...}}. The
train metrics of such an entry are those of the steps since the entry before it. No entry holds a
time, so that a resumed run has the same bits.

The history is part of the checkpoint. `history.json` is only a copy of it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytorch_lightning import LightningModule, Trainer

from ...best_so_far import monitored
from ..errors import UserError
from ..upstream.lightning import ends_the_epoch
from ..words import validated
from .averages import Averages as Averages  # predict.py imports it from here
from .averages import means_of
from .step_sums import StepSums

Entry = dict[str, Any]  # {split: {metric: value}}, and maybe "step"
RULE = 3  # of the runs that begin now: see `History.rule`


class History(StepSums):
    """Builds the history, keeps the best entry, and carries both in the checkpoint.

    Args:
        metric: the metric by which `best.ckpt` is chosen, e.g. "valid.acc".
        mode: "max" or "min".

    Attributes:
        entries: as in `history.json`.
        best: {"epoch": 5, "loss": 0.1, "acc": 0.97, "value": 0.97}, with the epoch from 1. If
            entries have steps, it also has the "step" of its weights. Empty if no entry is the
            best.
        improved: whether the last entry is the best.
        epochs: the number of finished epochs.
        by_validation: whether each validation has an entry.
        check: called with the means that a checkpoint within an epoch would hold, and their place
            in words.
        rule: how the run counts. A run ends by the rule that it began with. 1, if a checkpoint does
            not name a rule: epochs without a validation count for early stopping and plateau, and
            `trainer.overfit_batches` draws new batches in each epoch. 2: only validations count,
            and the batches stay the same. 3: as 2, and a run that validates within its epochs has
            an entry for each validation.
    """

    rule = RULE

    def __init__(self, metric: str, mode: str, rank: int, world_size: int):
        super().__init__(rank, world_size)
        self.metric, self.mode = metric, mode
        self.entries: list[Entry] = []
        self.best: dict[str, Any] = {}
        self.improved = False
        self.epochs = 0
        self.by_validation = False
        self.check: Callable[[Entry, str], None] | None = None
        self._validated = False  # since the last entry

    @property
    def epoch(self) -> int:
        """The epoch of a new entry, from 1."""
        return self.epochs + 1

    @property
    def place(self) -> str:
        """The place of the last entry in words: `epoch 5`, or `epoch 5, step 300`."""
        step = self.entries[-1].get("step")
        return f"epoch {self.epoch}" if step is None else f"epoch {self.epoch}, step {step}"

    @property
    def monitored(self) -> list[float]:
        """The metric of each validation. Larger is better in both modes."""
        return monitored(self.entries, self.metric, self.mode, measured_only=self.rule > 1)

    # --- the hooks ---

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_train_start(trainer, module)
        self._tell(module)
        self.by_validation = self.rule > 2 and validates_within_epochs(trainer)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, module)
        # With an entry per validation, the steps after an epoch's last validation count for the
        # first entry of the next epoch.
        if not self.by_validation:
            self.begin_entry()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_validation_end(trainer, module)
        if not trainer.sanity_checking:
            self._validated = True
        # The entry of an epoch's last step is made in on_train_epoch_end: the module may still log
        # numbers that belong to it.
        if self.by_validation and self._validated and not ends_the_epoch(trainer):
            self.module_log.compute_so_far("train")
            self._add_entry(trainer, module)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, module)
        if self._validated or not self.by_validation:
            self._add_entry(trainer, module)
        self.epochs += 1

    # --- a new entry ---

    def _add_entry(self, trainer: Trainer, module: LightningModule) -> None:
        """Add an entry, and call `on_entry(trainer, module)` of the callbacks that have it."""
        step: dict[str, int] = {}
        if self.by_validation:
            step["step"] = trainer.global_step
        entry: Entry = dict(step)
        for split in ("train", "valid"):
            metrics = self.means(split)
            if metrics:
                entry[split] = metrics
        self.entries.append(entry)
        self._note_best(step)
        self._tell(module)
        self.begin_entry()
        # Last: they read the entry, and whether it is the best.
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "on_entry"):
                callback.on_entry(trainer, module)

    def _tell(self, module: LightningModule) -> None:
        """Give `monitored` to a module that declares it: its schedule may depend on it."""
        if hasattr(module, "monitored"):
            module.monitored = self.monitored  # type: ignore[assignment]

    def begin_entry(self) -> None:
        super().begin_entry()
        self._validated = False

    def _note_best(self, step: Mapping[str, int]) -> None:
        """Note whether the last entry is the best.

        Raises:
            UserError: the metric does not exist.
        """
        value = last_value(self.entries, self.metric)
        self.improved = value is not None and is_better(value, self.best.get("value"), self.mode)
        if self.improved:
            # A metric of the name `step` or `epoch` would hide the place of the weights.
            metrics = validated(self.entries[-1].get("valid", {}))
            self.best = {"epoch": self.epoch, **step, **metrics, "value": value}

    # --- in the checkpoint ---

    def gather(self) -> None:
        """Sum the epoch so far over the ranks, and let `check` refuse the sums."""
        super().gather()
        if self.check:
            self.check({"train": means_of(self._gathered["train"])}, f"epoch {self.epoch}")

    def state_dict(self) -> dict[str, Any]:
        sums = super().state_dict()
        state = {"history": self.entries, "best": self.best, **sums, "rule": self.rule}
        if self.by_validation:
            state["epochs"] = self.epochs
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.entries = [dict(entry) for entry in state_dict["history"]]
        self.best = dict(state_dict["best"])
        self.rule = state_dict.get("rule", 1)
        self.epochs = state_dict.get("epochs", len(self.entries))


def last_value(entries: Sequence[Entry], metric: str) -> float | None:
    """Return the metric of the last entry, or None if that entry did not measure it.

    Raises:
        UserError: the split was measured, but no entry has the metric. No epoch would ever be the
            best.
    """
    split, _, name = metric.partition(".")
    last = entries[-1]
    value = last.get(split, {}).get(name)
    if value is None and split in last:
        if not any(name in entry.get(split, {}) for entry in entries):
            raise UserError(
                f"best.metric={metric}: {split} has no such metric.",
                f"{split} has: {', '.join(last[split])}.",
            )
    return value


def is_better(value: float, before: float | None, mode: str) -> bool:
    """Whether `value` is better than the best before it. NaN never is."""
    if math.isnan(value):
        return False
    if before is None:
        return True
    if mode == "max":
        return value > before
    return value < before


def validates_within_epochs(trainer: Trainer) -> bool:
    """Whether a run also validates elsewhere than at the ends of its epochs."""
    if not trainer.enable_validation:
        return False
    # With None, Lightning counts the batches on over the epochs.
    if trainer.check_val_every_n_epoch is None:
        return True
    interval = trainer.val_check_batch  # None: by the clock
    return interval is None or interval < trainer.num_training_batches


def batches_of(trainer: Trainer) -> int | None:
    """Return the batches of a training epoch, or None if the loader has no length."""
    number = trainer.num_training_batches
    return int(number) if number != float("inf") else None
