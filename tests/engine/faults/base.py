"""A small module and its data, exact as they are. Each file beside this one plants a fault."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Points(Dataset):
    def __init__(self, size=120):
        self.x = torch.randn(size, 8, generator=torch.Generator().manual_seed(size))
        self.y = (self.x.sum(1) > 0).long()

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class Data(pl.LightningDataModule):
    def __init__(self, cfg, train=None):
        super().__init__()
        self.cfg, self.train = cfg, train or Points()

    def _loader(self, dataset, shuffle):
        workers = self.cfg.data.num_workers
        return DataLoader(dataset, 16, shuffle=shuffle, num_workers=workers)

    def train_dataloader(self):
        return self._loader(self.train, True)

    def val_dataloader(self):
        return self._loader(Points(61), False)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def parts(cfg):
    return Net(), Data(cfg)
