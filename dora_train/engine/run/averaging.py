"""`ema.decay`: a running average of the weights, which is validated and kept as `best.ckpt` in
their place.

Lightning's callback does the averaging, the swapping and the checkpoints (`last.ckpt` holds both,
under `current_model_state` and `state_dict`). Here is what several ranks, a GPU and an exact resume
need on top.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AverageWeights(WeightAveraging):
    """Must stand before what saves: it takes in a step at the end of its batch.

    Args:
        decay: what the average keeps of itself at an optimizer step, between 0 and 1.
    """

    def __init__(self, decay: float, world_size: int):
        # Lightning 2.6.6's own goes tensor by tensor
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.world_size = world_size
        self.swapped = False  # within a validation, the module holds the average

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning 2.6.6 copies the module before it moves it."""
        pl_module.to(trainer.strategy.root_device)
        super().setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Each rank averages its own running statistics of batch norm; those of rank 0 are the
        checkpoint's."""
        super().on_validation_epoch_start(trainer, pl_module)
        self.swapped = True
        if self.world_size > 1:
            for buffer in pl_module.buffers():
                torch.distributed.broadcast(buffer, 0)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self.swapped = False

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A checkpoint within a validation (boundary.py) is of the weights as they were before
        it."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self.swapped:
            weights, average = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, weights

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Not the copying of the average over the weights: a last checkpoint may yet be written."""

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The test takes the average, which is the checkpoint's `state_dict`, as it is."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
