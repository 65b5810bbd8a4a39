"""How the weights move: the optimizer by its name, and the learning rate's schedule as a function of the step.

Torch only, so that `basic/` uses the same as the LightningModule, and a check of the configuration needs no Lightning.
"""

import math
from typing import Any

import torch
from torch import nn


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
