"""Reads the file of a checkpoint, and its epoch or step: for a resume and for predict.py.

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
    """The content of `last.ckpt`, on the CPU. None if it is missing, damaged, or something else.

    Args:
        own: the file is of the run's own experiment, see `_content`.
    """
    content = _content(path, "cpu", own)
    if content is None or not {"loops", "state_dict"} <= content.keys():
        return None
    return content


def held_epoch(path: Path, own: bool = False) -> int | None:
    """The epoch, from 1, at whose end the weights in this file were saved.

    None if the file is missing or damaged, or was saved within an epoch.
    """
    return epoch_of(_content(path, "meta", own) or {})


def held_step(path: Path, own: bool = False) -> int | None:
    """The optimizer step after which the weights in this file were saved.

    None if the file is missing or damaged.
    """
    content = _content(path, "meta", own) or {}
    return content.get("global_step")


def held_like(path: Path, best: Mapping[str, Any], own: bool = False) -> int | None:
    """The step of the weights in a file if `best` has a step, else their epoch: see `place_of`."""
    if "step" in best:
        return held_step(path, own)
    return held_epoch(path, own)


def place_of(best: Mapping[str, Any]) -> int | None:
    """The step of the best entry of the history if it has one, else its epoch.

    It tells the weights of this entry from others.

    Args:
        best: as `result.json` has it. If it is empty, the result is None.
    """
    return best.get("step", best.get("epoch"))


def in_words(best: Mapping[str, Any], place: int | None = None) -> str:
    """`epoch 5` or `step 300`: the place of the best entry, or another place of the same kind."""
    if place is None:
        place = place_of(best)
    kind = "step" if "step" in best else "epoch"
    return f"{kind} {place}"


def epoch_of(content: Mapping[str, Any]) -> int | None:
    """As `held_epoch`, of the content of a file.

    `best.ckpt` has no loops. It is always saved at an epoch's end.
    """
    if "loops" in content:
        epoch = content["loops"]["fit_loop"]["epoch_progress"]["current"]
        is_at_the_end = epoch["processed"] == epoch["ready"]
        return epoch["processed"] if is_at_the_end else None
    if "epoch" in content:
        return content["epoch"] + 1
    return None


def holds_objects(path: Path) -> bool:
    """Whether a file is undamaged, but holds more than tensors and plain Python.

    A module may put any object into a checkpoint, e.g. by `save_hyperparameters()`.
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
    """The content of a file. None if it cannot be read.

    Args:
        device: "meta" leaves the weights on the disk.
        own: the run wrote it itself, so it may hold Python objects. To read those runs code, hence
            the file must also belong to this user.

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
    except Exception:  # an undamaged zip, but not of torch
        return None
    return content if isinstance(content, dict) else None


def _with_objects(path: Path, device: str) -> Any:
    """The content of an undamaged file that holds Python objects.

    Raises:
        UserError: the objects cannot be made here. Such a file must not be taken for damaged: a
            resume would ignore it, and begin anew.
    """
    try:
        return torch.load(path, map_location=device, weights_only=False)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{path.name} is whole, but what it holds cannot be made here: {reason}",
            "install what it needs; or begin anew: --clear",
        ) from error
