"""Looks for what no checkpoint holds: the likely causes if a killed run ends with other bits.

It looks at all objects of the researcher's own classes, at their functions' closures, and at the
globals of their modules. trace.py writes down what it finds, and `dora_train.check` names it.
"""

import gc
import random
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy
import pytorch_lightning as pl
import torch
from torch.optim import Optimizer

ROOT = Path(__file__).resolve().parents[3]
ENGINE = Path(__file__).resolve().parents[1]
GENERATORS = (random.Random, numpy.random.Generator, numpy.random.RandomState, torch.Generator)
PLAIN = (bool, int, float, str)
GROWS = (list, dict, set)
# Lightning's own attributes of a researcher's object.
LIGHTNINGS = {*vars(pl.LightningModule()), *vars(pl.LightningDataModule())}
LIGHTNINGS |= {"_hparams", "_hparams_initial", "_hparams_name"}  # of save_hyperparameters


class Suspects:
    """The researcher's objects, when the training begins and when it ends."""

    def __init__(self) -> None:
        self.before: dict[str, list[str]] = {}

    def begin(self) -> None:
        """Note the values that the objects have now."""
        self.before = _values()

    def found(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, list[str]]:
        """The names of what no checkpoint holds, by its kind."""
        held = set(module.state_dict())
        known = set(map(id, trainer.optimizers))
        optimizers, generators = [], []
        for name, value in _attributes():
            if isinstance(value, Optimizer) and id(value) not in known:
                optimizers.append(name)
            elif isinstance(value, GENERATORS):
                generators.append(name)
        return {
            "buffer": [name for name, _ in module.named_buffers() if name not in held],
            "optimizer": sorted(set(optimizers)),
            "generator": sorted(set(generators)),
            "schedule": [type(one.scheduler).__name__ for one in trainer.lr_scheduler_configs],
            "state": [name for name, found in _values().items() if self.before.get(name) != found],
        }


def _values() -> dict[str, list[str]]:
    """The plain values and the sizes of what can grow, by name. Several objects may share one."""
    found: dict[str, list[str]] = {}
    for name, value in _attributes():
        if isinstance(value, PLAIN):
            found.setdefault(name, []).append(str(value))
        elif isinstance(value, GROWS):
            found.setdefault(name, []).append(f"{len(value)} entries")
    return {name: sorted(values) for name, values in found.items()}


def _attributes() -> Iterator[tuple[str, Any]]:
    """The attributes of the researcher's objects: `Noisy.rng`. Those of private names, too."""
    for one in gc.get_objects():
        kind = type(one)  # not isinstance: it asks an object for its class, and some then warn
        if kind is ModuleType:
            if is_own(one.__name__):
                for name, value in list(vars(one).items()):
                    yield f"{one.__name__}.{name}", value
        elif kind is FunctionType:
            if one.__closure__ and is_own(one.__module__):
                yield from _closure(one)
        elif is_own(kind.__module__):
            for name, value in list(getattr(one, "__dict__", {}).items()):
                if name not in LIGHTNINGS:
                    yield f"{kind.__name__}.{name}", value


def _closure(function: FunctionType) -> Iterator[tuple[str, Any]]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            yield f"{function.__qualname__}: {name}", cell.cell_contents
        except ValueError:  # it is not set yet
            continue


@lru_cache(maxsize=10_000)
def is_own(module: str) -> bool:
    """Whether a module is the researcher's."""
    file = getattr(sys.modules.get(str(module)), "__file__", None)
    if not file:
        return False
    path = Path(file)
    is_installed = "site-packages" in path.parts  # an environment may lie in the project
    return path.is_relative_to(ROOT) and not path.is_relative_to(ENGINE) and not is_installed
