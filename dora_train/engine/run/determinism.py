"""Sets up torch so that a GPU computes the same bits each time.

Nothing is set on the CPU, because the same number of threads gives the same bits there.
`entering.py` calls `ask` before `main`, because CUDA reads its environment variable when it starts.
`run_log.py` collects the operations that have no deterministic form, and `dora info` shows them.
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

# The warnings of torch 2.14 about operations without a deterministic form. Attention has such a
# form, but torch uses it only with trainer.deterministic=true.
WITHOUT_A_FORM = re.compile(
    r"(\S+) does not have a deterministic implementation"
    r"|(.+) defaults to a non-deterministic algorithm"
)
HEARD = "(.+ does not have a deterministic implementation|.+ defaults to a non-deterministic algo)"
LOGGER = "py.warnings"  # where `logging.captureWarnings` sends the warnings


def ask(cfg: DictConfig) -> None:
    """Set the variable that CUDA reads when it starts, and the precision of products in float32."""
    if is_asked(cfg):
        # cuBLAS reads it at its first product. Lightning's Trainer sets the same value.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    # "highest" is torch's default. It is not set, because the project's code may have chosen
    # another precision when it was imported.
    if cfg.matmul_precision != "highest":
        torch.set_float32_matmul_precision(cfg.matmul_precision)


def is_asked(cfg: DictConfig) -> bool:
    """Whether the run trains on CUDA and `deterministic` is true."""
    return bool(cfg.deterministic) and on_cuda(cfg)


def on_cuda(cfg: DictConfig) -> bool:
    """Whether Lightning will choose a CUDA device."""
    wanted = str(cfg.trainer.get("accelerator", "auto"))
    return wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def keywords(cfg: DictConfig, given: dict[str, Any]) -> dict[str, Any]:
    """The keywords of Lightning's Trainer. A keyword for deterministic algorithms is added.

    Args:
        given: the keywords in `cfg.trainer`. If they have `deterministic=true`, they are not
            changed, because it is stricter.
    """
    if is_asked(cfg) and not given.get("deterministic"):
        return {**given, "deterministic": "warn"}
    return given


def unpromised(cfg: DictConfig, device: torch.device) -> list[str]:
    """The reasons in the configuration and the device why the bits of a run are not promised."""
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
    """Report each operation without a deterministic form. The warning of torch is not shown.

    Args:
        tell: called with the reason. The same reason may come several times.
    """

    def keep(record: logging.LogRecord) -> bool:
        """Whether a warning is shown: it has another subject."""
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
    """Let Python show these warnings of torch, even if the project's code ignores all warnings."""
    warnings.filterwarnings("default", message=HEARD)


def _reason(text: str) -> str:
    """The reason that the text of a warning names. Empty if the text has another subject."""
    found = WITHOUT_A_FORM.search(text)
    if found is None:
        return ""
    if found[1]:
        return f"{found[1]} has no deterministic form here"
    name = found[2].rpartition("Warning: ")[2]  # the text also has the file and the kind of warning
    return f"{name} is deterministic only with trainer.deterministic=true"
