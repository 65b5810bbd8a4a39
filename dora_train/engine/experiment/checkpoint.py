"""What the file of a checkpoint holds, and of which epoch or step: for a resume and for predict.py.

Lightning is not imported.
"""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..files import is_whole


def read_checkpoint(path: Path, own: bool = False) -> dict[str, Any] | None:
    """What `last.ckpt` holds, on the CPU; None if it is missing, damaged, or something else.

    Args:
        own: it is of the run's own experiment: see `_content`.
    """
    content = _content(path, "cpu", own)
    return content if content is not None and {"loops", "state_dict"} <= content.keys() else None


def held_epoch(path: Path, own: bool = False) -> int | None:
    """The epoch, from 1, at whose end the weights in this file were saved.

    None if the file is missing or damaged, or was saved within an epoch.
    """
    content = _content(path, "meta", own)
    return epoch_of(content) if content is not None else None


def held_step(path: Path, own: bool = False) -> int | None:
    """The optimizer step after which the weights in this file were saved.

    None if the file is missing or damaged.
    """
    content = _content(path, "meta", own) or {}
    return content.get("global_step")


def held_like(path: Path, best: Mapping[str, Any], own: bool = False) -> int | None:
    """The step of the weights in a file if `best` has a step, else their epoch: see `place_of`."""
    return held_step(path, own) if "step" in best else held_epoch(path, own)


def place_of(best: Mapping[str, Any]) -> int | None:
    """What tells the weights of the best entry from others: its step if it has one, else its epoch.

    Args:
        best: as `result.json` has it; empty: None.
    """
    return best.get("step", best.get("epoch"))


def in_words(best: Mapping[str, Any], place: int | None = None) -> str:
    """`epoch 5` or `step 300`: the place of the best entry, or another place of the same kind."""
    kind = "step" if "step" in best else "epoch"
    return f"{kind} {place_of(best) if place is None else place}"


def epoch_of(content: Mapping[str, Any]) -> int | None:
    """The same of a file's content. `best.ckpt` has no loops, and is always of an epoch's end."""
    if "loops" in content:
        epoch = content["loops"]["fit_loop"]["epoch_progress"]["current"]
        return epoch["processed"] if epoch["processed"] == epoch["ready"] else None
    return content["epoch"] + 1 if "epoch" in content else None


def holds_objects(path: Path) -> bool:
    """Whether a file is whole, but holds more than tensors and plain Python.

    A module may put anything into a checkpoint, e.g. by `save_hyperparameters()`.
    """
    if not is_whole(path):
        return False
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError:
        return True
    except Exception:  # damaged in another way
        return False
    return False


def _content(path: Path, device: str, own: bool) -> dict[str, Any] | None:
    """What a file holds; None if it cannot be read.

    Args:
        device: "meta" leaves the weights on the disk.
        own: the run wrote it itself, so it may hold Python objects. Reading those runs code, hence
            the file must belong to this user.

    Raises:
        UserError: it holds objects of a class that is not there any more.
    """
    if not is_whole(path):
        return None
    trusted = own and path.stat().st_uid == os.getuid()
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        if not trusted:
            return None
        content = _with_objects(path, device)
    except Exception:  # whole, and yet nothing that torch has written
        return None
    return content if isinstance(content, dict) else None


def _with_objects(path: Path, device: str) -> Any:
    """Raises: UserError if they cannot be made: the file is whole, so it is not taken for damaged."""
    try:
        return torch.load(path, map_location=device, weights_only=False)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{path.name} is whole, but what it holds cannot be made here: {reason}",
            "install what it needs; or begin anew: --clear",
        ) from error
