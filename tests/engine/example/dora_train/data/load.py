"""From `cfg.data` to train, validation and test batches, in plain PyTorch:

`load_data(**cfg.data, seed=cfg.seed)`.

A set that fits is held in memory as uint8, and a batch is made by indexing: faster than workers,
and exact to resume, since the order of an epoch and the draws of a sample are functions of (seed,
epoch, sample). Knows nothing of Lightning, Dora or Hydra: `basic/` and notebooks use it as well.
Reading on: datasets.py, image_folder.py (what there is), batches.py, augment.py (what becomes of
it).
"""

import difflib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..data_error import DataError
from .batches import Batches
from .datasets import cifar10, digits, fashion_mnist, mnist
from .image_folder import image_folder, listed
from .image_list import RULES, check_root
from .images import PARTS, Contents, Images
from .inputs import Inputs

__all__ = ["DATASETS", "Batches", "Data", "DataError", "check_data", "load_data"]

# name -> function; its keywords are the data set's own keys in conf/data
DATASETS: dict[str, Callable[..., Images]] = {
    "digits": digits,
    "cifar10": cifar10,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "image_folder": image_folder,
}


@dataclass
class Data:
    """A data set, ready to train on."""

    name: str
    classes: list[str]
    train: Batches
    valid: Batches
    test: Batches
    images: Images

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """The shorter side of an image, pixels."""
        return min(self.train.source.shape[2:])

    @property
    def inputs(self) -> Inputs:
        """What has to be known to classify other images as these are: stored with an experiment."""
        mean, std = self.train.mean.flatten().tolist(), self.train.std.flatten().tolist()
        shape = list(self.train.source.shape[1:])
        return Inputs(list(self.classes), shape, mean, std, self.images.on_white)

    def contents(self) -> Contents:
        """What the set consists of, as plain Python. An experiment stores it."""
        return self.images.known_contents()

    def to(self, device: torch.device | str) -> "Data":
        """From here on all batches come on this device; a CUDA GPU that has room for the whole set
        holds it."""
        for part in PARTS:
            getattr(self, part).to(device)
        return self

    def __str__(self) -> str:
        sizes = ", ".join(f"{getattr(self, part).num_samples:,} {part}" for part in PARTS)
        return f"{self.name} ({sizes})"


def load_data(
    name: str,
    batch_size: int,
    augment: bool = True,
    seed: int = 0,
    *,
    crop: int | None = None,
    flip: bool | None = None,
    cutout: int = 0,
    **own: Any,
) -> Data:
    """The data set `name`, in batches of `batch_size` over all ranks.

    Args:
        augment: whether the training images are cropped, flipped and cut out at all.
        seed: of the order and the augmentation.
        crop, flip, cutout: as in augment.py; None: what suits the data set, and stands in its file
            of conf/data.
        own: the data set's own keywords, as the function of that name takes them.

    Raises:
        ValueError: what `check_data` refuses.
        DataError: files are missing, unreadable or cannot be downloaded.
    """
    check_data(name, batch_size, augment, crop=crop, flip=flip, cutout=cutout, **own)
    images = DATASETS[name](**own)
    mean, std = images.statistics()
    asked: dict[str, Any] = {"crop": crop, "flip": flip, "cutout": cutout, "seed": seed}
    assert images.suits is not None
    augmentation = replace(
        images.suits, **{key: value for key, value in asked.items() if value is not None}
    )

    def batches(part: str, **how) -> Batches:
        rows = images.parts[part]
        return Batches(
            images.source, rows, images.labels[rows], batch_size, mean, std, seed=seed, **how
        )

    train = batches("train", shuffle=True, augmentation=augmentation if augment else None)
    return Data(name, images.classes, train, batches("valid"), batches("test"), images)


def listed_contents(name: str, **keys: Any) -> Contents:
    """What a data set consists of, by the names and sizes of its files alone; empty if it has none.

    Args:
        name, keys: as `load_data` takes them.

    Raises:
        DataError: the files are not as they should be.
    """
    if name != "image_folder":
        return {}
    return listed(**{key: keys[key] for key in ("root", "valid", "rules") if key in keys})


def check_data(
    name: str = "",
    batch_size: int = 0,
    augment: bool = True,
    seed: int = 0,
    *,
    crop: int | None = None,
    flip: bool | None = None,
    cutout: int = 0,
    **own: Any,
) -> None:
    """Whether `load_data` can take this, without loading or downloading anything.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(str(name), DATASETS, n=1)
        hint = f": did you mean {close[0]}?" if close else f"; there is: {', '.join(DATASETS)}."
        raise ValueError(f'unknown data set "{name}"{hint}')
    takes = list(inspect.signature(DATASETS[name]).parameters)
    unknown = [key for key in own if key not in takes]
    if unknown:
        raise ValueError(
            f"data.{unknown[0]}: {name} has no such key. Its own are: {', '.join(takes) or 'none'}."
        )
    if not isinstance(batch_size, int) or batch_size < 2:
        raise ValueError(
            f"data.batch_size={batch_size}: it takes 2 or more (batch norm needs two samples)."
        )
    _check_range("crop", crop, 0, 10_000)
    _check_range("cutout", cutout, 0, 10_000)
    _check_range("image_size", own.get("image_size"), 1, 10_000)
    _check_range("num_workers", own.get("num_workers"), 0, 10_000)
    _check_range("max_gb", own.get("max_gb"), 0, math.inf)
    for key in ("root", "folder"):
        if own.get(key) is not None and not isinstance(own[key], str):
            raise ValueError(
                f"data.{key}={own[key]}: it takes the path of a folder, e.g. ./{own[key]}."
            )
    share = own.get("valid", 0.1)
    if not (isinstance(share, (int, float)) and 0 < share < 0.5):
        raise ValueError(
            f"data.valid={share}: it takes a share of the training set between 0 and 0.5, e.g. 0.1."
        )
    if own.get("rules", 1) not in RULES:
        raise ValueError(f"data.rules={own['rules']}: it takes {' or '.join(map(str, RULES))}.")
    if name == "image_folder":
        check_root(own.get("root"))


def _check_range(key: str, value: object, least: int, most: float) -> None:
    if value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= least:
        raise ValueError(f"data.{key}={value}: it takes {least} or more.")
    if not value <= most:
        raise ValueError(f"data.{key}={value}: it takes no more than {most:,}.")
    if key != "max_gb" and value != int(value):
        raise ValueError(f"data.{key}={value}: it takes a whole number.")
