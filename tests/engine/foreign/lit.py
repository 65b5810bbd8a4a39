"""A LightningModule and a LightningDataModule as everybody writes them: nothing of this project.

Copied into a project by ports.py. As in the well-known template (ashleve's): torchmetrics
objects, MaxMetric, save_hyperparameters with a network and a partial, ReduceLROnPlateau, a loader
that shuffles, a transform that draws.
"""

import functools
import random

import numpy
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy


class Noisy(Dataset):
    """Two classes of points; each reading draws from three generators."""

    def __init__(self, size, noisy):
        generator = torch.Generator().manual_seed(size)
        self.x = torch.randn(size, 8, generator=generator)
        self.y = (self.x.sum(1) > 0).long()
        self.noisy = noisy

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        x = self.x[index]
        if self.noisy:
            x = x + 0.1 * torch.randn(8) + 0.1 * float(numpy.random.randn()) + random.gauss(0, 0.1)
        return {"name": f"sample {index}", "x": x, "y": self.y[index]}


class LitData(pl.LightningDataModule):
    def __init__(self, batch_size=16, num_workers=0):
        super().__init__()
        self.save_hyperparameters(logger=False)

    def setup(self, stage=None):
        self.parts = [Noisy(203, True), Noisy(61, False), Noisy(77, False)]

    def _loader(self, part, **how):
        workers = self.hparams.num_workers
        return DataLoader(
            part,
            self.hparams.batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            **how,
        )

    def train_dataloader(self):
        return self._loader(self.parts[0], shuffle=True)

    def val_dataloader(self):
        return self._loader(self.parts[1])

    def test_dataloader(self):
        return self._loader(self.parts[2])


class Lit(pl.LightningModule):
    def __init__(self, net, optimizer, scheduler):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = net
        self.criterion = nn.CrossEntropyLoss()
        self.train_acc = MulticlassAccuracy(2)
        self.val_acc = MulticlassAccuracy(2)
        self.test_acc = MulticlassAccuracy(2)
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()
        self.val_acc_best = MaxMetric()

    def on_train_start(self):
        self.val_loss.reset()
        self.val_acc.reset()
        self.val_acc_best.reset()

    def model_step(self, batch):
        logits = self.net(batch["x"])
        return self.criterion(logits, batch["y"]), logits.argmax(1), batch["y"]

    def training_step(self, batch, batch_idx):
        loss, preds, targets = self.model_step(batch)
        self.train_loss(loss)
        self.train_acc(preds, targets)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train_margin", loss.sqrt(), on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, preds, targets = self.model_step(batch)
        self.val_loss(loss)
        self.val_acc(preds, targets)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_train_epoch_end(self):
        self.log("drawn", torch.rand(()))

    def on_validation_epoch_end(self):
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def test_step(self, batch, batch_idx):
        loss, preds, targets = self.model_step(batch)
        self.test_loss(loss)
        self.test_acc(preds, targets)
        self.log("test/loss", self.test_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("test/acc", self.test_acc, on_step=False, on_epoch=True, prog_bar=True)

    def configure_optimizers(self):
        optimizer = self.hparams.optimizer(params=self.parameters())
        scheduler = self.hparams.scheduler(optimizer=optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss", "interval": "epoch"},
        }


def parts(cfg):
    """The module and the data, as a `main` instantiates them."""
    net = nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)
    )
    module = Lit(
        net,
        functools.partial(torch.optim.Adam, lr=cfg.optim.lr),
        functools.partial(
            torch.optim.lr_scheduler.ReduceLROnPlateau, mode="min", factor=0.1, patience=0
        ),
    )
    return module, LitData(num_workers=cfg.data.num_workers)
