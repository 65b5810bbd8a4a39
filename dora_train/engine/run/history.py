"""From what the steps return and log to the entries of the history, without any clock in them.

There is one entry an epoch: train and valid together. If a run validates within its epochs, there is
one entry a validation, with its step: {"step": 300, "train": {...}, "valid": {...}}. Its train
metrics are those of the steps since the entry before.

The running sums of an epoch are part of the checkpoint, and so is the history: `history.json` is
only ever its copy.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from ...best_so_far import monitored
from ..errors import UserError
from ..upstream.lightning import ends_the_epoch
from .averages import Averages, loss_first
from .loaders import num_samples, share_of
from .logged import ModuleLog

Entry = dict[str, Any]  # {split: {metric: value}}, and maybe "step"
RULE = 3  # of the runs that begin now: see `History.rule`


class History(Checkpoint):
    """Builds the history, keeps the best epoch, and carries both in the checkpoint.

    Lightning calls a `Checkpoint` after the hooks of the module. So a number that is logged in
    `on_train_epoch_end` belongs to its own epoch.

    Args:
        metric: what `best.ckpt` is chosen by, e.g. "valid.acc".
        mode: "max" or "min".

    Attributes:
        rule: 1, of checkpoints that do not name it: epochs without a validation count for early
            stopping and plateau, and `trainer.overfit_batches` draws new batches in each epoch. 2:
            only validations count, and the batches stay. 3: as 2, and a run that validates within
            its epochs has an entry for each validation. A run ends by the rule that it began with.
        epochs: how many are finished.
    """

    rule = RULE

    def __init__(self, metric: str, mode: str, rank: int, world_size: int):
        self.metric, self.mode, self.rank, self.world_size = metric, mode, rank, world_size
        self.entries: list[Entry] = []
        # {"epoch": 5, "loss": 0.1, "acc": 0.97, "value": 0.97}; epochs from 1. If entries have
        # steps, "step" too: the one of the weights.
        self.best: dict[str, Any] = {}
        self.improved = False  # by the last entry
        self.epochs = 0
        self.by_validation = False  # whether each validation has an entry
        # looks at what a checkpoint within an epoch would hold
        self.check: Callable[[Entry, str], None] | None = None
        self.splits = {split: Averages() for split in ("train", "valid", "test")}
        # "cpu", "cuda": sums are rounded in another order elsewhere, and with other ranks
        self.device = ""
        self.module_log = ModuleLog(self.splits, rank, world_size)
        self._epoch_ended = False
        self._validated = False  # since the last entry
        self._gathered: dict[str, Any] = {
            split: Averages().state(1) for split in ("train", "valid")
        }
        self._restored: dict[str, Any] = {}

    @property
    def epoch(self) -> int:
        """The epoch of an entry that is new, from 1."""
        return self.epochs + 1

    @property
    def place(self) -> str:
        """Where the last entry was made, in words."""
        step = self.entries[-1].get("step")
        return f"epoch {self.epoch}" if step is None else f"epoch {self.epoch}, step {step}"

    @property
    def monitored(self) -> list[float]:
        """What each validation reached in the metric, larger is better: see optim.py."""
        return monitored(self.entries, self.metric, self.mode, measured_only=self.rule > 1)

    def _tell(self, module: LightningModule) -> None:
        """A module that declares `monitored` gets it."""
        if hasattr(module, "monitored"):
            module.monitored = self.monitored  # type: ignore[assignment]

    # --- gathering ---

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self.module_log.attach(trainer, module)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._tell(module)
        self.by_validation = self.rule > 2 and validates_within_epochs(trainer)
        self.device = module.device.type
        for split, state in self._restored.items():  # only now is the device known
            self.splits[split].load(state, module.device, self.rank == 0)
        self._restored = {}

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.module_log.restore()
        self._epoch_ended = False
        if not self.by_validation:
            self._begin_entry()

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.module_log.restore()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning 2.6.6 has divided it by the batches that make a step
        if trainer.accumulate_grad_batches > 1 and outputs and "loss" in outputs:
            outputs = {**outputs, "loss": outputs["loss"] * trainer.accumulate_grad_batches}
        samples = _samples(trainer.train_dataloader, 0, batch_idx, batch)
        self.module_log.add_step("train", outputs, samples, "training_step")

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.module_log.restore()
        self.module_log.validation_begins()

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.splits["valid"] = Averages()
        self.module_log.computed.pop("valid", None)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            loaders = trainer.val_dataloaders
            samples = _samples(loaders, dataloader_idx, batch_idx, batch)
            outputs = _of_loader(outputs, trainer.num_val_batches, dataloader_idx)
            self.module_log.add_step("valid", outputs, samples, "validation_step")

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.module_log.compute("valid")
            self._validated = True
        self.module_log.validation_ends()
        # What a module logs at the end of an epoch still belongs to the entry of its last step.
        if self.by_validation and self._validated and not ends_the_epoch(trainer):
            self.module_log.compute_so_far("train")
            self._add_entry(trainer, module)

    def on_test_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.splits["test"] = Averages()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        samples = _samples(trainer.test_dataloaders, dataloader_idx, batch_idx, batch)
        outputs = _of_loader(outputs, trainer.num_test_batches, dataloader_idx)
        self.module_log.add_step("test", outputs, samples, "test_step")

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.module_log.compute("test")

    def means(self, split: str) -> dict[str, float]:
        """What a split's steps gave on average, and what its torchmetrics objects did.

        All ranks must call it together.
        """
        means = self.splits[split].means(self.world_size) | self.module_log.computed.get(split, {})
        return {name: means[name] for name in sorted(means, key=loss_first)}

    # --- a new entry ---

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.module_log.compute("train", "valid")
        self._epoch_ended = True
        if self._validated or not self.by_validation:
            self._add_entry(trainer, module)
        self.epochs += 1

    def _add_entry(self, trainer: Trainer, module: LightningModule) -> None:
        """Add an entry, and call `on_entry(trainer, module)` of the callbacks that have it, in their order."""
        entry = {split: self.means(split) for split in ("train", "valid")}
        step = {"step": trainer.global_step} if self.by_validation else {}
        self.entries.append(step | {split: found for split, found in entry.items() if found})
        self._note_best(step)
        self._tell(module)
        self._begin_entry()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "on_entry"):
                callback.on_entry(trainer, module)

    def _begin_entry(self) -> None:
        self.splits["train"], self.splits["valid"] = Averages(), Averages()
        self.module_log.computed = {}
        self._validated = False

    def _note_best(self, step: Mapping[str, int]) -> None:
        """Raises: UserError if the split was measured, but the metric never was: no epoch would
        ever be the best."""
        split, _, metric = self.metric.partition(".")
        value = self.entries[-1].get(split, {}).get(metric)
        if value is None and split in self.entries[-1]:
            if not any(metric in entry.get(split, {}) for entry in self.entries):
                raise UserError(
                    f"best.metric={self.metric}: {split} has no such metric.",
                    f"{split} has: {', '.join(self.entries[-1][split])}.",
                )
        before = self.best.get("value")
        self.improved = value is not None and value == value and self._is_better(value, before)
        if self.improved:
            self.best = {
                "epoch": self.epoch,
                **step,
                **self.entries[-1].get("valid", {}),
                "value": value,
            }

    def _is_better(self, value: float, before: float | None) -> bool:
        if before is None:
            return True
        return value > before if self.mode == "max" else value < before

    # --- in the checkpoint ---

    def gather(self) -> None:
        """Sum the epoch so far over the ranks, for a checkpoint within it.

        Also its last validation: with `trainer.val_check_interval`, none may follow in this epoch.
        All ranks must call it together.
        """
        train = self.splits["train"].state(self.world_size)
        valid = self.splits["valid"].state(self.world_size)
        self._gathered = {
            "train": train,
            "valid": valid,
            **self.module_log.state(self._epoch_ended),
        }
        if self.check:
            self.check({"train": so_far(train)}, f"epoch {self.epoch}")

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.entries,
            "best": self.best,
            **self._gathered,
            "ranks": self.world_size,
            "device": self.device,
            "rule": self.rule,
        } | ({"epochs": self.epochs} if self.by_validation else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.entries = [dict(entry) for entry in state_dict["history"]]
        self.best = dict(state_dict["best"])
        self._restored = {key: state_dict[key] for key in ("train", "valid") if key in state_dict}
        self.module_log.load(state_dict)
        self.rule = state_dict.get("rule", 1)
        self.epochs = state_dict.get("epochs", len(self.entries))


def validates_within_epochs(trainer: Trainer) -> bool:
    """Whether a run is asked to validate elsewhere than at the ends of its epochs."""
    if not trainer.enable_validation:
        return False
    if trainer.check_val_every_n_epoch is None:  # Lightning counts batches on over the epochs
        return True
    interval = trainer.val_check_batch  # None: by the clock
    return interval is None or interval < trainer.num_training_batches


def so_far(state: dict[str, Any]) -> dict[str, float]:
    """The means that `Averages.state` stands for."""
    means = {}
    for group in (state, *state.get("more", [])):
        count = group["count"] if group.get("operation", "mean") == "mean" else 1
        for name, value in zip(group["names"], group["sums"]):
            means[name] = value / count
    return means


def _samples(loaders: Any, loader: int, number: int, batch: Any) -> int:
    share = share_of(loaders, loader, number)
    return num_samples(batch) if share is None else share[0]


def _of_loader(outputs: Any, several: Any, loader: int) -> Any:
    """With several loaders, what a step returns carries the number of its own."""
    if len(several) < 2 or outputs is None:
        return outputs
    if not isinstance(outputs, Mapping):
        outputs = {"loss": outputs}
    return {f"{name}/dataloader_idx_{loader}": value for name, value in outputs.items()}


def batches_of(trainer: Trainer) -> int | None:
    number = trainer.num_training_batches
    return int(number) if number != float("inf") else None
