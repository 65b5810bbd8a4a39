"""What no checkpoint will hold is named at the start."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy
import pytorch_lightning as pl
import torch
from torchmetrics import MeanMetric

from dora_train.engine.run.unkept import SayUnkept


class Net(pl.LightningModule):
    def __init__(self, **attributes: Any):
        super().__init__()
        self.net = torch.nn.Linear(2, 2)
        self.mean = MeanMetric()
        for name, value in attributes.items():
            setattr(self, name, value)


class Saving(Net):
    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["rng"] = 1


class Counting(pl.Callback):
    def __init__(self, **attributes: Any):
        vars(self).update(attributes)


class Keeping(Counting):
    def state_dict(self) -> dict:
        return vars(self)


class Data(pl.LightningDataModule):
    def __init__(self, **attributes: Any):
        super().__init__()
        vars(self).update(attributes)


def said(module: Any, *callbacks: Any, data: Any = None, optimizers: Any = ()) -> list[str]:
    lines: list[str] = []
    trainer: Any = SimpleNamespace(callbacks=callbacks, datamodule=data, optimizers=optimizers)
    SayUnkept(lines.append).on_train_start(trainer, module)
    return lines


def test_nothing_is_said_of_what_a_checkpoint_holds():
    module = Net()
    module.second = optimizer = torch.optim.SGD(module.parameters(), 0.1)
    rng = random.Random(0)
    assert (
        said(module, Keeping(rng=rng, mean=MeanMetric()), data=Data(), optimizers=[optimizer]) == []
    )
    assert said(Saving(rng=rng)) == [] and said(Net(), Counting(count=3)) == []


def test_each_kind_is_named():
    net = torch.nn.Linear(2, 2)
    module = Net(second=torch.optim.SGD(net.parameters(), 0.1), rng=torch.Generator())
    [line] = said(module)
    assert "the optimizer Net.second, which configure_optimizers does not return" in line
    assert "the generator Net.rng" in line and "docs/exactness.md" in line
    callbacks = Counting(rng=numpy.random.default_rng(0)), Counting(mean=MeanMetric())
    [line] = said(Net(), *callbacks, data=Data(rng=random.Random(0)))
    for words in ("generator Data.rng", "generator Counting.rng", "metric Counting.mean"):
        assert f"the {words}" in line
