"""Data sets as their authors publish them: found below a folder, unpacked or downloaded if needed.

Called by datasets.py. torchvision downloads them, checks them, and keeps each in its own folder.
Files that were copied by hand may lie one folder higher or lower. They may still be packed, or be
incomplete.
"""

import gzip
import logging
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data_error import DataError
from .cache import beside, cache_folder, locked, network_timeout, writing
from .images import Images

log = logging.getLogger("dora_train")


@dataclass(frozen=True)
class Published:
    """The files of a data set.

    Attributes:
        name: as it is shown to the user.
        inner: the folder below `data.folder` in which torchvision keeps it: "MNIST/raw".
        files: the names of all its files.
        download: downloads it with torchvision into `inner` below the given folder.
        archive: the file that holds all files. Empty: each file is packed by gzip on its own.
        own_names: whether only this data set has files of these names. MNIST and Fashion-MNIST
            share theirs.
    """

    name: str
    inner: str
    files: list[str]
    download: Callable[[Path], Any]
    archive: str = ""
    own_names: bool = False

    @property
    def top(self) -> str:
        return self.inner.partition("/")[0]


def read_published(
    published: Published, folder: str | None, read: Callable[[Path], Images]
) -> Images:
    """The images of a data set, which is downloaded if it is not there.

    Args:
        folder: the folder to look in and to download to, as `data.folder` has it.
        read: makes images of the folder that holds all files, unpacked.

    Raises:
        DataError: it is not there and cannot be downloaded, is incomplete, or is something else.
    """
    here = _found(published, cache_folder(folder))
    missing = [name for name in published.files if not _plain_or_packed(here / name)]
    if missing:
        raise DataError(
            f"{published.name} is not complete: {here} lacks {', '.join(missing)}.\n"
            f"Copy them there; or move {here} away, then {published.name} is downloaded anew"
        )
    try:
        with _unpacked(published, here) as plain:
            return read(plain)
    except DataError:  # it is an Exception too, and has its own message
        raise
    except Exception as error:  # other bytes fail in any way: pickle, struct, assert, numpy
        raise DataError(
            f"{here} is not {published.name} as torchvision knows it: {last_line(error)}.\n"
            "Move it away, then it is downloaded anew; or name another folder: data.folder=FOLDER"
        ) from error


# --- finding ---


def _found(published: Published, root: Path) -> Path:
    """The folder with the data set's files. They are fetched if there are none."""
    here = _where(published, root)
    if here is not None:
        return here
    _refuse_lookalikes(published, root)
    here = root / published.inner
    with locked(root / published.name, f"fetches {published.name}"):
        if not here.exists():  # another process may have fetched it while this one waited
            _fetch(published, root)
    return here


def _where(published: Published, root: Path) -> Path | None:
    """The folder that holds any of the files: torchvision's folder, or a folder above it.

    `root` itself may be one of these.
    """
    top, _, rest = published.inner.partition("/")
    places = [root / published.inner, root / top]
    if published.own_names or _same_word(root.name, top):
        places += [root / rest, root]
    if root.name == rest and _same_word(root.parent.name, top):
        places.append(root)
    for place in places:
        if any(_plain_or_packed(place / name) for name in published.files):
            return place
    return None


def _plain_or_packed(path: Path) -> Path | None:
    """The file, or the packed file beside it."""
    packed = path.with_name(f"{path.name}.gz")
    return next((found for found in (path, packed) if found.exists()), None)


def _same_word(one: str, other: str) -> bool:
    """`fashion-mnist` is `FashionMNIST`."""
    return "".join(filter(str.isalnum, one.lower())) == "".join(filter(str.isalnum, other.lower()))


def _refuse_lookalikes(published: Published, root: Path) -> None:
    """Do nothing if a download disturbs no files.

    Raises:
        DataError: there are files that may or may not belong to the data set.
    """
    name, inner = published.name, root / published.inner
    if (root / published.top).exists():
        raise DataError(
            f"{root / published.top} holds no file of {name} ({published.files[0]} ...).\n"
            f"Copy them into {inner}; or move the folder away, then {name} is downloaded"
        )
    loose = [file for file in published.files if _plain_or_packed(root / file)]
    if loose:
        raise DataError(
            f"{root} holds {loose[0]}, which may belong to {name} or to another data set.\n"
            f"Move the {len(published.files)} files of {name} into {inner}"
        )


# --- unpacking ---


@contextmanager
def _unpacked(published: Published, here: Path) -> Iterator[Path]:
    """A folder with all files unpacked: `here`, or a temporary folder if some are packed.

    Raises:
        DataError: a packed file is damaged.
    """
    packed = [name for name in published.files if not (here / name).exists()]
    if not packed:
        yield here
        return
    with tempfile.TemporaryDirectory(prefix="dora_train-") as folder:
        aside = Path(folder)
        for name in published.files:
            if name in packed:
                _gunzip(here / f"{name}.gz", aside / name)
            else:  # torchvision looks for all files in one folder
                (aside / name).symlink_to((here / name).absolute())
        yield aside


def _gunzip(packed: Path, path: Path) -> None:
    try:
        with gzip.open(packed) as source, path.open("wb") as stream:
            shutil.copyfileobj(source, stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{packed} is damaged: {error}.\nRemove it, and copy or download it again"
        ) from error


# --- fetching ---


def _fetch(published: Published, root: Path) -> None:
    """Download or unpack the data set into a folder aside, and move it when it is whole.

    So files that a killed process has left are never taken for the data. If locks do not work,
    other processes do the same, each into its own folder. The first one that is done counts.
    """
    archive = root / published.archive if published.archive else None
    aside = beside(root / published.name)
    try:
        with writing(root):
            aside.mkdir()
        if archive and archive.exists():
            _extract(archive, aside)
        else:
            with network_timeout():
                published.download(aside)
        (aside / published.top).replace(root / published.top)
    except DataError:
        raise
    except Exception as error:  # URLError, RuntimeError for a wrong checksum, tar and zip errors
        if (root / published.inner).exists():  # another process was first
            return
        raise DataError(
            f"{published.name} is not in {root}, and cannot be downloaded: {last_line(error)}.\n"
            f"Copy {published.archive or published.top} there from a machine that has it; or name "
            "the folder that holds it: data.folder=FOLDER, or DORA_TRAIN_DATA=FOLDER for all "
            "commands"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder.

    Raises:
        DataError: the archive is damaged, e.g. after a download that broke off.
    """
    from torchvision.datasets.utils import extract_archive

    log.info(f"unpacking {archive}")
    try:
        extract_archive(archive, folder)
    except Exception as error:  # tarfile.ReadError, EOFError, zlib.error
        raise DataError(
            f"{archive} cannot be unpacked: {last_line(error)}.\n"
            "Remove it, then it is downloaded anew; or copy it again"
        ) from error


def last_line(error: Exception) -> str:
    """The last line of an error's message, which names the cause."""
    lines = [line.strip(" <>.") for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
