"""The network that an experiment has learned: `load(SIG)`.

It reads the experiment's folder, and writes nothing there. The values come from its birth, and the
weights from its best checkpoint. Used by `dora_train.load` in notebooks, and by predict.py.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data import Data, load_data
from .data.image_folder import cores
from .data.image_list import with_rules
from .data.inputs import Inputs
from .engine.errors import UserError
from .engine.experiment.checkpoint import held_epoch, held_like, in_words, place_of
from .engine.experiment.find import find, outputs
from .engine.experiment.folder import Experiment
from .engine.experiment.records import Birth, State
from .engine.files import is_whole
from .engine.words import shown_path
from .model import build_untrained

log = logging.getLogger("dora_train")
BATCH_SIZE = 64
A_WORKER = 256  # images. For fewer, a process that decodes is not worth its start (0.1 s).


@dataclass
class Trained:
    """The network of an experiment, and all that is needed to use it.

    Attributes:
        network: from images [B, 3, H, W] float32, normalised as in training, to logits [B,
            classes]. It is in eval mode and on the CPU.
        classes: their names, in the order of the logits.
        config: the values that count in the signature, as they were frozen:
            `config["optim"]["lr"]`.
        inputs: how an image becomes an input of the network.
        checkpoint: the file of the weights.
    """

    sig: str
    network: nn.Module = field(repr=False)
    classes: list[str]
    config: dict[str, Any] = field(repr=False)
    inputs: Inputs = field(repr=False)
    checkpoint: Path

    def classify(self, paths: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[str, float]]:
        """The class of each image file and its probability (0 .. 1), in the order of the files.

        Raises:
            DataError: an image cannot be read.
        """
        files = [os.fspath(path) for path in paths]
        mirror = mirrors(self.config)
        for images, _ in self.inputs.batches(files, BATCH_SIZE, workers_for(files)).epoch():
            with torch.inference_mode():
                logits = self.network(images)
                if mirror:  # as `of_both_sides` of model.py
                    logits = (logits + self.network(images.flip(3))) / 2
            best = logits.softmax(1).max(1)
            for label, probability in zip(best.indices.tolist(), best.values.tolist()):
                yield self.classes[label], probability


def mirrors(config: Mapping[str, Any]) -> bool:
    """Whether predictions are averaged over the mirror image: `test.mirror`."""
    return (config.get("test") or {}).get("mirror", False)


def workers_for(files: Sequence[str]) -> int:
    """How many processes should decode these images. 0: this process does it."""
    return min(cores(), len(files) // A_WORKER)


def load(sig: str) -> Trained:
    """The network of an experiment with its best weights, or its last ones if none are the best.

    If the experiment is not finished, these are the weights so far, and a warning says so.

    Args:
        sig: any unambiguous beginning of its signature.

    Raises:
        UserError: there is no such experiment, or several. Or it has no checkpoint, or a damaged
            one. Or today's code builds another network.
        DataError: an older version made it and stored nothing of its data set, and the data set
            cannot be read.
    """
    return load_experiment(find(outputs(), sig))


def load_experiment(experiment: Experiment) -> Trained:
    """As `load`."""
    birth, checkpoint = birth_of(experiment), checkpoint_of(experiment)
    _warn_if_unfinished(experiment, checkpoint)
    # read before the network is built, so that a damaged file is reported at once
    weights = _network_weights(checkpoint)
    inputs = Inputs.read(experiment.inputs()) or data_of(birth.config).inputs
    network = _network(experiment, birth, inputs)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        commit = str(birth.code.get("commit") or "")[:9]
        raise UserError(
            f"XP {experiment.sig}: its weights do not fit the network that the code builds by now"
            + (f"; it was made at commit {commit}." if commit else ".")
        ) from error
    return Trained(experiment.sig, network.eval(), inputs.classes, birth.config, inputs, checkpoint)


def birth_of(experiment: Experiment) -> Birth:
    """The values that an experiment was created with.

    Raises:
        UserError: there are none.
    """
    birth = experiment.birth()
    if birth is None:
        raise UserError(
            f"XP {experiment.sig}: its values were never frozen (a run of stock Dora), or birth.json is "
            "damaged: so its network is not known."
        )
    return birth


def data_of(config: Mapping[str, Any]) -> Data:
    """The data set of an experiment, which is downloaded if it is not there."""
    return load_data(**with_rules(config["data"]), seed=config["seed"])


def _warn_if_unfinished(experiment: Experiment, checkpoint: Path) -> None:
    state = experiment.state()
    if state.state is not State.COMPLETED:
        epoch = held_epoch(checkpoint)
        where = f" (epoch {epoch})" if epoch else ""
        log.warning(
            f"XP {experiment.sig} is not finished ({state.state}): "
            f"{checkpoint.name} is as far as it came{where}"
        )


def _network(experiment: Experiment, birth: Birth, inputs: Inputs) -> nn.Module:
    """The network with fresh weights."""
    config = birth.config
    try:
        # The fresh weights are drawn at random. That must not change a notebook's random numbers.
        with torch.random.fork_rng(devices=[]):
            network = build_untrained(
                config["model"],
                len(inputs.classes),
                inputs.image_size,
                **(config.get("model_args") or {}),
            )
    except ValueError as error:
        raise UserError(f"XP {experiment.sig}: {error}") from error
    if config.get("channels_last"):
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


# --- the checkpoint ---


def checkpoint_of(experiment: Experiment) -> Path:
    """The file of the best weights, or of the last ones if none are the best.

    Raises:
        UserError: there is none, or none of the epoch that the result names.
    """
    files = experiment.best_checkpoint, experiment.last_checkpoint
    there = [path for path in files if path.exists()]
    best = (experiment.result() or {}).get("best") or {}
    if best:
        return _checkpoint_like(experiment, there, best)
    if not there:
        raise UserError(
            f"XP {experiment.sig} has no checkpoint yet ({experiment.state().state}): "
            f"dora run -f {experiment.sig}"
        )
    return there[0]


def _checkpoint_like(
    experiment: Experiment, there: Sequence[Path], best: Mapping[str, Any]
) -> Path:
    """The file that holds the weights of the best epoch.

    Args:
        there: the files that exist.
        best: the best epoch, as `result.json` has it.

    Raises:
        UserError: no file holds them.
    """
    held = {path: held_like(path, best) for path in there}
    for path in there:
        if held[path] == place_of(best):
            return path
    path = experiment.best_checkpoint
    if path in held and held[path] is None:
        return path  # it is damaged, and the error of reading it says so
    what = f"holds {in_words(best, held[path])}" if path in held else "is missing"
    raise UserError(
        f"XP {experiment.sig}: best.ckpt {what}, and its best is {in_words(best)}.",
        f"train it anew: dora run --clear -f {experiment.sig}",
    )


def module_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of the whole LightningModule, by name.

    Raises:
        UserError: the file is damaged.
    """
    if not is_whole(checkpoint):
        raise _damaged(checkpoint)
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # UnpicklingError, RuntimeError, KeyError: it is no checkpoint
        raise _damaged(checkpoint) from error


def _network_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of the network, by the names that they have in it."""
    found = {}
    for name, value in module_weights(checkpoint).items():
        if name.startswith("model."):
            found[name.removeprefix("model.")] = value
    return found


def _damaged(checkpoint: Path) -> UserError:
    return UserError(f"{shown_path(checkpoint)} cannot be read: it is damaged.")
