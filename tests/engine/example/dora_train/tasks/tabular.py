"""Regression on a table: how scikit-learn's 442 diabetes patients fared after a year.

`dora run task=tabular`. It is measured by the mean absolute error.
"""

import csv
import io
from pathlib import Path

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

PARTS = {"train": slice(0, 300), "valid": slice(300, 370), "test": slice(370, None)}


class Table:
    """Ten measures of each patient, and the target: [n, 10] and [n] float32, in a fixed order."""

    def __init__(self, batch_size: int):
        self.names = load_diabetes().feature_names
        features, target = load_diabetes(return_X_y=True)
        order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
        x, y = torch.tensor(features).float()[order], torch.tensor(target).float()[order]
        self.x, self.y = x[PARTS["train"]], y[PARTS["train"]]
        for part, rows in PARTS.items():
            patients = TensorDataset(x[rows], y[rows])
            setattr(self, part, DataLoader(patients, batch_size, shuffle=part == "train"))


class Regression(pl.LightningModule):
    """A network from [B, features] to [B], in the units of the target."""

    def __init__(self, data: Table, width: int, dropout: float, lr: float, weight_decay: float):
        super().__init__()
        self.lr, self.weight_decay = lr, weight_decay
        features = data.x.shape[1]
        self.network = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1)
        )
        for name, of in (("x", data.x), ("y", data.y)):
            self.register_buffer(f"{name}_mean", of.mean(0))
            self.register_buffer(f"{name}_std", of.std(0))

    def forward(self, x: Tensor) -> Tensor:
        found = self.network((x - self.x_mean) / self.x_std).squeeze(1)
        return found * self.y_std + self.y_mean

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        found = self.validation_step(batch, batch_idx)
        return {**found, "loss": found["loss"].mean()}

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        x, y = batch
        error = self(x) - y
        return {"loss": (error / self.y_std).square(), "mae": error.abs()}

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), self.lr, weight_decay=self.weight_decay)


def parts(cfg):
    data = Table(cfg.data.batch_size)
    return Regression(data, **cfg.model_args, **cfg.optim), data


@torch.inference_mode()
def predict(module: Regression, data: Table, words: list[str]) -> str:
    """WORDS are CSV files with the columns of the data: each row comes back with a prediction.

    Raises:
        ValueError: a column is missing, or a cell holds no number.
    """
    out = io.StringIO()
    for path in words:
        rows = list(csv.DictReader(Path(path).read_text("utf-8").splitlines(), restval=""))
        if not rows:
            raise ValueError(f"{path} has no rows.")
        missing = [name for name in data.names if name not in rows[0]]
        if missing:
            raise ValueError(f"there is no column {missing[0]}; it needs {', '.join(data.names)}.")
        values = module(torch.tensor([[float(row[name]) for name in data.names] for row in rows]))
        table = csv.DictWriter(out, [*rows[0], "prediction"], lineterminator="\n")
        table.writeheader()
        table.writerows({**row, "prediction": f"{v:.1f}"} for row, v in zip(rows, values.tolist()))
    return out.getvalue()
