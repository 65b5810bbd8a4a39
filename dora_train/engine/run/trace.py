"""Writes what a run holds at each step, for `python -m dora_train.check`.

Rank 0 writes it if `DORA_TRAIN_TRACE` names a file of orders (arms.py). It has one record for each
batch, before the batch is trained, and one for the end. A tensor is stored as a hash of its bits.
"""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch.optim import Optimizer

from .arms import END
from .draws import draw_once
from .suspects import Suspects


class Trace(Checkpoint):
    """Writes the records of one attempt, and kills the run where its orders say so.

    Args:
        orders: a file with the content of `arms.Orders`.
        rank: of this process.
    """

    def __init__(self, orders: Path, rank: int):
        content = json.loads(orders.read_text())
        # The buffers of other ranks may differ within an epoch: those of rank 0 count.
        self.path = Path(content["trace"]) if rank == 0 else None
        self.kill: list[int] | None = content["kill"]  # [epoch, batch], both from 0
        self.draws: bool = content["draws"]
        self.suspects = Suspects()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.suspects.begin()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        place = [trainer.current_epoch, batch_idx]
        # A run that is killed is to have written where it was.
        self._write({"place": place, "tensors": dict(_tensors(trainer, module))})
        if place == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()

    def on_train_batch_end(self, *args: object) -> None:
        if self.draws:
            draw_once()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        tensors, suspects = dict(_tensors(trainer, module)), self.suspects.found(trainer, module)
        self._write({"place": END, "tensors": tensors, "suspects": suspects})

    def _write(self, record: dict[str, Any]) -> None:
        if self.path is None:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


# --- what a run holds ---


def _tensors(trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[tuple[str, str]]:
    """(name, hash) of the weights, the buffers, and what the optimizers and schedules hold."""
    for name, parameter in module.named_parameters():
        yield f"weights {name}", _hash(parameter)
    for name, buffer in module.named_buffers():
        yield f"buffer {name}", _hash(buffer)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for number, optimizer in enumerate(trainer.optimizers):
        yield from _of_optimizer(f"optimizer {number}", optimizer, names)
    for number, config in enumerate(trainer.lr_scheduler_configs):
        for key, value in config.scheduler.state_dict().items():
            if isinstance(value, (int, float, str, list)):
                yield f"schedule {number} {key}", str(value)


def _of_optimizer(
    title: str, optimizer: Optimizer, names: dict[int, str]
) -> Iterator[tuple[str, str]]:
    for group in optimizer.param_groups:
        yield f"{title} lr", str(group["lr"])
    for parameter, state in optimizer.state.items():
        name = names.get(id(parameter), "a tensor that is in no module")
        for key, value in state.items():
            yield f"{title} {key} of {name}", _hash(value)


def _hash(value: object) -> str:
    """A hash of the bits of a tensor. The text of everything else."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return str(value)
    bits = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    kind = f"{value.dtype} {tuple(value.shape)}".encode()
    return hashlib.blake2b(bits.tobytes() + kind, digest_size=8).hexdigest()
