"""From a name to a network: `build_model(cfg.model, num_classes, image_size, **cfg.model_args)`.

`small` is our own; any other name is one of torchvision's classifiers. All take images [B, 3, H, W]
float32 of any size and give logits [B, num_classes]. To add your own: write it here, and put it
into `MODELS`.
"""

import difflib
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .data.cache import network_timeout
from .data.home import user_folder
from .data_error import DataError

log = logging.getLogger("dora_train")


def small(num_classes: int, width: int = 32) -> nn.Module:
    """Three convolutions and an average: some 50 k parameters, made for images of 8 to 32
    pixels."""
    if not (isinstance(width, int) and width >= 1):
        raise ValueError(
            f"model_args.width={width}: it takes a whole number of channels, 1 or more."
        )

    def block(channels: int, features: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(channels, features, 3, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(features), nn.ReLU(inplace=True))

    return nn.Sequential(
        block(3, width, 1),
        block(width, 2 * width, 2),
        block(2 * width, 2 * width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )


MODELS: dict[str, Callable[..., nn.Module]] = {"small": small}

# What torchvision's networks need to know of small images; all 80 of 0.29 are tried in
# tests/test_model.py.
# these get a stem for images of up to SMALL_IMAGE pixels
STEM = ("resnet", "resnext", "wide_resnet")
SMALL_IMAGE = 64
LEAST = {
    "alexnet": 63,
    "convnext": 32,
    "densenet": 29,
    "googlenet": 15,
    "inception_v3": 299,
    "squeezenet1_0": 21,
    # pixels of a side below which they fail (inception: its auxiliary output)
    "squeezenet1_1": 17,
    "vgg": 32,
}
EXACT = {"maxvit": 224, "vit": 224}  # these take one size
GIVEN = {
    "name": "the model is chosen by model=NAME",
    "num_classes": "the data say it",
    # no keywords of the user's
    "image_size": "the data say it. To resize all images: model_args.resize=224",
}
# weights of these losses: arXiv 1409.4842; TF-slim's inception_v3
AUXILIARY = {"googlenet": 0.3, "inception_v3": 0.4}


def build_model(name: str, num_classes: int, image_size: int = 32, **model_args: Any) -> nn.Module:
    """The network `name`, with its initial weights drawn from torch's global generator.

    Args:
        image_size: the images' shorter side, pixels. Images that are too small for the network are
            resized by it.
        model_args: what its function takes. For torchvision's networks also `weights` (DEFAULT, or
            a name that torchvision knows: trained ones, on ImageNet), `stem` (imagenet: as
            torchvision has it) and `resize` (pixels: all images are resized to it first).

    Returns:
        A module that gives logits [B, num_classes]; googlenet and inception_v3 give `WithAuxiliary`
        in training.

    Raises:
        ValueError: there is no such model, or it does not take these keywords.
        DataError: the trained weights cannot be downloaded.
    """
    network, weights = _untrained(name, num_classes, image_size, model_args)
    if weights is not None:
        _load(network, name, weights)
    size = next(
        (hook.size for hook in network._forward_pre_hooks.values() if isinstance(hook, Resize)),
        image_size,
    )
    if size != image_size:
        log.info(
            f"{name} is given images of {size} x {size}: those of {image_size} x {image_size} are resized"
        )
    return network


def build_untrained(
    name: str, num_classes: int, image_size: int = 32, **model_args: Any
) -> nn.Module:
    """The same network without the trained weights of `model_args`: nothing is downloaded.

    For weights of one's own, out of a checkpoint of what `build_model` gave for the same arguments.

    Raises:
        ValueError: as `build_model`.
    """
    return _untrained(name, num_classes, image_size, model_args)[0]


def _untrained(
    name: str, num_classes: int, image_size: int, model_args: dict[str, Any]
) -> tuple[nn.Module, Any]:
    """The network, and which trained weights it is to get; None: none."""
    _check_name(name)
    if name in MODELS:
        return _built(
            name, MODELS[name], {"num_classes": num_classes, **model_args}, list(model_args)
        ), None
    return _structure(name, num_classes, image_size, **model_args)


def check_model(name: str, /, **model_args: Any) -> None:
    """Whether there is such a model, and takes these keywords; takes no memory, and downloads
    nothing.

    Raises:
        ValueError: there is none, and the message names the nearest; or it does not take them.
    """
    _check_name(name)
    for key, hint in GIVEN.items():
        if key in model_args:
            raise ValueError(f"model_args.{key}: {hint}.")
    with _WithoutMemory():
        if name in MODELS:
            _built(name, MODELS[name], {"num_classes": 2, **model_args}, list(model_args))
        else:
            _structure(name, 2, SMALL_IMAGE, **model_args)


def _check_name(name: str) -> None:
    if name in MODELS:
        return
    known = [*MODELS, *_classifiers()]
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        others = f": small, or one of the {len(known) - 1} classifiers of torchvision."
        hint = f": did you mean {' or '.join(close)}?" if close else others
        raise ValueError(f'unknown model "{name}"{hint}')


def _classifiers() -> list[str]:
    import torchvision.models as models  # here: it takes 0.7 s, and `small` does not need it

    return models.list_models(module=models)


def _built(
    name: str, build: Callable[..., nn.Module], args: dict[str, Any], given: list[str]
) -> nn.Module:
    """Raises: ValueError where `build` does not take what the user gave; other errors of our own
    models are bugs."""
    foreign = name not in MODELS
    try:
        return build(**args)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if not given or not (foreign or "unexpected keyword" in str(error)):
            raise
        shown = ", ".join(f"{key}={args.get(key)}" for key in given)
        why = str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot be built with {shown}: {why}") from error


# --- torchvision's networks ---


class WithAuxiliary(NamedTuple):
    """What a network with auxiliary outputs gives in training.

    Their losses count `weight` times each; without them its first layers hardly learn.
    """

    logits: Tensor  # [B, classes]
    others: tuple[Tensor, ...]  # of the same shape
    weight: float


def _structure(
    name: str,
    num_classes: int,
    image_size: int,
    stem: str = "",
    weights: Any = None,
    resize: int | None = None,
    **args: Any,
) -> tuple[nn.Module, Any]:
    """The network with fresh weights, and which trained ones it is to get.

    What is added to it are hooks: its parameters keep torchvision's names, and fit each other's
        checkpoints.
    """
    from torchvision.models import get_model

    given = list(args)
    if stem not in ("", "imagenet"):
        raise ValueError(
            f"model_args.stem={stem}: it takes imagenet, or blank for one that suits the images."
        )
    if resize is not None and not (isinstance(resize, int) and resize >= 1):
        raise ValueError(
            f"model_args.resize={resize}: it takes a whole number of pixels, 1 or more."
        )
    chosen = _weights(name, weights)
    if name in AUXILIARY:
        args = {"init_weights": True, **args}  # else torchvision warns that it does
    if name.startswith("vit") and chosen is not None:
        args["image_size"] = chosen.meta["min_size"][0]  # some of its weights are for larger images
    network = _built(
        name, lambda **args: get_model(name, **args), {"num_classes": num_classes, **args}, given
    )
    if (
        name.startswith(STEM)
        and image_size <= SMALL_IMAGE
        and resize is None
        and not stem
        and chosen is None
    ):
        _use_small_stem(network)
    if chosen is not None and hasattr(network, "transform_input"):
        network.transform_input = True  # type: ignore[assignment]  # googlenet's and inception's are of other scales
    _add_hooks(network, name, image_size, resize)
    return network, chosen


def _use_small_stem(network: Any) -> None:
    """For images of some 32 pixels: a 3 x 3 convolution with stride 1, and no pooling.

    ImageNet's stem (7 x 7 with stride 2, then a pooling) would leave 8 x 8 of 32 x 32, and the last
    stage one pixel. The same change as in the CIFAR networks of arXiv 1512.03385, section 4.2.
    """
    channels = network.conv1.out_channels
    network.conv1 = nn.Conv2d(3, channels, 3, stride=1, padding=1, bias=False)
    # as torchvision's resnet.py
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def _add_hooks(network: Any, name: str, image_size: int, resize: int | None) -> None:
    exact = next((size for family, size in EXACT.items() if name.startswith(family)), None)
    if exact is not None:
        exact = getattr(network, "image_size", exact)
        if resize not in (None, exact):
            raise ValueError(
                f"model_args.resize={resize}: {name} takes images of {exact} x {exact} only."
            )
    least = next((size for family, size in LEAST.items() if name.startswith(family)), 1)
    wanted = exact or max(resize or image_size, least)
    if wanted != image_size:
        network.register_forward_pre_hook(Resize(wanted))
    if name in AUXILIARY:
        network.register_forward_hook(GatherAuxiliary(AUXILIARY[name]))


class Resize:
    """A forward pre-hook: images [B, 3, H, W] become [B, 3, size, size], by bilinear
    interpolation."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        shrinks = inputs[0].shape[-1] > self.size
        return F.interpolate(inputs[0], (self.size, self.size), mode="bilinear", antialias=shrinks)


class GatherAuxiliary:
    """A forward hook: torchvision's tuples, whose order differs, become one `WithAuxiliary`."""

    def __init__(self, weight: float):
        self.weight = weight

    def __call__(self, network: nn.Module, inputs: Any, outputs: Any) -> Any:
        if not isinstance(outputs, tuple):
            return outputs  # in eval mode
        others = tuple(output for output in outputs[1:] if output is not None)
        return WithAuxiliary(outputs[0], others, self.weight)


class _WithoutMemory(TorchFunctionMode):
    """Layers made within have shapes and no values.

    Under `torch.device("meta")`, regnets cannot be built: they compute their widths with tensors
    (torchvision 0.29). Layers take the memory of their parameters by `torch.empty`; what they take
    otherwise is small.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


# --- trained weights ---


def _weights(name: str, wanted: Any) -> Any:
    """The member of torchvision's enumeration, or None.

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


def _load(network: Any, name: str, weights: Any) -> None:
    """Take over what fits; the rest, such as a head for other classes, keeps its fresh weights, and
    is named.

    Through a network that torchvision fills: it knows which names have changed since the file was
        made.
    """
    trained = _downloaded(name, weights)
    own, state = network.state_dict(), trained.state_dict()
    fitting = {
        key: value for key, value in state.items() if key in own and own[key].shape == value.shape
    }
    network.load_state_dict(fitting, strict=False)
    fresh = sorted({key.rpartition(".")[0] for key in own if key not in fitting})
    log.info(
        f"{name} begins with {weights}" + (f"; not taken: {', '.join(fresh[:6])}" if fresh else "")
    )


def _downloaded(name: str, weights: Any) -> nn.Module:
    from torchvision.models import get_model

    if torch.hub.get_dir().startswith("~"):  # without a home folder, it would make a folder "~"
        torch.hub.set_dir(str(user_folder(".cache") / "torch"))
    try:
        with network_timeout():
            return get_model(name, weights=weights, progress=sys.stderr.isatty())
    except (
        OSError,
        RuntimeError,
    ) as error:  # URLError is an OSError; a wrong checksum a RuntimeError
        folder = os.path.join(torch.hub.get_dir(), "checkpoints")
        raise DataError(
            f"the trained weights of {name} cannot be downloaded: {str(error).strip('<>')}.\n"
            f"Fetch {weights.url} on a machine that reaches it, and put the file into {folder} (TORCH_HOME moves it); "
            "or train from scratch: model_args.weights=null"
        ) from error
