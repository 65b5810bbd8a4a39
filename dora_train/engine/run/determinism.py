"""What a run asks of torch so that a GPU computes the same bits each time.

On the CPU nothing is asked for, as the same number of threads gives the same bits there.
`entering.py` asks before `main`, because CUDA reads its variable when it starts. `run_log.py` hears
which operations have no deterministic form, and `dora info` shows them.
"""

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig

# What torch 2.14 says of an operation, once it was asked to warn. Attention has a deterministic
# form, but torch takes it only with trainer.deterministic=true.
WITHOUT_A_FORM = re.compile(
    r"(\S+) does not have a deterministic implementation"
    r"|(.+) defaults to a non-deterministic algorithm"
)
HEARD = "(.+ does not have a deterministic implementation|.+ defaults to a non-deterministic algo)"
LOGGER = "py.warnings"  # where `logging.captureWarnings` sends the warnings


def ask(cfg: DictConfig) -> None:
    """Set what must be set before CUDA starts, and the precision of products in float32."""
    if is_asked(cfg):
        # cuBLAS reads it with its first product. Lightning's Trainer sets the same.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    # The default is torch's own, and `main` may have been imported with another one.
    if cfg.matmul_precision != "highest":
        torch.set_float32_matmul_precision(cfg.matmul_precision)


def is_asked(cfg: DictConfig) -> bool:
    """Whether the run trains on CUDA, and is to use deterministic algorithms."""
    return bool(cfg.deterministic) and on_cuda(cfg)


def on_cuda(cfg: DictConfig) -> bool:
    """Whether Lightning will choose a CUDA device."""
    wanted = str(cfg.trainer.get("accelerator", "auto"))
    return wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def keywords(cfg: DictConfig, given: dict[str, Any]) -> dict[str, Any]:
    """The keywords of Lightning's Trainer, with those that ask for deterministic algorithms.

    Args:
        given: those of `cfg.trainer`. `deterministic=true` asks for more, and stays.
    """
    if is_asked(cfg) and not given.get("deterministic"):
        return {**given, "deterministic": "warn"}
    return given


def unpromised(cfg: DictConfig, device: torch.device) -> list[str]:
    """Why the bits of a run are not promised, as far as its configuration and device tell."""
    reasons = []
    if device.type == "mps":
        reasons.append("MPS promises no order of sums")
    if device.type == "cuda" and not (cfg.deterministic or cfg.trainer.get("deterministic")):
        reasons.append("deterministic=false")
    if device.type == "cuda" and cfg.trainer.get("benchmark"):
        reasons.append("trainer.benchmark=true")
    return reasons


@contextmanager
def heard(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell of each operation without a deterministic form, in the place of torch's warning.

    Args:
        tell: called with the reason, maybe several times with the same one.
    """

    def keep(record: logging.LogRecord) -> bool:
        reason = _reason(record.getMessage())
        if reason:
            tell(reason)
        return not reason

    logger = logging.getLogger(LOGGER)
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def listen() -> None:
    """Let Python pass on torch's warnings, also if the researcher's code ignores all warnings."""
    warnings.filterwarnings("default", message=HEARD)


def _reason(text: str) -> str:
    """The reason in a warning as Python prints it. Empty: it is about something else."""
    found = WITHOUT_A_FORM.search(text)
    if found is None:
        return ""
    if found[1]:
        return f"{found[1]} has no deterministic form here"
    name = found[2].rpartition("Warning: ")[2]
    return f"{name} is deterministic only with trainer.deterministic=true"
