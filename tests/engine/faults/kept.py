"""No fault: what Lightning users keep is in the checkpoint, also within an epoch."""

import pytorch_lightning as pl
from torchmetrics import MaxMetric, MeanMetric

from .base import Data, Net


class Thirds(pl.Callback):
    """As in state_in_a_callback.py, but with a `state_dict`."""

    def __init__(self):
        self.batches = 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches += 1
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 0.0 if self.batches % 3 == 0 else 0.1

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state):
        self.batches = state["batches"]


class Logging(Net):
    def __init__(self):
        super().__init__()
        self.mean, self.highest = MeanMetric(), MaxMetric()

    def configure_callbacks(self):
        return [Thirds()]

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.mean(loss)
        self.highest(loss)
        self.log("train/plain", loss.sqrt(), on_step=True, on_epoch=True)
        self.log("train/largest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.log("train/mean", self.mean, on_step=False, on_epoch=True)
        self.log("train/highest", self.highest, on_step=False, on_epoch=True)
        return loss


def parts(cfg):
    return Logging(), Data(cfg)
