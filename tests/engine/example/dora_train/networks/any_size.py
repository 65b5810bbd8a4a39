"""torchvision's classifiers, changed so that they take images of any size.

Called by model.py. All that is added are hooks, so that the parameters keep torchvision's names and
checkpoints fit in both directions. tests/test_model.py tries all 80 networks of torchvision 0.29.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from .pretrained import chosen_weights

if TYPE_CHECKING:
    from torchvision.models import ResNet, WeightsEnum

# These families get a stem for images of up to SMALL_IMAGE pixels.
STEM = ("resnet", "resnext", "wide_resnet")
SMALL_IMAGE = 64
# Pixels of a side below which a network fails. Of inception, its auxiliary output fails.
LEAST = {
    "alexnet": 63,
    "convnext": 32,
    "densenet": 29,
    "googlenet": 15,
    "inception_v3": 299,
    "squeezenet1_0": 21,
    "squeezenet1_1": 17,
    "vgg": 32,
}
EXACT = {"maxvit": 224, "vit": 224}  # these take images of one size only
# Weights of the auxiliary losses: arXiv 1409.4842, and TF-slim's inception_v3.
AUXILIARY = {"googlenet": 0.3, "inception_v3": 0.4}


class WithAuxiliary(NamedTuple):
    """The outputs of a network with auxiliary outputs in training.

    Each auxiliary loss counts `weight` times. Without them the first layers hardly learn.
    """

    logits: Tensor  # [B, classes]
    others: tuple[Tensor, ...]  # each [B, classes]
    weight: float


def classifiers() -> list[str]:
    """The names of all classifiers."""
    import torchvision.models as models  # it takes 0.7 s

    return models.list_models(module=models)


def structure(
    name: str, num_classes: int, image_size: int, model_args: Mapping[str, object]
) -> tuple[nn.Module, "WeightsEnum | None"]:
    """The network with fresh weights, and the trained weights that it should get.

    Args:
        model_args: `weights`, `stem` and `resize` as in `build_model`, and keywords of torchvision.

    Raises:
        ValueError: there are no such weights, or it does not take these keywords.
    """
    own = {"stem": "", "weights": None, "resize": None, **model_args}
    stem, weights, resize = own.pop("stem"), own.pop("weights"), own.pop("resize")
    if stem not in ("", "imagenet"):
        raise ValueError(
            f"model_args.stem={stem}: it takes imagenet, or blank for one that suits the images."
        )
    if resize is not None and not (isinstance(resize, int) and resize >= 1):
        raise ValueError(
            f"model_args.resize={resize}: it takes a whole number of pixels, 1 or more."
        )
    chosen = chosen_weights(name, weights)
    network = _network(name, num_classes, own, chosen)
    is_small = image_size <= SMALL_IMAGE and resize is None
    if name.startswith(STEM) and is_small and not stem and chosen is None:
        _use_small_stem(network)  # type: ignore[arg-type]
    if chosen is not None and hasattr(network, "transform_input"):
        # The weights of googlenet and inception_v3 are for images of another scale.
        network.transform_input = True  # type: ignore[assignment]
    _add_hooks(network, name, image_size, resize)
    return network, chosen


def _network(
    name: str, num_classes: int, keywords: Mapping[str, object], chosen: "WeightsEnum | None"
) -> nn.Module:
    """torchvision's network, as it is.

    Args:
        keywords: of the user.
    """
    from torchvision.models import get_model

    args: dict[str, object] = {"num_classes": num_classes}
    if name in AUXILIARY:
        args["init_weights"] = True  # torchvision warns if it is not given
    args |= keywords
    if name.startswith("vit") and chosen is not None:
        args["image_size"] = chosen.meta["min_size"][0]  # some weights are for larger images
    try:
        return get_model(name, **args)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if not keywords:
            raise
        raise not_built(name, keywords, error) from error


def not_built(name: str, given: Mapping[str, object], error: Exception) -> ValueError:
    """The error to raise if a network does not take the keywords of the user.

    Args:
        given: the keywords.
        error: what its function raised.
    """
    shown = ", ".join(f"{key}={value}" for key, value in given.items())
    why = str(error).partition("\n")[0]
    return ValueError(f"{name} cannot be built with {shown}: {why}")


def _use_small_stem(network: "ResNet") -> None:
    """Give a network a stem for images of some 32 pixels: a 3 x 3 convolution, and no pooling.

    ImageNet's stem (7 x 7 with stride 2, then a pooling) would leave 8 x 8 of 32 x 32, and the last
    stage one pixel. The same change as in the CIFAR networks of arXiv 1512.03385, section 4.2.
    """
    channels = network.conv1.out_channels
    network.conv1 = nn.Conv2d(3, channels, 3, stride=1, padding=1, bias=False)
    # as torchvision's resnet.py initialises its convolutions
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


# --- hooks ---


def _add_hooks(network: nn.Module, name: str, image_size: int, resize: int | None) -> None:
    exact = _of_family(EXACT, name)
    if exact is not None:
        # a vit with trained weights for larger images says its own size
        exact = int(getattr(network, "image_size", exact))
        if resize not in (None, exact):
            raise ValueError(
                f"model_args.resize={resize}: {name} takes images of {exact} x {exact} only."
            )
    least = _of_family(LEAST, name) or 1
    wanted = exact or max(resize or image_size, least)
    if wanted != image_size:
        network.register_forward_pre_hook(Resize(wanted))
    if name in AUXILIARY:
        network.register_forward_hook(GatherAuxiliary(AUXILIARY[name]))


def _of_family(sizes: Mapping[str, int], name: str) -> int | None:
    """The size for the family that a network belongs to."""
    for family, size in sizes.items():
        if name.startswith(family):
            return size
    return None


def given_size(network: nn.Module, image_size: int) -> int:
    """The side of the images that the network works on, pixels.

    Args:
        image_size: the side of the images that it is called with.
    """
    for hook in network._forward_pre_hooks.values():
        if isinstance(hook, Resize):
            return hook.size
    return image_size


class Resize:
    """A forward pre-hook that resizes images to [B, 3, size, size] by bilinear interpolation."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        shrinks = inputs[0].shape[-1] > self.size
        return F.interpolate(inputs[0], (self.size, self.size), mode="bilinear", antialias=shrinks)


class GatherAuxiliary:
    """A forward hook that makes a `WithAuxiliary` of torchvision's tuples, whose order differs."""

    def __init__(self, weight: float):
        self.weight = weight

    def __call__(
        self,
        network: nn.Module,
        inputs: tuple[Tensor, ...],
        outputs: Tensor | tuple[Tensor | None, ...],
    ) -> Tensor | WithAuxiliary:
        if not isinstance(outputs, tuple):
            return outputs  # in eval mode
        logits, *others = (output for output in outputs if output is not None)
        return WithAuxiliary(logits, tuple(others), self.weight)
