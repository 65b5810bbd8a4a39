"""torchvision's trained weights: found by their name, downloaded, and loaded as far as they fit."""

import logging
import os
import sys
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..data.cache import network_timeout
from ..data.home import user_folder
from ..data_error import DataError

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

log = logging.getLogger("dora_train")


def chosen_weights(name: str, wanted: object) -> "WeightsEnum | None":
    """The member of torchvision's enumeration; None if no weights are wanted.

    Args:
        wanted: DEFAULT, or the name of a member, such as IMAGENET1K_V1.

    Raises:
        ValueError: there are no such weights.
    """
    from torchvision.models import get_model_weights

    if wanted is None:
        return None
    known = get_model_weights(name)
    if str(wanted) not in known.__members__:
        raise ValueError(f"model_args.weights={wanted}: {name} has {', '.join(known.__members__)}.")
    return known[str(wanted)]


def load_weights(network: nn.Module, name: str, weights: "WeightsEnum") -> None:
    """Load the weights that fit. A log line names the layers that keep their fresh weights.

    A head for another number of classes does not fit.

    The weights are loaded through a second network that torchvision fills: it knows which names
    have changed since the file was made.

    Raises:
        DataError: the weights cannot be downloaded.
    """
    trained = downloaded(name, weights)
    own = network.state_dict()
    fitting = {}
    for key, value in trained.state_dict().items():
        if key in own and own[key].shape == value.shape:
            fitting[key] = value
    network.load_state_dict(fitting, strict=False)
    fresh = sorted({key.rpartition(".")[0] for key in own if key not in fitting})
    line = f"{name} begins with {weights}"
    if fresh:
        line += f"; not taken: {', '.join(fresh[:6])}"
    log.info(line)


def downloaded(name: str, weights: "WeightsEnum") -> nn.Module:
    """torchvision's network with these weights.

    Raises:
        DataError: they cannot be downloaded.
    """
    from torchvision.models import get_model

    if torch.hub.get_dir().startswith("~"):  # without a home folder, it would make a folder "~"
        torch.hub.set_dir(str(user_folder(".cache") / "torch"))
    try:
        with network_timeout():
            return get_model(name, weights=weights, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        # A URLError is an OSError. torch raises a RuntimeError for a wrong checksum.
        folder = os.path.join(torch.hub.get_dir(), "checkpoints")
        raise DataError(
            f"the trained weights of {name} cannot be downloaded: {str(error).strip('<>')}.\n"
            f"Fetch {weights.url} on a machine that reaches it, and put the file into {folder} (TORCH_HOME moves it); "
            "or train from scratch: model_args.weights=null"
        ) from error
