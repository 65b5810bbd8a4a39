"""Files that are locked, written whole, or read if they are there: what the local queue is made of.

A lock (flock) belongs to an open file, and to every process that inherits it. queue.py calls all of
this; executor.py looks with it whether locks work in a folder. Standard library only, as there.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Locks:
    """Open files that are locked, to be kept together or let go together."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    def lock(self, path: str) -> bool:
        fd = lock(path)
        self.kept += [fd] if fd is not None else []
        return fd is not None

    def keep(self) -> list[int]:
        kept, self.kept = self.kept, []
        return kept


@contextmanager
def opened() -> Iterator[Locks]:
    fds = Locks()
    try:
        yield fds
    finally:
        for fd in fds.kept:
            os.close(fd)


def lock(path: str) -> int | None:
    """The open file, locked; None where another process holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def is_locked(path: str) -> bool:
    """Whether somebody holds the file.

    Asked while the queue is held: the answer locks it for a moment.
    """
    if not os.path.exists(path):
        return False
    fd = lock(path)
    if fd is not None:
        os.close(fd)
    return fd is None


def write(path: str, text: str) -> None:
    """Write a file whole or not at all."""
    aside = f"{path}.{os.getpid()}.tmp"
    with open(
        os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def append(path: str, lines: list[str]) -> None:
    """Add lines to a file. A line before them that a loss of power cut short stays by itself."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write("\n".join(["", *lines, ""]))
        file.flush()
        os.fsync(file.fileno())


def make_private(folder: str) -> None:
    """Make a folder that nobody else can look into, unless it is there.

    Raises:
        OSError: it cannot be made, or is there and belongs to another user.
    """
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if os.lstat(folder).st_uid != os.geteuid():
        whose = f"{os.path.basename(folder)} in it belongs to another user"
        raise PermissionError(errno.EPERM, whose, folder)


def is_private(folder: str) -> bool:
    """Whether nobody else can look into it."""
    try:
        return not os.lstat(folder).st_mode & 0o077
    except OSError:
        return False


def remove(folder: str) -> None:
    """Remove a folder of files. It may be gone already."""
    with suppress(OSError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


def text(raw_bytes: bytes) -> str:
    """Bytes of the system (paths, an environment) as text that JSON can hold, whatever the locale
    is."""
    return raw_bytes.decode("utf-8", "surrogateescape")


def raw(words: str) -> bytes:
    return words.encode("utf-8", "surrogateescape")


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
