"""`ema.decay`: a running average of the weights. It is validated, and kept as `best.ckpt`.

Lightning's callback does the averaging, the swapping and the checkpoints. `last.ckpt` holds both
kinds of weights, under `current_model_state` and `state_dict`. This file adds what several ranks, a
GPU and an exact resume need.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AverageWeights(WeightAveraging):
    """Averages the weights after each optimizer step.

    It must stand before the callbacks that save: it takes in a step at the end of its batch.

    Args:
        decay: the share of itself that the average keeps at an optimizer step, between 0 and 1.
    """

    def __init__(self, decay: float, world_size: int):
        # The default of Lightning 2.6.6 goes tensor by tensor, which is slower.
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.world_size = world_size
        self.swapped = False  # within a validation, the module holds the average

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning 2.6.6 copies the module before it moves it: the copy would stay on the CPU.
        pl_module.to(trainer.strategy.root_device)
        super().setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the module, with the buffers of rank 0.

        Each rank averages its own running statistics of batch norm, and the checkpoint holds those
        of rank 0.
        """
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
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        # A checkpoint within a validation (boundary.py) describes the moment before it.
        if self.swapped:
            weights, average = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, weights

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing. Lightning would copy the average over the weights.

        But a last checkpoint may still be written, and it must hold both.
        """

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # The test takes the average as it is: it is the `state_dict` of the checkpoint.
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
