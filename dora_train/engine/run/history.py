"""From what the steps return and log to one history entry an epoch: train and valid together, no
clock in it.

The running sums of an epoch are part of the checkpoint, and so is the history: `history.json` is
only ever its copy.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from ...best_so_far import monitored
from ..errors import UserError
from .averages import Averages, loss_first
from .loaders import num_samples, share_of
from .logged import ModuleLog

Entry = dict[str, dict[str, float]]
RULE = 2  # of the runs that begin now: see `History.rule`


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
            only validations count, and the batches stay. A run ends by the rule that it began with.
    """

    rule = RULE

    def __init__(self, metric: str, mode: str, rank: int, world_size: int):
        self.metric, self.mode, self.rank, self.world_size = metric, mode, rank, world_size
        self.entries: list[Entry] = []
        # {"epoch": 5, "loss": 0.1, "acc": 0.97, "value": 0.97}; epochs from 1
        self.best: dict[str, Any] = {}
        self.improved = False  # by the last entry
        # looks at what a checkpoint within an epoch would hold
        self.check: Callable[[Entry, int], None] | None = None
        self.splits = {split: Averages() for split in ("train", "valid", "test")}
        # "cpu", "cuda": sums are rounded in another order elsewhere, and with other ranks
        self.device = ""
        self.module_log = ModuleLog(self.splits, rank, world_size)
        self._epoch_ended = False
        self._gathered: dict[str, Any] = {
            split: Averages().state(1) for split in ("train", "valid")
        }
        self._restored: dict[str, Any] = {}

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
        self.device = module.device.type
        for split, state in self._restored.items():  # only now is the device known
            self.splits[split].load(state, module.device, self.rank == 0)
        self._restored = {}

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.module_log.restore()
        self._epoch_ended = False
        self.splits["train"], self.splits["valid"] = Averages(), Averages()

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
        self.module_log.validation_ends()

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

    # --- an epoch is over ---

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.module_log.compute("train", "valid")
        entry = {split: self.means(split) for split in ("train", "valid")}
        self.entries.append({split: metrics for split, metrics in entry.items() if metrics})
        self._note_best()
        self._tell(module)
        self._epoch_ended = True
        self.module_log.computed = {}
        self.splits["train"], self.splits["valid"] = Averages(), Averages()

    def _note_best(self) -> None:
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
                "epoch": len(self.entries),
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
            self.check({"train": so_far(train)}, len(self.entries) + 1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.entries,
            "best": self.best,
            **self._gathered,
            "ranks": self.world_size,
            "device": self.device,
            "rule": self.rule,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.entries = [dict(entry) for entry in state_dict["history"]]
        self.best = dict(state_dict["best"])
        self._restored = {key: state_dict[key] for key in ("train", "valid") if key in state_dict}
        self.module_log.load(state_dict)
        self.rule = state_dict.get("rule", 1)


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
