"""Your own images: `root/train/CLASS/*.jpg|png`, with `valid/` and `test/` beside `train/` where you have them.

They are decoded once, by several processes, into one file of uint8 that every job of the machine maps into its memory.
Sets too large for that are decoded anew each epoch by the workers of an ordinary DataLoader. The batches are the same,
bit for bit: order, crops and flips are drawn by counters, and the statistics are those of the same images.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .augment import Augmentation
from .cache import cache_folder
from .errors import DataError
from .home import expanded
from .image_files import DECODING, InFiles
from .images import SPLIT_SEED, Images, split
from .packed import packed

FOLDERS = {"train": ["train"], "valid": ["valid", "val"], "test": ["test"]}  # part -> what its folder may be called
SUFFIXES = (".jpg", ".jpeg", ".png")
STATISTICS_FROM = 10_000  # images: an error of mean and std below 1%, without a pass over a set of millions


def image_folder(root: str, image_size: int = 64, valid: float = 0.1, folder: str | None = None,
                 num_workers: int | None = None, max_gb: float | None = None) -> Images:
    """The images below `root`, in 3 channels of `image_size` x `image_size`.

    A part without a folder is held out of the training images: a share `valid` of each class.

    Args:
        folder: of the cache that holds the packed images.
        num_workers: processes that decode; None: one a core. Any number gives the same batches.
        max_gb: a set larger than this is not packed; None: half of the machine's memory.

    Raises:
        DataError: the folders are not as described, or images cannot be read.
    """
    listing = list_images(root)
    files = InFiles(listing.paths, (3, image_size, image_size), cores() if num_workers is None else num_workers)
    limit = memory() / 2 if max_gb is None else max_gb * 1e9
    fits = math.prod(files.shape) <= limit
    name = f"{Path(listing.root).name[:40]}-{image_size}-{listing.key()}"
    pixels = packed(files, cache_folder(folder) / "packed" / name, listing.root) if fits else files
    suits = Augmentation(crop=image_size // 8, flip=True)
    return Images(pixels, torch.tensor(listing.labels), listing.classes, _parts(listing, valid), suits, STATISTICS_FROM)


def cores() -> int:
    """Those that this process may use: a SLURM job may have fewer than its node."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> float:
    """Bytes of this machine's memory."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


# --- which images there are ---

@dataclass
class Listing:
    """The images of all parts, in the order of (part, class, name): the same on every machine.

    Attributes:
        paths: relative to `root`, joined with it.
        stamps: name, size in bytes, mtime and ctime in ns of each: what tells whether a packed file is still right.
            The ctime moves with every write; an mtime can be set back, as `cp -p` and `rsync -t` do.
        parts: the part of each image.
    """

    root: str
    classes: list[str]
    paths: list[str]
    labels: list[int]
    parts: list[str]
    stamps: list[tuple[str, int, int, int]]

    def key(self) -> str:
        """Changes when any image does."""
        return hashlib.sha256(json.dumps([DECODING, self.stamps]).encode()).hexdigest()[:16]


def check_root(root: str | None) -> dict[str, Path]:
    """The folders of the parts that there are; looks at names only.

    Raises:
        DataError: `root` is not a folder of train/CLASS/; the message says what it lacks.
    """
    if not root:
        raise DataError("data=image_folder needs the folder of your images: data.root=FOLDER, with train/CLASS/*.jpg.")
    top = expanded(root)
    if not top.is_dir():
        raise DataError(f"data.root={root}: there is no such folder (from {Path.cwd()}).")
    found = {part: top / name for part, names in FOLDERS.items() for name in reversed(names) if (top / name).is_dir()}
    if "train" not in found:
        raise DataError(f'data.root={root}: it has no folder "train"; it takes train/CLASS/*.jpg, and may have valid/ '
                        f"and test/ alike. There is: {_some(entry.name for entry in _entries(top))}.")
    if len(_folders(found["train"])) < 2:
        raise DataError(f"{found['train']} holds {len(_folders(found['train']))} folders: it takes one a class, "
                        "at least two, with .jpg or .png in each.")
    return found


def list_images(root: str) -> Listing:
    """Every image below `root`.

    Raises:
        DataError: as `check_root`; a class without images, or one that the training set does not know.
    """
    folders = check_root(root)
    top = folders["train"].parent
    listing = Listing(str(top.resolve()), _folders(folders["train"]), [], [], [], [])
    for part, folder in folders.items():
        unknown = sorted(set(_folders(folder)) - set(listing.classes))
        if unknown:
            raise DataError(f'{folder / unknown[0]}: there is no class "{unknown[0]}" in train; '
                            f"there is: {_some(listing.classes)}.")
        for label, name in enumerate(listing.classes):
            if (folder / name).is_dir():
                _add_class(listing, folder / name, part, label)
    return listing


def _add_class(listing: Listing, folder: Path, part: str, label: int) -> None:
    entries = sorted((entry for entry in _entries(folder) if is_image(entry.name)), key=lambda entry: entry.name)
    if not entries:
        raise DataError(f"{folder} holds no .jpg or .png: put the class's images there, or remove the folder.")
    for entry in entries:
        try:
            stat = entry.stat()
        except OSError as error:
            raise DataError(f"cannot read {entry.path}: {error.strerror}.") from error
        name = f"{part}/{folder.name}/{entry.name}"
        listing.stamps.append((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        listing.paths.append(entry.path)
        listing.labels.append(label)
        listing.parts.append(part)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}.") from error


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith("."))


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image; hidden ones are not."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _some(names: Iterable[str]) -> str:
    known = sorted(names)
    return (", ".join(known[:8]) + (" ..." if len(known) > 8 else "")) or "nothing"


def _parts(listing: Listing, valid: float) -> dict[str, Tensor]:
    """The rows of each part, the missing ones held out of the training images."""
    of = np.array(listing.parts)
    parts = {part: torch.from_numpy(np.flatnonzero(of == part)) for part in FOLDERS}
    missing = [part for part in ("valid", "test") if not len(parts[part])]
    labels = torch.tensor(listing.labels)[parts["train"]]
    held = split(labels, SPLIT_SEED, **{part: valid if part in missing else 0.0 for part in ("valid", "test")})
    return parts | {part: parts["train"][held[part]] for part in ["train", *missing]}
