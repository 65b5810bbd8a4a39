"""The optimizer by its name, and the schedule of the learning rate as a function of the step.

It needs torch only. So `basic/` uses the same code as the LightningModule, and the configuration is
checked without an import of Lightning.
"""

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from .muon import Muon

OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
# as Lightning 2.6.6 takes them
PRECISIONS = (
    "32-true",
    "16-mixed",
    "bf16-mixed",
    "16-true",
    "bf16-true",
    "64-true",
    "transformer-engine",
    "transformer-engine-float16",
    "64",
    "32",
    "16",
    "bf16",
)
SCHEDULES = ("none", "cosine", "onecycle", "plateau")
Block = Mapping[str, Any] | None  # a block of the configuration, or null


def check_training(optim: Block, schedule: Block, trainer: Block, loss: Block = None) -> None:
    """Check the settings of a training before anything is trained.

    Raises:
        ValueError: an unknown name or key, or a number that makes no sense. The message says what
            is valid.
    """
    if not optim:
        raise _missing("optim")
    if not schedule:
        raise _missing("schedule")
    if not trainer:
        raise _missing("trainer")
    check_optimizer(**optim)
    # Without both limits the last step is not known. -1 stands for no limit.
    endless = trainer.get("max_epochs") in (None, -1) and trainer.get("max_steps", -1) == -1
    check_schedule(**{"warmup_epochs": 0.0, **schedule}, endless=endless)
    _check_precision(str(trainer.get("precision") or PRECISIONS[0]))
    smoothing = (loss or {}).get("label_smoothing", 0)
    _check_number("loss.label_smoothing", smoothing)
    if not 0 <= smoothing < 1:
        raise ValueError(f"loss.label_smoothing={smoothing}: it takes 0 or more, and less than 1.")


def _missing(block: str) -> ValueError:
    return ValueError(f"{block}=null: its settings are needed.")


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        close = difflib.get_close_matches(precision, PRECISIONS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"{', '.join(PRECISIONS[:5])} ..."
        raise ValueError(f'unknown trainer.precision "{precision}": {hint}')


def check_optimizer(name: str, **numbers: float) -> None:
    """Check that `build_optimizer` takes these settings.

    No optimizer is made for that: torch 2.14 would import torch._dynamo, which takes seconds.

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
    """Check that `Schedule` takes these settings.

    Args:
        endless: whether the last step of the run is unknown.

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
        if key != "name":  # the other settings are numbers
            _check_number(f"schedule.{key}", value)
    total_steps = math.inf if endless else 1
    Schedule(**settings, steps_per_epoch=1, total_steps=total_steps)


def _check_number(key: str, value: object) -> None:
    if not isinstance(value, (int, float)):  # e.g. a text, if 0,1 is written for 0.1
        raise ValueError(f"{key}={value}: it takes a number.")


def _check_amount(key: str, value: float) -> None:
    _check_number(key, value)
    if not value >= 0:
        raise ValueError(f"{key}={value}: it takes 0 or more.")
    if math.isinf(value):
        raise ValueError(f"{key}={value}: it takes a finite number.")


def build_optimizer(
    parameters: Iterable[torch.nn.Parameter],
    name: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    matrix_lr: float = 0.02,
) -> torch.optim.Optimizer:
    """The optimizer `name`. Only sgd and muon have a momentum, and it is Nesterov's.

    Args:
        matrix_lr: of the matrices of muon, see muon.py. All else is trained by sgd with `lr`.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "sgd":
        # torch refuses Nesterov's momentum if the momentum is 0
        return torch.optim.SGD(
            parameters, lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0
        )
    if name == "adam":
        return torch.optim.Adam(parameters, lr, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=weight_decay)
    if name == "muon":
        return Muon(parameters, lr, matrix_lr, momentum, weight_decay)
    raise ValueError(f'unknown optim.name "{name}".')


class Schedule:
    """The factor on the peak learning rate: a linear warm-up from 0, then a curve by its name.

    Onecycle has a warm-up of its own form. The factor is a pure function of the step and of the
    past validations, so that a resumed run needs no stored state.

    Args:
        name: one of `SCHEDULES`.
        warmup_epochs: epochs until the peak, e.g. 0.5.
        steps_per_epoch: optimizer steps.
        total_steps: optimizer steps of the whole run, with the warm-up. May be infinite.
        patience: for plateau: validations without a better metric before the factor is cut.
        factor: for plateau: a cut multiplies by it.

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
        self.name, self.total_steps = name, total_steps
        self.patience, self.factor = patience, factor
        self.warmup_steps = warmup_epochs * steps_per_epoch

    def __call__(self, step: int, metric: Sequence[float] = ()) -> float:
        """The factor at a step.

        Args:
            metric: one value for each past validation, larger is better: see `monitored`.
        """
        if self.name == "onecycle":
            return self._onecycle(step)
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.name == "cosine":
            done = (step - self.warmup_steps) / max(1.0, self.total_steps - self.warmup_steps)
            return _cosine(1.0, 0.0, done)  # SGDR without restarts: arXiv 1608.03983
        if self.name == "plateau":
            return self.factor ** cuts(metric, self.patience)
        return 1.0

    def _onecycle(self, step: int) -> float:
        """From 1/25 to the peak in the warm-up, then down to 1/250,000.

        As torch's OneCycleLR (arXiv 1708.07120).
        """
        if step < self.warmup_steps:
            return _cosine(1 / 25, 1.0, step / self.warmup_steps)
        done = (step - self.warmup_steps) / max(1.0, self.total_steps - 1 - self.warmup_steps)
        return _cosine(1.0, 4e-6, done)


def _cosine(first: float, last: float, done: float) -> float:
    """The value of a half cosine from `first` to `last`. `done` is a share, 0 .. 1."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


# A function of the history, and no counter, so that a resumed run needs no stored state.


def cuts(metric: Sequence[float], patience: int) -> int:
    """How often more than `patience` values in a row were not better than the best one before.

    As torch's ReduceLROnPlateau with a threshold of 0. NaN is never better.
    """
    best, bad, found = -math.inf, 0, 0
    for value in metric:
        if value > best:
            best, bad = value, 0
        else:
            bad += 1
        if bad > patience:
            found, bad = found + 1, 0
    return found
