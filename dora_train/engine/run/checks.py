"""Whether a run can do what its configuration asks for, on this machine: looked at before anything
is on disk.

What train.py's own checks need not import Lightning for, they have refused before. Called by
`session.enter`.
"""

import inspect
import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.plugins.environments import LightningEnvironment

from ..config.keys import MAY_BE_NULL
from ..config.limits import check_values
from ..errors import UserError, near
from .loggers import check_loggers


def check_run(cfg: Any) -> None:
    """All of it.

    Raises:
        UserError: whatever would keep the run from being what was asked for.
    """
    check_values(_plain(cfg))
    check_loggers(list(cfg.logger or []))
    check_accelerator(
        str(cfg.trainer.get("accelerator", "auto")),
        int(cfg.slurm.gpus) if _in_job() else 0,
        bool(cfg.trainer.get("sync_batchnorm")),
    )
    check_trainer(trainer_keywords(cfg))


def trainer_keywords(cfg: Any) -> dict[str, Any]:
    """`cfg.trainer` as Lightning takes it; a blank key is Lightning's own default."""
    return {
        key: value
        for key, value in _plain(cfg.trainer).items()
        if value is not None or f"trainer.{key}" in MAY_BE_NULL
    }


def _plain(cfg: Any) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def check_trainer(keywords: Mapping[str, Any]) -> None:
    """Whether Lightning's Trainer takes them: asked by building one, which takes milliseconds and
    starts nothing.

    Raises:
        UserError: a keyword that is not Lightning's, or a value that it refuses.
    """
    known = [name for name in inspect.signature(pl.Trainer.__init__).parameters if name != "self"]
    for key in keywords:
        if key not in known:
            close = near(key, known)
            raise UserError(
                f'unknown key "trainer.{key}"' + (f": did you mean {close[0]}?" if close else "."),
                f"Lightning's Trainer takes: {', '.join(known[:14])} ...",
            )
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
    except Exception as error:  # MisconfigurationException, ValueError, TypeError, ModuleNotFoundError: each its own
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"Lightning's Trainer refuses a value of trainer: {reason}") from error


def check_batches(trainer: Any, lengths: Mapping[str, int | None]) -> None:
    """Whether the limits of `cfg.trainer` leave a batch of each set, as soon as the data is known.

    Args:
        lengths: batches of `train`, `valid` and `test`; None: unknown, or no such set.

    Raises:
        UserError: a fraction leaves none, or no validation would ever begin.
    """
    overfits = trainer.overfit_batches > 0  # Lightning takes it in place of the first two limits
    for name, batches in zip(("train", "val", "test"), lengths.values()):
        key = "overfit_batches" if overfits and name != "test" else f"limit_{name}_batches"
        if batches is not None:
            _check_limit(key, getattr(trainer, f"limit_{name}_batches"), batches)
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
    """Lightning 2.6.6 takes 0 for none at all, and refuses a fraction that comes to none."""
    if limit and batches and not counted(limit, batches):
        least = math.ceil(1000 / batches) / 1000
        raise UserError(
            f"trainer.{key}={limit}: that leaves no batch of {batches}.",
            f"give at least {least}, or a whole number of batches",
        )


def counted(limit: int | float, batches: int) -> int:
    """The batches that a limit leaves, as Lightning's loops count them."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def _in_job() -> bool:
    return "DORA_TRAIN_JOB" in os.environ


def check_accelerator(accelerator: str, gpus_of_job: int = 0, sync_batchnorm: bool = False) -> None:
    """Raises: UserError if a GPU is needed and torch sees none: nothing trains on the CPU in
    silence."""
    there = {
        "gpu": torch.cuda.is_available() or torch.backends.mps.is_available(),
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
        "auto": True,
    }
    if not there.get(accelerator, True):
        raise UserError(
            f"trainer.accelerator={accelerator}: torch sees no such device here.",
            "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or take trainer.accelerator=auto",
        )
    if sync_batchnorm and (accelerator == "cpu" or not torch.cuda.is_available()):
        raise UserError("trainer.sync_batchnorm=true: torch synchronises batch norm on GPUs only.")
    if gpus_of_job and accelerator != "cpu" and torch.cuda.device_count() == 0:
        raise UserError(
            f"the job was given {gpus_of_job} GPU(s), but torch sees none on this node.",
            "look at nvidia-smi there; to train on the CPU: slurm.gpus=0",
        )
