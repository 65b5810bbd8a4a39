"""Sums what the steps of an epoch return and log, as Lightning calls its hooks.

`History` makes its entries of these sums. They are part of the checkpoint, so that a resume within
an epoch counts every step once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from .averages import Averages, by_name, loss_first
from .loaders import num_samples, share_of
from .logged import ModuleLog


class StepSums(Checkpoint):
    """The running sums of train, valid and test.

    Lightning calls a `Checkpoint` after the hooks of the module. So a number that is logged in
    `on_train_epoch_end` belongs to its own epoch.

    Attributes:
        splits: the averages of train, valid and test.
        device: the type of the device, e.g. "cuda". Another device, or another number of ranks,
            rounds sums in another order.
    """

    def __init__(self, rank: int, world_size: int):
        self.rank, self.world_size = rank, world_size
        self.device = ""
        self.splits = {split: Averages() for split in ("train", "valid", "test")}
        self.module_log = ModuleLog(self.splits, rank, world_size)
        self._epoch_ended = False
        # The sums of all ranks as `gather` found them. `state_dict` returns them.
        self._gathered: dict[str, Any] = {
            split: Averages().state(1) for split in ("train", "valid")
        }
        self._restored: dict[str, Any] = {}

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self.module_log.attach(trainer, module)

    # --- training ---

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.device = module.device.type
        # When the checkpoint was loaded, the device was not yet known.
        for split, state in self._restored.items():
            self.splits[split].load(state, module.device, self.rank == 0)
        self._restored = {}

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.module_log.restore()
        self._epoch_ended = False

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        # A resume within an epoch has no on_train_epoch_start.
        self.module_log.restore()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        # Lightning 2.6.6 has divided the loss by the number of batches that make a step.
        batches = trainer.accumulate_grad_batches
        if batches > 1 and isinstance(outputs, Mapping) and "loss" in outputs:
            outputs = {**outputs, "loss": outputs["loss"] * batches}
        samples = _samples(trainer.train_dataloader, 0, batch_idx, batch)
        self.module_log.add_step("train", outputs, samples, "training_step")

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.module_log.compute("train", "valid")
        self._epoch_ended = True

    # --- validation and test ---

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.module_log.restore()
        self.module_log.validation_begins()

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        # A later validation of an epoch takes the place of an earlier one.
        self.splits["valid"] = Averages()
        self.module_log.computed.pop("valid", None)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            samples = _samples(trainer.val_dataloaders, dataloader_idx, batch_idx, batch)
            outputs = _of_loader(outputs, trainer.num_val_batches, dataloader_idx)
            self.module_log.add_step("valid", outputs, samples, "validation_step")

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        # Lightning validates a few batches before the training. Their numbers mean nothing.
        if not trainer.sanity_checking:
            self.module_log.compute("valid")
        self.module_log.validation_ends()

    def on_test_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.splits["test"] = Averages()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        samples = _samples(trainer.test_dataloaders, dataloader_idx, batch_idx, batch)
        outputs = _of_loader(outputs, trainer.num_test_batches, dataloader_idx)
        self.module_log.add_step("test", outputs, samples, "test_step")

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.module_log.compute("test")

    # --- what they come to ---

    def means(self, split: str) -> dict[str, float]:
        """Return the {metric: value} of a split so far: from its steps and torchmetrics objects.

        All ranks must call it together.
        """
        means = self.splits[split].means(self.world_size) | self.module_log.computed.get(split, {})
        return {name: means[name] for name in sorted(means, key=loss_first)}

    def begin_entry(self) -> None:
        """Begin the sums of train and valid again."""
        self.splits["train"], self.splits["valid"] = Averages(), Averages()
        self.module_log.computed = {}

    # --- in the checkpoint ---

    def gather(self) -> None:
        """Sum the epoch so far over the ranks, for a checkpoint. All ranks must call it together.

        The last validation is part of it: with `trainer.val_check_interval`, no other may follow in
        this epoch.
        """
        self._gathered = {
            "train": self.splits["train"].state(self.world_size),
            "valid": self.splits["valid"].state(self.world_size),
            **self.module_log.state(self._epoch_ended),
        }

    def state_dict(self) -> dict[str, Any]:
        return {**self._gathered, "ranks": self.world_size, "device": self.device}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = {key: state_dict[key] for key in ("train", "valid") if key in state_dict}
        self.module_log.load(state_dict)


def _samples(loaders: object, loader: int, number: int, batch: object) -> int:
    """Return the samples of a batch on this rank."""
    share = share_of(loaders, loader, number)
    return num_samples(batch) if share is None else share[0]


def _of_loader(outputs: object, batches: Sequence[int | float], loader: int) -> object:
    """Return the outputs with the number of their loader in each name, if there are several.

    Args:
        batches: the number of batches of each loader.
    """
    if len(batches) < 2:
        return outputs
    return {f"{name}/dataloader_idx_{loader}": value for name, value in by_name(outputs).items()}
