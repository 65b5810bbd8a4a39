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
from typing import Any

from .access import unreadable


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if it is missing or damaged, so that no reader fails on it.

    Raises:
        UserError: this user may not read it, so that nobody knows what is in it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise unreadable(path) from error
    except (OSError, ValueError):
        return None


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint's file, a zip, holds what was written: torch's reader looks at no
    checksum.

    What a damaged file raises is not to be foreseen (BadZipFile, NotImplementedError, struct.error
    ...).
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            # miniz, which torch reads with, takes a part whose attributes say so for a folder: it
            # reads nothing, unsaid
            return archive.testzip() is None and not any(
                part.external_attr for part in archive.infolist()
            )
    except Exception:
        return False


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` at the end, whole and on disk,
    or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        allow_colleagues(aside)
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def allow_colleagues(path: Path, mode: int = 0o666) -> None:
    """What tempfile makes is private; colleagues share an outputs folder.

    Some file systems know no such rights.
    """
    with suppress(PermissionError):
        path.chmod(mode & ~_umask())


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def write_json(path: Path, content: Any) -> None:
    """Write `content` whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content) + "\n", encoding="utf-8")


def write_once(path: Path, content: Any) -> bool:
    """Write `content` unless `path` exists, whole or not at all.

    Returns:
        Whether this call wrote it: of several at once, on several machines too, exactly one gets
            True.
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


# What os.link raises on file systems without hard links: FAT, exFAT, some FUSE, SMB and container
# mounts.
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP}


def take_name(aside: Path, path: Path) -> bool:
    """Give the file `aside` the name `path` too, unless it is taken. Of several, one gets True."""
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
    """The same by renaming folders: a folder takes the place of another only if that one is empty.

    So the first whose folder has the common name is the winner. The others move its file into its
    place as well, since the winner may have been killed before it could. The folder stays, with a
    mark in it: as long as it is not empty, nobody else can win.
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
        with suppress(FileNotFoundError):  # it is in its place
            os.replace(turn / path.name, path)
        return won
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def _renamed(folder: Path, target: Path) -> bool:
    """Rename a folder that is not empty; False if `target` is one already."""
    try:
        folder.rename(target)
        return True
    except OSError:
        if target.is_dir():
            return False
        raise


def second_name(path: Path, other: Path) -> None:
    """Let `other`, which does not exist, be the same file as `path`; a copy of it where there are
    no hard links."""
    try:
        os.link(path, other)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(path, other)
