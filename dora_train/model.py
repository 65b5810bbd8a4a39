"""From a name to a network: `build_model(cfg.model, num_classes, **cfg.model_args)`.

`small` is our own; any other name is one of torchvision's classifiers. All take images [B, 3, H, W] float32 and give
logits [B, num_classes]. To add your own: write it here, and put it into `MODELS`.
"""

import difflib
from collections.abc import Callable

from torch import nn


def small(num_classes: int, width: int = 32) -> nn.Module:
    """Three convolutions and an average: some 50 k parameters, made for images of 8 to 32 pixels."""

    def block(channels: int, features: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(channels, features, 3, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(features), nn.ReLU(inplace=True))

    return nn.Sequential(
        block(3, width, 1), block(width, 2 * width, 2), block(2 * width, 2 * width, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes))


MODELS: dict[str, Callable[..., nn.Module]] = {"small": small}


def build_model(name: str, num_classes: int, **model_args: object) -> nn.Module:
    """The network `name`, with its initial weights drawn from torch's global generator.

    Raises:
        ValueError: there is no such model, or it does not take these keywords.
    """
    check_model(name)
    if name in MODELS:
        return _built(name, MODELS[name], num_classes, model_args)
    from torchvision.models import get_model

    return _built(name, lambda num_classes, **args: get_model(name, num_classes=num_classes, **args), num_classes,
                  model_args)


def _built(name: str, build: Callable[..., nn.Module], num_classes: int, model_args: dict) -> nn.Module:
    try:
        return build(num_classes, **model_args)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"{name} does not take {', '.join(model_args)}: {error}") from error


def check_model(name: str) -> None:
    """Whether there is such a model, without building it.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    if name in MODELS:
        return
    known = [*MODELS, *_classifiers()]
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        hint = f": did you mean {' or '.join(close)}?" if close else f": small, or one of torchvision ({len(known)})."
        raise ValueError(f'unknown model "{name}"{hint}')


def _classifiers() -> list[str]:
    import torchvision.models as models  # here: it takes 0.7 s, and `small` does not need it

    return models.list_models(module=models)
