"""The first weights of a run: those of another experiment or file, where `continue_from` names
one."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule

from ..errors import UserError, shortened
from ..experiment.checkpoint import held_like, in_words, place_of
from ..experiment.folder import BEST, is_signature
from ..experiment.origin import Find, locate, sha256
from ..files import is_whole


def start_from(module: LightningModule, given: str, expected: str, find: Find) -> str:
    """Take over what fits; the rest, such as a head for other classes, keeps its fresh weights.

    Args:
        given: as `continue_from` has it.
        expected: the hash of the file when the experiment was made.

    Returns:
        A line that says what was taken.

    Raises:
        UserError: it is another file by now, it holds no weights, or none that fit.
    """
    path = locate(given, find)
    assert path is not None
    if expected and sha256(path) != expected:
        raise UserError(
            f"continue_from={given}: {path.name} is another file than when this experiment was made.",
            "from what it is now: --clear, or a tag=WORD",
        )
    refuse_other_epoch(given, path, find)
    taken, own = read_weights(path), module.state_dict()
    taken = {key if key in own else f"model.{key}": value for key, value in taken.items()}
    fitting = {
        key: value for key, value in taken.items() if key in own and own[key].shape == value.shape
    }
    if not fitting:
        raise UserError(
            f"continue_from={given}: no weight in it fits this network ({shortened(own, 2)})."
        )
    module.load_state_dict(fitting, strict=False)
    fresh = dict.fromkeys(key.rpartition(".")[0] for key in own if key not in fitting)
    return f"starts from {given}, {path.name}" + (
        f"; not taken, other shapes: {shortened(fresh, 6)}" if fresh else ""
    )


def refuse_other_epoch(given: str, path: Path, find: Find) -> None:
    """Raises: UserError if `best.ckpt` is not of the epoch, or the step, that its experiment's result names."""
    if path.name != BEST or not is_signature(given):
        return
    best = (find(given).result() or {}).get("best") or {}
    held = held_like(path, best)
    if best and held is not None and held != place_of(best):
        raise UserError(
            f"continue_from={given}: its best is {in_words(best)}, "
            f"but best.ckpt holds {in_words(best, held)}.",
            f"train it anew: dora run --clear -f {given}     "
            f"its last weights: continue_from={given}:last",
        )


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Of a checkpoint of Lightning's layout, or of a file that holds them alone.

    Raises:
        UserError: it holds none, or is damaged, or would run code.
    """
    if zipfile.is_zipfile(path) and not is_whole(path):  # torch's reader looks at no checksum
        raise UserError(f"{path} holds no weights that can be read: it is damaged.")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        weights = content.get("state_dict", content)
        return {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)}
    except Exception as error:  # zip, pickle, torch and struct each have their own
        reason = str(error).strip().splitlines()
        why = reason[0][:200] if reason else repr(error)
        raise UserError(f"{path} holds no weights that can be read: {why}") from error
