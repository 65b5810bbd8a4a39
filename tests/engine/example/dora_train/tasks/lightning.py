"""A LightningModule and a LightningDataModule as in Lightning's manual: `dora run task=lightning`.

Only `parts` is written for this project. To use your own module, copy this file.
"""

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy


class DigitsDataModule(pl.LightningDataModule):
    def __init__(self, batch_size=64, num_workers=0):
        super().__init__()
        self.save_hyperparameters(logger=False)

    def setup(self, stage=None):
        digits = load_digits()
        images, labels = torch.tensor(digits.images).float() / 16, torch.tensor(digits.target)
        seed = torch.Generator().manual_seed(42)
        parts = random_split(TensorDataset(images, labels), [1197, 300, 300], seed)
        self.data_train, self.data_val, self.data_test = parts

    def _loader(self, dataset, shuffle=False):
        return DataLoader(dataset, shuffle=shuffle, **self.hparams)

    def train_dataloader(self):
        return self._loader(self.data_train, True)

    def val_dataloader(self):
        return self._loader(self.data_val)

    def test_dataloader(self):
        return self._loader(self.data_test)


class DigitsLitModule(pl.LightningModule):
    def __init__(self, net, lr, weight_decay):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["net"])
        self.net = net
        self.train_acc, self.val_acc = MulticlassAccuracy(10), MulticlassAccuracy(10)
        self.test_acc, self.val_acc_best = MulticlassAccuracy(10), MaxMetric()
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()

    def on_train_start(self):
        self.val_loss.reset()
        self.val_acc.reset()
        self.val_acc_best.reset()

    def step(self, batch, split):
        x, y = batch
        logits = self.net(x)
        loss = nn.functional.cross_entropy(logits, y)
        losses, accuracy = getattr(self, f"{split}_loss"), getattr(self, f"{split}_acc")
        losses(loss)
        accuracy(logits.argmax(1), y)
        self.log(f"{split}/loss", losses, on_step=False, on_epoch=True, prog_bar=True)
        self.log(f"{split}/acc", accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def on_validation_epoch_end(self):
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def test_step(self, batch, batch_idx):
        self.step(batch, "test")

    def configure_optimizers(self):
        how = self.hparams
        optimizer = torch.optim.Adam(self.parameters(), how.lr, weight_decay=how.weight_decay)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
        plateau = {"scheduler": scheduler, "monitor": "val/loss"}
        return {"optimizer": optimizer, "lr_scheduler": plateau}


def parts(cfg):
    width = cfg.model_args.width
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    data = DigitsDataModule(cfg.data.batch_size, cfg.data.num_workers)
    return DigitsLitModule(net, **cfg.optim), data
