"""Checks whether a run can do what its configuration asks for, on this machine.

These checks need Lightning. `entering.enter` calls them before anything is written. The checks of
train.py, which need no Lightning, come earlier.
"""

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.environments import LightningEnvironment

from .. import environment
from ..config.keys import MAY_BE_NULL
from ..config.limits import check_values
from ..errors import UserError, near
from . import determinism
from .loggers import check_loggers


def check_run(cfg: DictConfig) -> None:
    """Refuse a configuration that this machine, or Lightning, cannot run.

    Raises:
        UserError: a value, a logger, the accelerator or a key of `trainer` cannot be had.
    """
    check_values(_plain(cfg))
    check_loggers(list(cfg.logger or []))
    # Outside a job, slurm.gpus says nothing about this machine.
    in_job = environment.this_job().token != ""
    check_accelerator(
        str(cfg.trainer.get("accelerator", "auto")),
        int(cfg.slurm.gpus) if in_job else None,
        bool(cfg.trainer.get("sync_batchnorm")),
    )
    if _on_mps(cfg):
        check_precision("mps", str(cfg.trainer.get("precision") or "32-true"))
    check_trainer(trainer_keywords(cfg))


def _on_mps(cfg: DictConfig) -> bool:
    """Whether Lightning will choose a Mac's GPU."""
    accelerator = str(cfg.trainer.get("accelerator", "auto"))
    if accelerator in ("auto", "gpu"):
        return torch.backends.mps.is_available() and not torch.cuda.is_available()
    return accelerator == "mps"


def trainer_keywords(cfg: DictConfig) -> dict[str, Any]:
    """Return `cfg.trainer` as keywords of Lightning's Trainer.

    A blank key is left out, so that it has Lightning's own default.
    """
    given = {
        key: value
        for key, value in _plain(cfg.trainer).items()
        if value is not None or f"trainer.{key}" in MAY_BE_NULL
    }
    return determinism.keywords(cfg, given)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def check_trainer(keywords: Mapping[str, Any]) -> None:
    """Refuse keywords that Lightning's Trainer does not take.

    Raises:
        UserError: a keyword is not Lightning's, or Lightning refuses its value.
    """
    known = [name for name in inspect.signature(pl.Trainer.__init__).parameters if name != "self"]
    for key in keywords:
        if key not in known:
            close = near(key, known)
            hint = f": did you mean {close[0]}?" if close else "."
            raise UserError(
                f'unknown key "trainer.{key}"{hint}',
                f"Lightning's Trainer takes: {', '.join(known[:14])} ...",
            )
    # To build one takes milliseconds, and starts nothing.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run's own trainer says it again
            pl.Trainer(
                **keywords,
                devices=1,
                plugins=[LightningEnvironment()],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
    # MisconfigurationException, ValueError, TypeError, ModuleNotFoundError: no common base class.
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"Lightning's Trainer refuses a value of trainer: {reason}") from error


def check_precision(device: str, precision: str) -> None:
    """Refuse a precision that the installed torch cannot compute in on a device.

    Some devices lack types, and torch then computes in float32 with no more than a warning. So a
    small product is tried.

    Raises:
        UserError: torch cannot compute in it.
    """
    name, _, kind = precision.partition("-")
    dtype = {"64": torch.float64, "16": torch.float16, "bf16": torch.bfloat16}.get(name)
    if dtype is None:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _compute(device, dtype, is_mixed=kind != "true")
    # RuntimeError, TypeError, a warning: it depends on the version and the type.
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(
            f"trainer.precision={precision}: torch {torch.__version__} cannot compute in it on "
            f"{device} ({reason}).",
            "take trainer.precision=32-true, or trainer.accelerator=cpu",
        ) from error


def _compute(device: str, dtype: torch.dtype, is_mixed: bool) -> None:
    """Do a step as Lightning does it in this precision.

    Raises:
        Exception: torch cannot do it.
    """
    if not is_mixed or dtype == torch.float64:
        torch.ones(2, 2, dtype=dtype, device=device).mm(
            torch.ones(2, 2, dtype=dtype, device=device)
        )
        return
    weight = torch.ones(2, 2, device=device, requires_grad=True)
    with torch.autocast(device, dtype):
        product = weight @ weight
    if product.dtype != dtype:
        raise TypeError(f"it computes in {product.dtype}")
    if dtype == torch.float16:
        scaler, optimizer = torch.amp.GradScaler(device), torch.optim.SGD([weight], lr=0.1)
        scaler.scale(product.float().sum()).backward()
        scaler.step(optimizer)
        scaler.update()


def check_batches(trainer: pl.Trainer, lengths: Mapping[str, int | None]) -> None:
    """Refuse limits in `cfg.trainer` that leave no batch of a set.

    Args:
        lengths: the batches of `train`, `valid` and `test`. None if unknown, or without such a set.

    Raises:
        UserError: a fraction leaves no batch, or no validation would ever begin.
    """
    for name, batches in zip(("train", "val", "test"), lengths.values()):
        limit = f"limit_{name}_batches"
        key = limit
        # Lightning takes it in place of the first two limits.
        overfits = trainer.overfit_batches > 0  # type: ignore[attr-defined]
        if overfits and name != "test":
            key = "overfit_batches"
        if batches is not None:
            _check_limit(key, getattr(trainer, limit), batches)
    if lengths["train"] is None:
        return
    left = counted(trainer.limit_train_batches, lengths["train"])
    interval = trainer.val_check_interval
    within_epochs = trainer.check_val_every_n_epoch is not None
    if within_epochs and isinstance(interval, int) and interval > left:
        raise UserError(
            f"trainer.val_check_interval={interval}: an epoch has {left} batches, so it would never validate.",
            f"give at most {left}, or a fraction of an epoch; to count on over the epochs: "
            "trainer.check_val_every_n_epoch=null",
        )


def _check_limit(key: str, limit: int | float, batches: int) -> None:
    """Refuse a fraction that leaves no batch.

    Raises:
        UserError: it leaves none.
    """
    # 0 asks for no batch at all, which Lightning 2.6.6 allows.
    if limit and batches and not counted(limit, batches):
        least = math.ceil(1000 / batches) / 1000
        raise UserError(
            f"trainer.{key}={limit}: that leaves no batch of {batches}.",
            f"give at least {least}, or a whole number of batches",
        )


def counted(limit: int | float, batches: int) -> int:
    """Return the number of batches that a limit leaves, as Lightning's loops count them.

    Args:
        limit: an int is a number of batches, a float is a share of them.
    """
    if isinstance(limit, int):
        return min(batches, limit)
    return int(batches * limit)


def check_accelerator(
    accelerator: str, gpus_of_job: int | None = None, sync_batchnorm: bool = False
) -> None:
    """Refuse a run that needs a GPU if torch sees none: nothing trains on the CPU in silence.

    Args:
        gpus_of_job: the GPUs that the job was given. None: it is not a job.

    Raises:
        UserError: there is no such device.
    """
    there = {
        "gpu": torch.cuda.is_available() or torch.backends.mps.is_available(),
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
        "auto": True,
    }
    if not there.get(accelerator, True):
        advice = "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or take trainer.accelerator=auto"
        if gpus_of_job == 0:
            advice = "a job gets the GPUs that it asks for: slurm.gpus=1"
        raise UserError(
            f"trainer.accelerator={accelerator}: torch sees no such device here.", advice
        )
    if sync_batchnorm and (accelerator == "cpu" or not torch.cuda.is_available()):
        raise UserError("trainer.sync_batchnorm=true: torch synchronises batch norm on GPUs only.")
    if gpus_of_job and accelerator != "cpu" and torch.cuda.device_count() == 0:
        raise UserError(
            f"the job was given {gpus_of_job} GPU(s), but torch sees none on this node.",
            "look at nvidia-smi there; to train on the CPU: slurm.gpus=0",
        )
