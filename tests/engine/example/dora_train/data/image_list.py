"""Which images lie in a folder: `root/train/CLASS/**`, with `valid/` and `test/` beside `train/`.

Called by image_folder.py. It looks at names and sizes and opens no image. Files that it does not
take are counted. Standard library only.
"""

import hashlib
import json
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data_error import DataError
from .home import expanded

# part -> the names that its folder may have
FOLDERS = {"train": ["train"], "valid": ["valid", "val"], "test": ["test"]}
# torchvision's IMG_EXTENSIONS
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


# --- rules ---


@dataclass(frozen=True)
class Rules:
    """How images are found, decoded and held out. An experiment keeps the rules it was made with.

    Attributes:
        suffixes: of the files that are images.
        nested: whether images may lie in folders below the folder of their class.
        on_white: whether an image with transparency is laid on white.
        by_name: whether an image is held out because of its name alone. Otherwise its place among
            the images of its class decides.
    """

    suffixes: tuple[str, ...]
    nested: bool
    on_white: bool
    by_name: bool


RULES = {
    1: Rules((".jpg", ".jpeg", ".png"), nested=False, on_white=False, by_name=False),
    2: Rules(SUFFIXES, nested=True, on_white=True, by_name=True),
}
OLDEST_RULES = 1  # of the experiments that were made before rules had numbers
NEWEST_RULES = max(RULES)


def with_rules(data: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of `load_data` that an experiment stored, with its rules if they are missing."""
    if data.get("name") != "image_folder":
        return dict(data)
    return {"rules": OLDEST_RULES, **data}


# --- a listing ---


@dataclass
class Listing:
    """The images of all parts, in the order of part, class and name: the same on every machine.

    Attributes:
        root: the folder, as a path without links.
        names: `PART/CLASS/NAME` of each image, with slashes.
        paths: the file of each image.
        labels, parts: the number of the class, and the part, of each image.
        stamps: size in bytes, mtime and ctime in ns of each image. They tell whether a packed file
            is still right. A ctime changes with every write. `cp -p` and `rsync -t` set an mtime.
        ignored: how many files of each kind were not taken.
    """

    root: str
    classes: list[str]
    names: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    stamps: list[tuple[int, int, int]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def key(self, *decoding: object) -> str:
        """A hash that changes if any image changes, or any of `decoding`."""
        content = json.dumps([decoding, self.names, self.stamps])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def ignored_line(self) -> str:
        """`ignored in ROOT: 60 .webp, 3 .txt, 2 hidden`; empty if everything was taken."""
        if not self.ignored:
            return ""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.ignored.most_common())
        return f"ignored in {self.root}: {kinds}"


def check_root(root: str | None) -> dict[str, Path]:
    """The folders of the parts that exist. Looks at names only.

    Raises:
        DataError: `root` has no folder train/ with at least two classes.
    """
    if not root:
        raise DataError(
            "data=image_folder needs the folder of your images: data.root=FOLDER, "
            "with train/CLASS/*.jpg."
        )
    top = expanded(root)
    if not top.is_dir():
        raise DataError(f"data.root={root}: there is no such folder (from {Path.cwd()}).")
    found = {}
    for part, names in FOLDERS.items():
        for name in reversed(names):  # the first name counts
            if (top / name).is_dir():
                found[part] = top / name
    if "train" not in found:
        raise DataError(
            f'data.root={root}: it has no folder "train"; it takes train/CLASS/*.jpg, '
            "and may have valid/ and test/ alike. "
            f"There is: {_some(entry.name for entry in _entries(top))}."
        )
    if len(_folders(found["train"])) < 2:
        raise DataError(
            f"{found['train']} holds {len(_folders(found['train']))} folders: it takes "
            "one per class, at least two, with images in each."
        )
    return found


def list_images(root: str, rules: Rules = RULES[NEWEST_RULES]) -> Listing:
    """Every image below `root`, and the number of files that are not taken.

    Raises:
        DataError: see `check_root`; or a class has no images, or is not a class of train/.
    """
    folders = check_root(root)
    top = folders["train"].parent
    listing = Listing(str(top.resolve()), _folders(folders["train"]))
    _count_outside(listing.ignored, top, {folder.name for folder in folders.values()})
    for part, folder in folders.items():
        unknown = sorted(set(_folders(folder)) - set(listing.classes))
        if unknown:
            raise DataError(
                f'{folder / unknown[0]}: there is no class "{unknown[0]}" in train; '
                f"there is: {_some(listing.classes)}."
            )
        _count_outside(listing.ignored, folder, set(listing.classes))
        for label, name in enumerate(listing.classes):
            if (folder / name).is_dir():
                _add_class(listing, folder / name, part, label, rules)
    return listing


def is_image(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    """Whether a file of this name is taken as an image. A hidden file is not."""
    return name.lower().endswith(suffixes) and not name.startswith(".")


def images_at(path: str) -> list[str]:
    """The path itself if it is a file, else all images below it, sorted. Hidden ones are left out.

    Raises:
        DataError: there is no such path, or no image below it.
    """
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise DataError(f'there is no file or folder "{path}".')
        return [path]
    found = sorted(file for _, file, _ in _walk(path, "", RULES[NEWEST_RULES], Counter(), ()))
    if not found:
        raise DataError(f"{path} holds no image ({', '.join(SUFFIXES)}).")
    return found


# --- folders ---

Stamp = tuple[int, int, int]


def _add_class(listing: Listing, folder: Path, part: str, label: int, rules: Rules) -> None:
    found = sorted(_walk(folder, "", rules, listing.ignored, ()))
    if not found:
        raise DataError(
            f"{folder} holds no image ({', '.join(rules.suffixes)}): put the images of "
            "the class there, or remove the folder."
        )
    for name, path, stamp in found:
        listing.names.append(f"{part}/{_name(folder.name, rules)}/{name}")
        listing.paths.append(path)
        listing.labels.append(label)
        listing.parts.append(part)
        listing.stamps.append(stamp)


def _walk(
    folder: Path | str,
    prefix: str,
    rules: Rules,
    ignored: Counter[str],
    above: tuple[tuple[int, int], ...],
) -> Iterator[tuple[str, str, Stamp]]:
    """(name below its class, path, stamp) of each image in a folder and in the folders below it.

    Args:
        above: device and inode of each folder that this one lies in. A link to one of them would
            be followed for ever.
    """
    here = os.stat(folder)
    above = (*above, (here.st_dev, here.st_ino))
    for entry in _entries(folder):
        if entry.name.startswith("."):  # e.g. the "._NAME" that macOS writes beside each file
            ignored["hidden"] += 1
        elif entry.is_dir():
            inner = os.stat(entry.path)
            if not rules.nested:
                ignored["folders in a class"] += 1
            elif (inner.st_dev, inner.st_ino) in above:
                ignored["links to a folder above"] += 1
            else:
                yield from _walk(entry.path, f"{prefix}{entry.name}/", rules, ignored, above)
        elif not is_image(entry.name, rules.suffixes):
            ignored[_suffix(entry.name)] += 1
        else:
            status = _status(entry)
            if stat.S_ISREG(status.st_mode):
                stamp = status.st_size, status.st_mtime_ns, status.st_ctime_ns
                yield _name(prefix + entry.name, rules), entry.path, stamp
            else:  # opening a named pipe would wait for ever
                ignored["no regular file"] += 1


def _name(name: str, rules: Rules) -> str:
    """The name in one form of Unicode: disks of macOS store accents in another form."""
    return unicodedata.normalize("NFC", name) if rules.by_name else name


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as error:
        raise DataError(f"cannot read {entry.path}: {error.strerror}.") from error


def _count_outside(ignored: Counter[str], folder: Path, known: set[str]) -> None:
    """Count what lies beside the `known` folders."""
    for entry in _entries(folder):
        if entry.name.startswith("."):
            ignored["hidden"] += 1
        elif not entry.is_dir():
            ignored[f"{_suffix(entry.name)} outside of a class"] += 1
        elif entry.name not in known:
            ignored[f"folder {entry.name}/"] += 1


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without a suffix"


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}.") from error


def _folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted. Hidden ones are left out."""
    folders = [entry.name for entry in _entries(folder) if entry.is_dir()]
    return sorted(name for name in folders if not name.startswith("."))


def _some(names: Iterable[str]) -> str:
    """At most eight of the names, or `nothing`."""
    known = sorted(names)
    shown = ", ".join(known[:8]) or "nothing"
    return f"{shown} ..." if len(known) > 8 else shown
