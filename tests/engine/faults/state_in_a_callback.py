"""A callback counts batches, and freezes the network for each third one."""

import pytorch_lightning as pl

from .base import Data, Net


class Thirds(pl.Callback):
    def __init__(self):
        self.batches = 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches += 1
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 0.0 if self.batches % 3 == 0 else 0.1


class WithThirds(Net):
    def configure_callbacks(self):
        return [Thirds()]


def parts(cfg):
    return WithThirds(), Data(cfg)
