"""Whether a run can do what its configuration asks for, on this machine: looked at before anything is on disk.

What train.py's own checks need not import Lightning for, they have refused before. Called by `session.enter`.
"""

import inspect
import os
import warnings
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.plugins.environments import LightningEnvironment

from ..errors import UserError, near
from ..replaced import refuse_trainer_key
from .loggers import check_loggers

NUMBERS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches", "gradient_clip_val")
ABOVE_ZERO = ("limit_train_batches", "check_val_every_n_epoch", "accumulate_grad_batches")


def check_run(cfg: Any) -> None:
    """All of it.

    Raises:
        UserError: whatever would keep the run from being what was asked for.
    """
    check_loggers(list(cfg.logger or []))
    if cfg.checkpoint.keep not in ("all", "last", "best") or cfg.checkpoint.every_epochs < 1:
        raise UserError("checkpoint.keep is all, last or best; checkpoint.every_epochs is 1 or more.")
    if cfg.threads < 1:
        raise UserError(f"threads={cfg.threads}: it takes 1 or more.")
    patience, decay = cfg.early_stopping.patience, cfg.ema.decay
    if patience is not None and not (isinstance(patience, int) and patience >= 1):
        raise UserError(f"early_stopping.patience={patience}: it takes a whole number of epochs, or null for none.")
    if decay is not None and not (isinstance(decay, float) and 0 < decay < 1):
        raise UserError(f"ema.decay={decay}: it takes a number between 0 and 1, e.g. 0.999, or null for none.")
    split, _, metric = str(cfg.best.metric).partition(".")
    if split not in ("train", "valid") or not metric:
        raise UserError(f"best.metric={cfg.best.metric}: it is a metric of history.json, e.g. valid.acc or train.loss.")
    if cfg.best.mode not in ("max", "min"):
        raise UserError(f"best.mode={cfg.best.mode}: it is max or min.")
    check_accelerator(str(cfg.trainer.get("accelerator", "auto")), int(cfg.slurm.gpus) if _in_job() else 0)
    check_trainer(trainer_keywords(cfg))


def trainer_keywords(cfg: Any) -> dict[str, Any]:
    """`cfg.trainer` as Lightning takes it; a blank key is Lightning's own default."""
    given = OmegaConf.to_container(cfg.trainer, resolve=True)
    assert isinstance(given, Mapping)
    return {str(key): value for key, value in given.items() if value is not None}


def check_trainer(keywords: Mapping[str, Any]) -> None:
    """Whether Lightning's Trainer takes them: asked by building one, which takes milliseconds and starts nothing.

    Raises:
        UserError: a keyword that is not the user's, or not Lightning's, or a value that it refuses or trips over.
    """
    known = [name for name in inspect.signature(pl.Trainer.__init__).parameters if name != "self"]
    for key, value in keywords.items():
        refuse_trainer_key(f"trainer.{key}")
        if key not in known:
            close = near(key, known)
            raise UserError(f'unknown key "trainer.{key}"' + (f": did you mean {close[0]}?" if close else "."),
                            f"Lightning's Trainer takes: {', '.join(known[:14])} ...")
        if key in NUMBERS and not (isinstance(value, (int, float)) and value >= 0):
            raise UserError(f"trainer.{key}={value}: it takes a number, 0 or more.")
        if key in ABOVE_ZERO and value <= 0:
            raise UserError(f"trainer.{key}={value}: it takes more than 0.")
        if key in ("max_epochs", "max_steps", "max_time") and not str(value).strip("0:"):
            raise UserError(f"trainer.{key}={value}: nothing would be trained.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run's own trainer says it again
            pl.Trainer(**keywords, devices=1, plugins=[LightningEnvironment()], logger=False,
                       enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    except Exception as error:  # MisconfigurationException, ValueError, TypeError, ModuleNotFoundError: each its own
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"Lightning's Trainer refuses a value of trainer: {reason}") from error


def _in_job() -> bool:
    return "DORA_TRAIN_JOB" in os.environ


def check_accelerator(accelerator: str, gpus_of_job: int = 0) -> None:
    """Raises: UserError where a GPU was asked for and torch sees none: nothing trains on the CPU in silence."""
    there = {"gpu": torch.cuda.is_available() or torch.backends.mps.is_available(), "cuda": torch.cuda.is_available(),
             "mps": torch.backends.mps.is_available(), "cpu": True, "auto": True}
    if not there.get(accelerator, True):
        raise UserError(f"trainer.accelerator={accelerator}: torch sees no such device here.",
                        "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or take trainer.accelerator=auto")
    if gpus_of_job and accelerator != "cpu" and torch.cuda.device_count() == 0:
        raise UserError(f"the job was given {gpus_of_job} GPU(s), but torch sees none on this node.",
                        "look at nvidia-smi there; to train on the CPU: slurm.gpus=0")
