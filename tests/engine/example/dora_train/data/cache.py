"""The folder of downloads and packed images: its place, its locks, and safe writing.

All jobs of a machine share it. Used by published.py, image_folder.py, packed.py and pretrained.py.
A lock only saves a process from work that another one does already. Files are whole because each is
written aside and renamed.
"""

import contextlib
import errno
import glob
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from uuid import uuid4

from filelock import FileLock, Timeout

from ..data_error import DataError
from .home import expanded, user_folder

log = logging.getLogger("dora_train")
# Errors of network folders that have no locks. There the same work may be done twice.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
ABANDONED = 600  # seconds without a write, after which the writer is taken for killed
# Seconds without an answer. A firewall that drops packets would else hang a job for minutes.
NETWORK_TIMEOUT = 30


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """`folder`, else `DORA_TRAIN_DATA`, else `~/.cache/dora_train`. It need not exist.

    Raises:
        DataError: it begins with a `~` or `~user` that has no home folder.
    """
    given = folder or os.environ.get("DORA_TRAIN_DATA")
    if given:
        return expanded(given)
    return user_folder(".cache")


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock beside `path`. If another process holds it, wait.

    The folder of `path` is made. If it does not support locks, nothing is held: another process may
    do the same work at the same time.

    Args:
        what: the work, for the log line of a process that waits: "downloads cifar10".

    Raises:
        DataError: the folder cannot be written.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        is_held = _acquire(lock, what)
    try:
        yield
    finally:
        if is_held:
            lock.release()


def _acquire(lock: FileLock, what: str) -> bool:
    """Wait for the lock. False if the folder does not support locks."""
    try:
        _wait_for(lock, what)
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _wait_for(lock: FileLock, what: str) -> None:
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log.info(f"another process {what}: waiting for it")
        lock.acquire()


def beside(path: Path) -> Path:
    """A new name beside `path`, for a file until it is whole. No other machine uses it either.

    Files and folders that killed processes have left under such names are removed.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with contextlib.suppress(OSError):  # another process has removed it
            written = max(part.stat().st_mtime for part in (left, *left.rglob("*")))
            if time.time() - written > ABANDONED:
                _remove(left)
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A file that replaces `path` once it is whole and on the disk. After an error, it does not."""
    aside = beside(path)
    try:
        with aside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an error of the file system into a DataError that says where else to write."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write into {folder}: {error.strerror or error}.\n"
            "Name another folder: data.folder=FOLDER, or DORA_TRAIN_DATA=FOLDER for all commands"
        ) from error


@contextlib.contextmanager
def network_timeout() -> Iterator[None]:
    """Downloads within fail if the server is silent for `NETWORK_TIMEOUT` seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
