"""The LightningModule: what a step computes, and how the weights move.

A step returns a dict: `loss`, and any metric as a number (its mean over the batch) or as one value a sample. The
engine averages them over the epoch and all ranks, and writes them to history, TensorBoard and CSV. To add a metric,
return one more; to change the loss, edit `loss`.
"""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]  # images [B, 3, H, W] float32, labels [B] int64


class Classifier(pl.LightningModule):
    """Trains `model` to tell classes apart.

    Args:
        model: from images [B, 3, H, W] float32 to logits [B, classes].
        optim: name (sgd, adam, adamw), lr, momentum, weight_decay.
        schedule: name (none, cosine), warmup_epochs.
        steps_per_epoch: optimizer steps, for the length of the warm-up.
    """

    def __init__(self, model: nn.Module, optim: Any, schedule: Any, steps_per_epoch: int):
        super().__init__()
        self.model = model
        self.optim, self.schedule, self.steps_per_epoch = dict(optim), dict(schedule), steps_per_epoch

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B] float32: the loss of each sample."""
        return F.cross_entropy(logits, labels, reduction="none")

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        logits = self(images)
        return {"loss": self.loss(logits, labels).mean(), "acc": logits.argmax(1) == labels}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        logits = self(images)
        return {"loss": self.loss(logits, labels), "acc": logits.argmax(1) == labels}

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.parameters(), **self.optim)
        if self.schedule["name"] == "none" and not self.schedule["warmup_epochs"]:
            return optimizer
        factor = Schedule(self.schedule["name"], self.schedule["warmup_epochs"] * self.steps_per_epoch,
                          self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def check_training(optim: Any, schedule: Any, trainer: Any) -> None:
    """Whether there is such an optimizer and such a schedule, before anything is trained.

    Raises:
        ValueError: there is not; the message says what there is.
    """
    build_optimizer([nn.Parameter(torch.zeros(1))], **optim)
    endless = trainer["max_epochs"] in (None, -1) and trainer["max_steps"] == -1
    Schedule(schedule["name"], 0, math.inf if endless else 1)


def build_optimizer(parameters: Any, name: str, lr: float, momentum: float,
                    weight_decay: float) -> torch.optim.Optimizer:
    """Raises: ValueError for an unknown name."""
    if name == "sgd":
        return torch.optim.SGD(parameters, lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0)
    if name == "adam":
        return torch.optim.Adam(parameters, lr, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=weight_decay)
    raise ValueError(f'unknown optim.name "{name}": sgd, adam or adamw.')


class Schedule:
    """The factor on the peak learning rate at a step: linear from 0 over the warm-up, then by `name`.

    A pure function of the step, so that a resumed run needs nothing but its number.

    Raises:
        ValueError: an unknown name, or a cosine without an end.
    """

    def __init__(self, name: str, warmup_steps: float, total_steps: float):
        if name not in ("none", "cosine"):
            raise ValueError(f'unknown schedule.name "{name}": none or cosine.')
        if name == "cosine" and not math.isfinite(total_steps):
            raise ValueError("schedule.name=cosine needs an end: give trainer.max_epochs or trainer.max_steps.")
        self.name, self.warmup_steps, self.total_steps = name, warmup_steps, total_steps

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.name == "none":
            return 1.0
        done = (step - self.warmup_steps) / max(1.0, self.total_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))  # SGDR without restarts: arXiv 1608.03983
