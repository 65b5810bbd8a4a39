"""From a name to a network: `build_model(cfg.model, num_classes, image_size, **cfg.model_args)`.

`small` and `airbench` are our own. Any other name is one of torchvision's classifiers: see networks/.
All take images [B, 3, H, W] float32 of any size and give logits [B, num_classes]. To add your own,
write it here and put it into `MODELS`.
"""

import difflib
import logging
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .data.batches import Batches
from .networks.airbench import PREPARED_ON, Airbench
from .networks.any_size import (
    AUXILIARY,
    SMALL_IMAGE,
    WithAuxiliary,
    classifiers,
    given_size,
    not_built,
    structure,
)
from .networks.pretrained import load_weights

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

__all__ = [
    "AUXILIARY",
    "MODELS",
    "WithAuxiliary",
    "build_model",
    "build_untrained",
    "check_model",
    "of_both_sides",
    "prepare_model",
]

log = logging.getLogger("dora_train")


def of_both_sides(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The mean of the logits of each image [B, 3, H, W] and of its mirror image: [B, classes]."""
    return (network(images) + network(images.flip(3))) / 2


def prepare_model(network: nn.Module, train: Batches) -> None:
    """Show a network its training images, if its first weights are made from them."""
    if isinstance(network, Airbench):
        network.whiten_patches(train.examples(PREPARED_ON))


def small(num_classes: int, width: int = 32, depth: int = 3) -> nn.Module:
    """Three convolutions and an average: some 50,000 parameters, for images of 8 to 32 pixels.

    Args:
        depth: the number of convolutions, 3 or more.
    """
    _check_width(width)
    if not (isinstance(depth, int) and depth >= 3):
        raise ValueError(f"model_args.depth={depth}: it takes a whole number of layers, 3 or more.")

    def block(channels: int, features: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(channels, features, 3, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(features), nn.ReLU(inplace=True))

    return nn.Sequential(
        block(3, width, 1),
        block(width, 2 * width, 2),
        *[block(2 * width, 2 * width, 1) for _ in range(depth - 2)],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )


def airbench(num_classes: int, width: int = 64) -> nn.Module:
    """The network of the record runs on CIFAR-10, see airbench.py: 2.0 million parameters.

    With width 32, it has 0.5 million. For images of 8 to 64 pixels.
    """
    _check_width(width)
    return Airbench(num_classes, width)


def _check_width(width: object) -> None:
    if not (isinstance(width, int) and width >= 1):
        raise ValueError(
            f"model_args.width={width}: it takes a whole number of channels, 1 or more."
        )


MODELS: dict[str, Callable[..., nn.Module]] = {"small": small, "airbench": airbench}

# Keywords that `build_model` gets from elsewhere, so that they cannot stand in model_args.
RESERVED = {
    "name": "the model is chosen by model=NAME",
    "num_classes": "the data say it",
    "image_size": "the data say it. To resize all images: model_args.resize=224",
}


def build_model(
    name: str, num_classes: int, image_size: int = 32, **model_args: object
) -> nn.Module:
    """The network `name`, with its initial weights drawn from torch's global generator.

    Args:
        image_size: the images' shorter side, pixels. The network resizes images that are too small
            for it.
        model_args: keywords of the network's function. For torchvision's networks also `weights`
            (DEFAULT, or a name that torchvision knows: weights that were trained on ImageNet),
            `stem` (imagenet: as torchvision has it) and `resize` (pixels: the network resizes all
            images to it).

    Returns:
        A module that gives logits [B, num_classes]. In training, googlenet and inception_v3 give
        `WithAuxiliary`.

    Raises:
        ValueError: there is no such model, or it does not take these keywords.
        DataError: the trained weights cannot be downloaded.
    """
    network, weights = _structure(name, num_classes, image_size, model_args)
    if weights is not None:
        load_weights(network, name, weights)
    size = given_size(network, image_size)
    if size != image_size:
        log.info(
            f"{name} is given images of {size} x {size}: those of {image_size} x {image_size} are resized"
        )
    return network


def build_untrained(
    name: str, num_classes: int, image_size: int = 32, **model_args: object
) -> nn.Module:
    """The same network without the trained weights of `model_args`: nothing is downloaded.

    A checkpoint of the network that `build_model` gave for these arguments fits it.

    Raises:
        ValueError: as `build_model`.
    """
    return _structure(name, num_classes, image_size, model_args)[0]


def check_model(name: str, /, **model_args: object) -> None:
    """Check that there is such a model, and that it takes these keywords.

    It needs no memory for the weights, and downloads nothing.

    Raises:
        ValueError: it is unknown, and the message names the nearest one. Or it does not take them.
    """
    _check_name(name)
    for key, hint in RESERVED.items():
        if key in model_args:
            raise ValueError(f"model_args.{key}: {hint}.")
    with _WithoutMemory():
        _structure(name, 2, SMALL_IMAGE, model_args)


def _structure(
    name: str, num_classes: int, image_size: int, model_args: Mapping[str, object]
) -> tuple[nn.Module, "WeightsEnum | None"]:
    """The network with fresh weights, and the trained weights that it should get."""
    _check_name(name)
    if name not in MODELS:
        return structure(name, num_classes, image_size, model_args)
    try:
        return MODELS[name](num_classes=num_classes, **model_args), None
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if "unexpected keyword" in str(error) and model_args:
            raise not_built(name, model_args, error) from error
        raise  # a bug in one of our own functions, or its own message to the user


def _check_name(name: str) -> None:
    if name in MODELS:  # torchvision takes 0.7 s to import, and `small` does not need it
        return
    known = [*MODELS, *classifiers()]
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        hint = f": small, or one of the {len(known) - 1} classifiers of torchvision."
        if close:
            hint = f": did you mean {' or '.join(close)}?"
        raise ValueError(f'unknown model "{name}"{hint}')


class _WithoutMemory(TorchFunctionMode):
    """Layers that are made within have shapes but no values.

    Under `torch.device("meta")`, regnets cannot be built: they compute their widths with tensors
    (torchvision 0.29). Layers allocate their parameters by `torch.empty`, so only that is moved to
    the meta device.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
