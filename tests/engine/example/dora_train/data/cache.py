"""The folder of downloads and packed images that all jobs of a machine share: where it is, its
locks, safe writing.

Used by datasets.py, image_folder.py and model.py. Locks only spare work that another process does
already: what makes the files whole is that each is written aside and renamed.
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
# some network folders: the same work may be done twice
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
LEFT = 600  # seconds without a write: whoever wrote it was killed
# seconds without an answer; without it a firewall that drops packets hangs a job for minutes
NETWORK_TIMEOUT = 30


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """`folder`, else `DORA_TRAIN_DATA`, else `~/.cache/dora_train`; it need not exist.

    Raises:
        DataError: it begins with the home folder of nobody.
    """
    given = folder or os.environ.get("DORA_TRAIN_DATA")
    return expanded(given) if given else user_folder(".cache")


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock beside `path`, whose folder is made; waits for another process that holds it.

    On a folder without locks, another process may do the same at the same time.

    Args:
        what: what the other one does meanwhile, for the log: "downloads cifar10".

    Raises:
        DataError: the folder cannot be written.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        try:
            _acquired(lock, what)
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
            lock = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquired(lock: FileLock, what: str) -> None:
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log.info(f"another process {what}: waiting for it")
        lock.acquire()


def beside(path: Path) -> Path:
    """A new name beside `path`, to write under until it is whole: nobody else's, on another machine
    either.

    What killed processes have left under such names is removed.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            written = max(part.stat().st_mtime for part in (left, *left.rglob("*")))
            if time.time() - written > LEFT:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}")


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears as `path` once it is whole and on the disk, or not at all; overwrites
    what is there."""
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
    """Downloads within give up on a server that is silent for 30 seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
