"""Files that another process may read or write at the same time: whole, or not there.

Every file of an experiment is written beside its place, brought to the disk, and renamed into its
place. So a reader never sees half of one, whatever is killed.
"""

import errno
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from .access import unreadable

T = TypeVar("T")


def read_json(path: Path) -> Any:
    """The content of a JSON file. None if it is missing or damaged, so that no reader fails on it.

    Raises:
        UserError: this user may not read it. It must not be taken for missing.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise unreadable(path) from error
    except (OSError, ValueError):
        return None


def read_json_as(path: Path, kind: type[T]) -> T | None:
    """As `read_json`. None as well if the content is of another type.

    Raises:
        UserError: this user may not read it.
    """
    content = read_json(path)
    return content if isinstance(content, kind) else None


def is_whole(checkpoint: Path) -> bool:
    """Whether the file of a checkpoint, a zip, is undamaged. torch's reader checks no checksum."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            # A flipped bit may mark a part as a folder. torch's reader (miniz) then reads no byte
            # of it, and raises no error.
            if any(part.external_attr for part in archive.infolist()):
                return False
            return archive.testzip() is None
    # A damaged file raises many kinds: BadZipFile, NotImplementedError, struct.error ...
    except Exception:
        return False


@contextmanager
def written_aside(path: Path, private: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to. At the end it replaces `path`, whole and on disk.

    If the writing fails, `path` stays as it is.

    Args:
        private: only this user may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        if not private:
            allow_colleagues(aside)
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def allow_colleagues(path: Path, mode: int = 0o666) -> None:
    """Give a file the rights that the umask allows.

    A file of `tempfile` is private, but colleagues share an outputs folder.
    """
    with suppress(PermissionError):  # a file system without such rights
        path.chmod(mode & ~_umask())


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def write_json(path: Path, content: object, private: bool = False) -> None:
    """Write `content`, whole or not at all.

    Args:
        private: only this user may read it.
    """
    with written_aside(path, private) as aside:
        aside.write_text(json.dumps(content) + "\n", encoding="utf-8")


def write_once(path: Path, content: object) -> bool:
    """Write `content` unless `path` exists, whole or not at all.

    Returns:
        Whether this call wrote it. Of several calls at once exactly one gets True, also if they are
        on several machines.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    aside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
            file.flush()
            os.fsync(file.fileno())
        allow_colleagues(aside)
        return take_name(aside, path)
    finally:
        aside.unlink(missing_ok=True)


# The errors of os.link on file systems without hard links: FAT, exFAT, some FUSE, SMB and container
# mounts.
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP}


def take_name(aside: Path, path: Path) -> bool:
    """Give the file `aside` the name `path` too, unless it is taken.

    Returns:
        Whether this call took the name. Of several calls at once exactly one gets True.
    """
    try:
        os.link(aside, path)  # fails if the name exists; atomic on NFS too
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    return _take_name_without_links(aside, path)


def _take_name_without_links(aside: Path, path: Path) -> bool:
    """The same by renaming folders: a folder can replace another only if that one is empty.

    Each process renames its folder to one common name, and the first one wins. The losers move the
    winner's file to `path` as well, since the winner may have been killed before it could. The
    folder stays, with a mark in it: while it is not empty, no later process can win.
    """
    if path.exists():
        return False
    turn = path.with_name(f".{path.name}.first")
    mine = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        (mine / "taken").touch()
        os.replace(aside, mine / path.name)
        allow_colleagues(mine, 0o777)
        won = _renamed(mine, turn)
        with suppress(FileNotFoundError):  # another process has moved it already
            os.replace(turn / path.name, path)
        return won
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def _renamed(folder: Path, target: Path) -> bool:
    """Rename a folder that is not empty. False if `target` is such a folder already."""
    try:
        folder.rename(target)
        return True
    except OSError:
        if target.is_dir():
            return False
        raise


def second_name(path: Path, other: Path) -> None:
    """Make `other`, which does not exist, the same file as `path`.

    On a file system without hard links it is a copy.
    """
    try:
        os.link(path, other)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(path, other)
