"""How the weights move: the optimizer by its name, and the learning rate's schedule as a function
of the step.

Torch only, so that `basic/` uses the same as the LightningModule, and a check of the configuration
needs no Lightning.
"""

import difflib
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch

OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = (
    "32-true",
    "16-mixed",
    "bf16-mixed",
    "16-true",
    "bf16-true",
    "64-true",
    "transformer-engine",
    # as Lightning 2.6.6 takes them
    "transformer-engine-float16",
    "64",
    "32",
    "16",
    "bf16",
)
SCHEDULES = ("none", "cosine", "onecycle", "plateau")


def check_training(optim: Any, schedule: Any, trainer: Any, loss: Any = None) -> None:
    """Whether there is such an optimizer and such a schedule, before anything is trained.

    Raises:
        ValueError: there is not; the message says what there is.
    """
    for name, block in (("optim", optim), ("schedule", schedule), ("trainer", trainer)):
        if not block:
            raise ValueError(f"{name}=null: its settings are needed.")
    check_optimizer(**optim)
    endless = trainer.get("max_epochs") in (None, -1) and trainer.get("max_steps", -1) == -1
    check_schedule(**{"warmup_epochs": 0.0, **schedule}, endless=endless)
    precision = str(trainer.get("precision") or PRECISIONS[0])
    if precision not in PRECISIONS:
        close = difflib.get_close_matches(precision, PRECISIONS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"{', '.join(PRECISIONS[:5])} ..."
        raise ValueError(f'unknown trainer.precision "{precision}": {hint}')
    smoothing = (loss or {}).get("label_smoothing", 0)
    _check_number("loss.label_smoothing", smoothing)
    if not 0 <= smoothing < 1:
        raise ValueError(f"loss.label_smoothing={smoothing}: it takes 0 or more, and less than 1.")


def check_optimizer(name: str, **numbers: float) -> None:
    """Whether `build_optimizer` takes this.

    None is made: torch 2.14 then imports torch._dynamo, which takes seconds.

    Raises:
        ValueError: an unknown name or key, or a number that is negative or infinite.
    """
    if name not in OPTIMIZERS:
        raise ValueError(
            f'unknown optim.name "{name}": {", ".join(OPTIMIZERS[:-1])} or {OPTIMIZERS[-1]}.'
        )
    keys = list(inspect.signature(build_optimizer).parameters)[1:]
    for key, value in numbers.items():
        if key not in keys:
            raise ValueError(f"optim.{key}: there is no such key. optim has: {', '.join(keys)}.")
        _check_amount(f"optim.{key}", value)


def check_schedule(endless: bool = False, **settings: Any) -> None:
    """Whether `Schedule` takes these settings.

    Args:
        endless: the run has no last step that is known.

    Raises:
        ValueError: an unknown name or key, a curve without an end, or numbers that make no sense.
    """
    known = list(inspect.signature(Schedule).parameters)
    keys = [key for key in known if key not in ("steps_per_epoch", "total_steps")]
    for key, value in settings.items():
        if key not in keys:
            raise ValueError(
                f"schedule.{key}: there is no such key. schedule has: {', '.join(keys)}."
            )
        if key != "name":
            _check_number(f"schedule.{key}", value)
    Schedule(**settings, steps_per_epoch=1, total_steps=math.inf if endless else 1)


def _check_number(key: str, value: Any) -> None:
    if not isinstance(value, (int, float)):  # a comma in the file: 0,1
        raise ValueError(f"{key}={value}: it takes a number.")


def _check_amount(key: str, value: float) -> None:
    _check_number(key, value)
    if not value >= 0:
        raise ValueError(f"{key}={value}: it takes 0 or more.")
    if math.isinf(value):
        raise ValueError(f"{key}={value}: it takes a finite number.")


def build_optimizer(
    parameters: Any, name: str, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Raises: ValueError for an unknown name."""
    if name == "sgd":
        return torch.optim.SGD(
            parameters, lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0
        )
    if name == "adam":
        return torch.optim.Adam(parameters, lr, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=weight_decay)
    raise ValueError(f'unknown optim.name "{name}".')


class Schedule:
    """The factor on the peak learning rate: a linear warm-up from 0 (onecycle: its own), then by
    `name`.

    A pure function of the step and of the past validations, so that a resumed run needs no state of
    it.

    Args:
        name: one of `SCHEDULES`.
        warmup_epochs: until the peak; fractions count.
        steps_per_epoch: optimizer steps.
        total_steps: of the whole run, warm-up included; may be infinite.
        patience, factor: of plateau: validations without a better metric before each cut, and what
            a cut multiplies by.

    Raises:
        ValueError: an unknown name, a curve without an end, or numbers that make no sense.
    """

    def __init__(
        self,
        name: str,
        warmup_epochs: float,
        steps_per_epoch: int,
        total_steps: float,
        patience: int = 5,
        factor: float = 0.1,
    ):
        if name not in SCHEDULES:
            raise ValueError(
                f'unknown schedule.name "{name}": {", ".join(SCHEDULES[:-1])} or {SCHEDULES[-1]}.'
            )
        if name in ("cosine", "onecycle") and not math.isfinite(total_steps):
            raise ValueError(
                f"schedule.name={name} needs an end: give trainer.max_epochs or trainer.max_steps."
            )
        _check_amount("schedule.warmup_epochs", warmup_epochs)
        if patience < 0 or not 0 < factor < 1:
            raise ValueError(
                f"schedule.patience={patience}, schedule.factor={factor}: they take 0 or more epochs, "
                "and a factor between 0 and 1."
            )
        self.name, self.total_steps, self.patience, self.factor = (
            name,
            total_steps,
            patience,
            factor,
        )
        self.warmup_steps = warmup_epochs * steps_per_epoch

    def __call__(self, step: int, metric: Sequence[float] = ()) -> float:
        """The factor at a step; `metric` has one value a past validation, as `monitored` gives
        it."""
        if self.name == "onecycle":
            return self._onecycle(step)
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.name == "cosine":
            done = (step - self.warmup_steps) / max(1.0, self.total_steps - self.warmup_steps)
            return _cosine(1.0, 0.0, done)  # SGDR without restarts: arXiv 1608.03983
        return self.factor ** cuts(metric, self.patience) if self.name == "plateau" else 1.0

    def _onecycle(self, step: int) -> float:
        """From 1/25 to the peak in the warm-up, then down to 1/250,000: torch's OneCycleLR (arXiv
        1708.07120)."""
        if step < self.warmup_steps:
            return _cosine(1 / 25, 1.0, step / self.warmup_steps)
        return _cosine(
            1.0,
            4e-6,
            (step - self.warmup_steps) / max(1.0, self.total_steps - 1 - self.warmup_steps),
        )


def _cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


# --- what the past epochs say: functions of the history, so that neither a plateau nor an early end
# needs a state ---


def cuts(metric: Sequence[float], patience: int) -> int:
    """How often `metric` stood still for more than `patience` values.

    As torch's ReduceLROnPlateau with a threshold of 0.
    """
    best, bad, found = -math.inf, 0, 0
    for value in metric:
        bad = 0 if value > best else bad + 1
        best = max(best, value) if value == value else best
        if bad > patience:
            found, bad = found + 1, 0
    return found
