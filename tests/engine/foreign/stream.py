"""Next-token training on a stream: an IterableDataset without a length, by steps, a schedule per
step, two validation loaders, batches that begin with strings. Copied by ports.py.
"""

import random

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class Text(IterableDataset):
    def __init__(self, size):
        self.size = size

    def __iter__(self):
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for number in range(first, self.size, step):
            start = random.randrange(50)
            tokens = (torch.arange(9) * (1 + number % 3) + start) % 20
            yield {"name": f"text {number}", "tokens": tokens}


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.rnn = nn.GRU(16, 16, batch_first=True, dropout=0.0)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16, 20))

    def loss(self, batch):
        tokens = batch["tokens"]
        logits = self.head(self.rnn(self.embed(tokens[:, :-1]))[0])
        return nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:])

    def training_step(self, batch, batch_idx):
        return {"loss": self.loss(batch)}

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def configure_callbacks(self):
        return [Counts()]


class Counts(Callback):
    """Logs a number that it remembers."""

    def __init__(self):
        self.seen = 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen += len(batch["name"])
        self.log("seen", float(self.seen), reduce_fx="max", on_step=False, on_epoch=True)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state_dict):
        self.seen = state_dict["seen"]


class Data:
    def __init__(self, workers):
        self.train = DataLoader(Text(130), batch_size=10, num_workers=workers)
        self.valid = [DataLoader(Text(20), batch_size=8), DataLoader(Text(30), batch_size=8)]


def parts(cfg):
    return Model(), Data(cfg.data.num_workers)
