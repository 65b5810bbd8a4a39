"""Regression with what else loaders and Lightning offer: a weighted sampler, a batch sampler of
one's own, Lightning's EarlyStopping on a training metric, OneCycle. Copied by ports.py.
"""

import random

import numpy
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler


class InTurns:
    """A batch sampler of one's own: it draws while it is read, and its batches differ in size."""

    def __init__(self, size):
        self.size = size

    def __iter__(self):
        left = list(range(self.size))
        for turn in range(len(self)):
            number = 3 + random.randrange(2) if turn < len(self) - 1 else len(left)
            yield [left.pop(int(numpy.random.randint(len(left)))) for _ in range(number)]

    def __len__(self):
        return self.size // 5


class Regression(pl.LightningModule):
    def __init__(self, steps):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1))
        self.steps = steps

    def step(self, batch, name):
        x, y = batch
        error = (self.net(x)[:, 0] - y).abs()
        self.log(f"{name}/mae", error.mean(), on_step=False, on_epoch=True)
        return (error**2).mean()

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def test_step(self, batch, batch_idx):
        self.step(batch, "test")

    def configure_callbacks(self):
        return [EarlyStopping("train/mae", patience=3, check_on_train_epoch_end=True)]

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=self.steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Data:
    def __init__(self, workers, kind):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(120, 5, generator=generator)
        data = TensorDataset(x, x.sum(1).sin())
        if kind == "weighted":
            sampler = WeightedRandomSampler(x[:, 0].exp(), 90)
            self.train = DataLoader(data, 8, sampler=sampler, drop_last=True, num_workers=workers)
        else:
            self.train = DataLoader(data, batch_sampler=InTurns(50), num_workers=workers)
        self.valid = DataLoader(data, 32)
        self.test = [(x[:40], x[:40].sum(1).sin()), (x[40:50], x[40:50].sum(1).sin())]


def parts(cfg):
    return Regression(200), Data(cfg.data.num_workers, cfg.tag)
