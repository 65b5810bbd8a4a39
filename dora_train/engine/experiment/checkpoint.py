"""What the file of a checkpoint holds, and of which epoch: for a resume and for predict.py.

Lightning is not imported.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..files import is_whole


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `last.ckpt` holds, on the CPU; None if it is missing, damaged, or something else."""
    content = _content(path, "cpu")
    return content if content is not None and {"loops", "state_dict"} <= content.keys() else None


def held_epoch(path: Path) -> int | None:
    """The epoch, from 1, at whose end the weights in this file were saved.

    None if the file is missing or damaged, or was saved within an epoch.
    """
    content = _content(path, "meta")
    return epoch_of(content) if content is not None else None


def epoch_of(content: Mapping[str, Any]) -> int | None:
    """The same of a file's content. `best.ckpt` has no loops, and is always of an epoch's end."""
    if "loops" in content:
        epoch = content["loops"]["fit_loop"]["epoch_progress"]["current"]
        return epoch["processed"] if epoch["processed"] == epoch["ready"] else None
    return content["epoch"] + 1 if "epoch" in content else None


def _content(path: Path, device: str) -> dict[str, Any] | None:
    """Args: device: "meta" leaves the weights on the disk."""
    if not is_whole(path):
        return None
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception:  # whole, and yet nothing that torch has written
        return None
    return content if isinstance(content, dict) else None
