"""Your own images: `root/train/CLASS/**`, and `valid/` and `test/` beside `train/` if they exist.

They are decoded once, by several processes, into one file of uint8. Every job of the machine maps
that file into its memory. If a set is too large for that, the workers of an ordinary DataLoader
decode it anew in each epoch. The batches are the same, bit for bit: order, crops and flips are
drawn by counters, and the statistics are those of the same images.
"""

import hashlib
import logging
import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data_error import DataError
from .augment import Augmentation
from .cache import cache_folder
from .decoding import DECODING
from .image_files import InFiles
from .image_list import FOLDERS, NEWEST_RULES, RULES, Listing, Rules, list_images
from .images import SPLIT_SEED, Contents, Images, Source, split
from .packed import packed

log = logging.getLogger("dora_train")
STATISTICS_FROM = 10_000  # images. Their mean and std differ from those of all by less than 1%.


def image_folder(
    root: str,
    image_size: int = 64,
    valid: float = 0.1,
    folder: str | None = None,
    num_workers: int | None = None,
    max_gb: float | None = None,
    rules: int = NEWEST_RULES,
) -> Images:
    """The images below `root`, in 3 channels of `image_size` x `image_size`.

    If a part has no folder, a share `valid` of the training images is held out for it.

    Args:
        folder: of the cache that holds the packed images.
        num_workers: processes that decode. None: one per core. Any number gives the same batches.
        max_gb: a larger set is not packed. None: half of the machine's memory.
        rules: how images are found, decoded and held out: see `Rules` in image_list.py.

    Raises:
        DataError: the folders are not as described, or images cannot be read.
    """
    listing = list_images(root, RULES[rules])
    if ignored := listing.ignored_line():
        log.info(ignored)
    parts = _parts(listing, valid, RULES[rules])
    on_white, shape = RULES[rules].on_white, (3, image_size, image_size)
    name = f"{Path(listing.root).name[:40]}-{image_size}-{listing.key(DECODING, on_white)}"
    path = cache_folder(folder) / "packed" / name
    workers = cores() if num_workers is None else num_workers
    unreadable = path.with_name(f"{name}.unreadable.txt")
    files = InFiles(listing.paths, shape, workers, on_white, unreadable)
    pixels: Source = files
    checksums = None
    if math.prod(files.shape) <= _limit(max_gb):
        pixels, checksums = packed(files, path, listing.root)
    labels, suits = torch.tensor(listing.labels), Augmentation(crop=image_size // 8, flip=True)
    return Images(
        pixels,
        labels,
        listing.classes,
        parts,
        suits,
        STATISTICS_FROM,
        on_white=on_white,
        contents=_contents(listing, parts, checksums),
    )


def _limit(max_gb: float | None) -> float:
    """Bytes of pixels, above which a set is not packed."""
    return memory() / 2 if max_gb is None else max_gb * 1e9


def listed(root: str, valid: float = 0.1, rules: int = NEWEST_RULES) -> Contents:
    """Names and sizes of the images of a folder, without checksums: no image is opened.

    Raises:
        DataError: see `image_folder`.
    """
    listing = list_images(root, RULES[rules])
    return _contents(listing, _parts(listing, valid, RULES[rules]), None)


def cores() -> int:
    """The number of cores that this process may use. A SLURM job may have fewer than its node."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> float:
    """Bytes of this machine's memory."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _contents(listing: Listing, parts: dict[str, Tensor], checksums: np.ndarray | None) -> Contents:
    """{name: [part, size, checksum]} of all images.

    Args:
        checksums: [N] uint32. None: not known.
    """
    uses = np.empty(len(listing.names), dtype=object)
    for part, rows in parts.items():
        uses[rows.numpy()] = part
    contents: Contents = {}
    for name, use, (size, *_) in zip(listing.names, uses, listing.stamps):
        contents[name] = [use, size, None]
    if checksums is not None:
        for file, checksum in zip(contents.values(), checksums.tolist()):
            file[2] = f"{checksum:08x}"
    return contents


# --- held-out images ---


def _parts(listing: Listing, valid: float, rules: Rules) -> dict[str, Tensor]:
    """The rows of each part. A part without a folder is held out of the training images."""
    held_out = _held_out_by_name if rules.by_name else _held_out_by_place
    return held_out(listing, valid)


def _held_out_by_name(listing: Listing, valid: float) -> dict[str, Tensor]:
    """Images are held out by a hash of their names, which gives each a place in 0 .. 1.

    The lowest places are for the test, the highest ones for the validation. So no image changes its
    part if other images come or go. The images of a smaller share `valid` are a part of those of a
    larger share.

    Raises:
        DataError: a class is left without training images, or a part without any images.
    """
    own = np.array(listing.parts)
    places = np.array([_place(name) for name in listing.names])
    uses = own.copy()
    if "test" not in own:
        uses[(own == "train") & (places < valid)] = "test"
    if "valid" not in own:
        uses[(own == "train") & (places >= 1 - valid)] = "valid"
    labels = np.array(listing.labels)
    for part in FOLDERS:
        counts = np.bincount(labels[uses == part], minlength=len(listing.classes))
        _refuse_or_name_missing(listing, part, counts, valid)
    return {part: torch.from_numpy(np.flatnonzero(uses == part)) for part in FOLDERS}


def _place(name: str) -> float:
    """The place of an image in 0 .. 1, by its class and file name. Its part does not matter."""
    name = name.partition("/")[2]
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def _refuse_or_name_missing(listing: Listing, part: str, counts: np.ndarray, valid: float) -> None:
    """Name the classes that have no image in this part.

    Args:
        counts: the number of images of each class.

    Raises:
        DataError: it is the training set, or no class has an image.
    """
    missing = [listing.classes[label] for label in np.flatnonzero(counts == 0)]
    if not missing:
        return
    few = ", ".join(missing[:5])
    if len(missing) > 5:
        few += " ..."
    if part == "train" or len(missing) == len(counts):
        raise DataError(
            f"data.valid={valid}: no image is left for the {part} set of {few}. A hash of its name "
            "decides whether an image is held out.\n"
            f"Add images, change data.valid, or make folders {listing.root}/valid and test"
        )
    log.info(f"the {part} set has no image of {len(missing)} classes: {few}")


def _held_out_by_place(listing: Listing, valid: float) -> dict[str, Tensor]:
    """The older rule: a fixed share of each class, drawn anew if an image comes or goes."""
    own = np.array(listing.parts)
    parts = {part: torch.from_numpy(np.flatnonzero(own == part)) for part in FOLDERS}
    shares = {part: valid for part in ("valid", "test") if not len(parts[part])}
    labels = torch.tensor(listing.labels)[parts["train"]]
    held = split(labels, SPLIT_SEED, **{"valid": 0.0, "test": 0.0, **shares})
    return parts | {part: parts["train"][held[part]] for part in ["train", *shares]}
