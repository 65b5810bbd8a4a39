"""From `cfg.data` to train, validation and test batches: `load_data(**cfg.data, seed=cfg.seed)`.

A data set that fits into memory is held there as uint8, and a batch is made by indexing. That is
faster than workers. It resumes exactly, since the order of an epoch and the draws of a sample are
functions of (seed, epoch, sample). It is plain PyTorch: `basic/` and notebooks use it as well.
Read datasets.py and image_folder.py next, then batches.py and augment.py.
"""

import difflib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..data_error import DataError
from .augment import ALTERNATE, Augmentation
from .batches import Batches
from .datasets import cifar10, digits, fashion_mnist, mnist
from .image_folder import image_folder, listed
from .image_list import RULES, check_root
from .images import PARTS, Contents, Images, thinned
from .inputs import Inputs

__all__ = ["DATASETS", "Batches", "Data", "DataError", "check_data", "load_data"]

# name -> function. Its keywords are the data set's own keys in conf/data.
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
        """How an image becomes an input. A run stores it, so that predict.py can classify images."""
        mean, std = self.train.mean.flatten().tolist(), self.train.std.flatten().tolist()
        shape = list(self.train.source.shape[1:])
        return Inputs(list(self.classes), shape, mean, std, self.images.on_white)

    def contents(self) -> Contents:
        """Names, sizes and checksums of the data. A run stores them to find changes later."""
        return self.images.known_contents()

    def to(self, device: torch.device | str) -> "Data":
        """From now on, give all batches on this device: see `Batches.to`."""
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
    flip: bool | str | None = None,
    cutout: int = 0,
    share: float = 1.0,
    **own: Any,
) -> Data:
    """The data set `name`, in batches of `batch_size` over all ranks.

    Args:
        augment: whether the training images are augmented at all.
        seed: of the order and the augmentation.
        crop, flip, cutout: as in augment.py. None: as it suits the data set, see `Images.suits`.
        share: of the training images that is used, the same ones whatever the seed. Validation and
            test stay whole, and mean and std are those of all training images.
        own: the data set's own keywords, as the function of that name takes them.

    Raises:
        ValueError: see `check_data`.
        DataError: files are missing, unreadable or cannot be downloaded.
    """
    check_data(name, batch_size, augment, crop=crop, flip=flip, cutout=cutout, share=share, **own)
    images = DATASETS[name](**own)
    mean, std = images.statistics()

    def batches(part: str, shuffle: bool = False, changes: Augmentation | None = None) -> Batches:
        rows = images.parts[part]
        if part == "train":
            rows = thinned(rows, images.labels, share)
        return Batches(
            images.source,
            rows,
            images.labels[rows],
            batch_size,
            mean,
            std,
            seed=seed,
            shuffle=shuffle,
            augmentation=changes,
        )

    augmentation = _augmentation(images, crop, flip, cutout, seed) if augment else None
    train = batches("train", shuffle=True, changes=augmentation)
    return Data(name, images.classes, train, batches("valid"), batches("test"), images)


def _augmentation(
    images: Images, crop: int | None, flip: bool | str | None, cutout: int, seed: int
) -> Augmentation:
    """The augmentation that suits the images, with the values that the user chose."""
    chosen: dict[str, Any] = {"cutout": cutout, "seed": seed}
    if crop is not None:
        chosen["crop"] = crop
    if flip is not None:
        chosen["flip"] = flip
    assert images.suits is not None
    return replace(images.suits, **chosen)


def listed_contents(name: str, **keys: Any) -> Contents:
    """Names and sizes of the files of an image folder, without checksums. Else empty.

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
    flip: bool | str | None = None,
    cutout: int = 0,
    share: float = 1.0,
    **own: Any,
) -> None:
    """Check that `load_data` can take this, without loading or downloading anything.

    Raises:
        ValueError: it cannot. The message says why.
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
    if flip not in (None, True, False, ALTERNATE):
        raise ValueError(f"data.flip={flip}: it takes true, false or {ALTERNATE}.")
    _check_range("image_size", own.get("image_size"), 1, 10_000)
    _check_range("num_workers", own.get("num_workers"), 0, 10_000)
    _check_range("max_gb", own.get("max_gb"), 0, math.inf)
    for key in ("root", "folder"):
        # on a command line, a folder with a name such as 2026 is a number
        if own.get(key) is not None and not isinstance(own[key], str):
            raise ValueError(
                f"data.{key}={own[key]}: it takes the path of a folder, e.g. ./{own[key]}."
            )
    if not (isinstance(share, (int, float)) and 0 < share <= 1):
        raise ValueError(f"data.share={share}: it takes more than 0, and 1 at the most.")
    held_out = own.get("valid", 0.1)
    if not (isinstance(held_out, (int, float)) and 0 < held_out < 0.5):
        raise ValueError(
            f"data.valid={held_out}: it takes a share of the training set between 0 and 0.5, e.g. 0.1."
        )
    if own.get("rules", 1) not in RULES:
        raise ValueError(f"data.rules={own['rules']}: it takes {' or '.join(map(str, RULES))}.")
    if name == "image_folder":
        check_root(own.get("root"))


def _check_range(key: str, value: object, least: int, most: float) -> None:
    """Check that `value` is None, or a number in least .. most. Only `max_gb` may have a fraction."""
    if value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= least:
        raise ValueError(f"data.{key}={value}: it takes {least} or more.")
    if not value <= most:
        raise ValueError(f"data.{key}={value}: it takes no more than {most:,}.")
    if key != "max_gb" and value != int(value):
        raise ValueError(f"data.{key}={value}: it takes a whole number.")
