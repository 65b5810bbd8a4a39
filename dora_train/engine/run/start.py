"""The first weights of a run, if `continue_from` names another experiment or a file."""

import zipfile
from pathlib import Path

import torch
from pytorch_lightning import LightningModule

from ..errors import UserError, shortened
from ..experiment.checkpoint import held_like, in_words, place_of
from ..experiment.folder import BEST, is_signature
from ..experiment.origin import Find, locate, sha256
from ..files import is_whole


def start_from(module: LightningModule, given: str, expected: str, find: Find) -> str:
    """Load the weights that fit the module, and return a line that says which they are.

    The other weights of the module, such as a head for other classes, stay as they are.

    Args:
        given: the value of `continue_from`.
        expected: the hash of the file when the experiment was made, or "" if it is not known.
        find: finds an experiment by its signature.

    Raises:
        UserError: the file has changed, it holds no weights, or none of them fits.
    """
    path = locate(given, find)
    assert path is not None  # it is None only if nothing is given
    # Otherwise two attempts at one experiment could begin with different weights.
    if expected and sha256(path) != expected:
        raise UserError(
            f"continue_from={given}: {path.name} is another file than when this experiment was made.",
            "from what it is now: --clear, or a tag=WORD",
        )
    refuse_other_epoch(given, path, find)
    own, taken = module.state_dict(), {}
    for key, value in read_weights(path).items():
        # The weights of a bare network have no prefix.
        taken[key if key in own else f"model.{key}"] = value
    fitting = {
        key: value for key, value in taken.items() if key in own and own[key].shape == value.shape
    }
    if not fitting:
        raise UserError(
            f"continue_from={given}: no weight in it fits this network ({shortened(own, 2)})."
        )
    module.load_state_dict(fitting, strict=False)
    # By layer: the weight and the bias of one layer are one word.
    fresh = dict.fromkeys(key.rpartition(".")[0] for key in own if key not in fitting)
    line = f"starts from {given}, {path.name}"
    return f"{line}; not taken, other shapes: {shortened(fresh, 6)}" if fresh else line


def refuse_other_epoch(given: str, path: Path, find: Find) -> None:
    """Refuse a `best.ckpt` that does not hold the best weights of its experiment.

    Raises:
        UserError: it is not of the epoch, or the step, that the result names.
    """
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
    """Return {name: weight} of a checkpoint of Lightning's layout, or of a file of weights alone.

    Raises:
        UserError: the file holds no weights, is damaged, or would run code when it is read.
    """
    # torch's reader looks at no checksum.
    if zipfile.is_zipfile(path) and not is_whole(path):
        raise UserError(f"{path} holds no weights that can be read: it is damaged.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        weights = content.get("state_dict", content)
        return {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)}
    # zip, pickle, torch and struct each have errors of their own.
    except Exception as error:
        reason = str(error).strip().splitlines()
        why = reason[0][:200] if reason else repr(error)
        raise UserError(f"{path} holds no weights that can be read: {why}") from error
