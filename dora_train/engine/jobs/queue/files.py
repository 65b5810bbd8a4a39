"""Locks files, writes them whole, and reads files that may be missing, for the local queue.

A lock (flock) belongs to an open file, and to every process that inherits this open file. queue.py
uses these functions, and place.py checks with them whether locks work in a folder. Standard library
only: see runner.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Locks:
    """Open, locked files, which are kept or closed together."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    def lock(self, path: str) -> bool:
        """Lock a file. False if another process holds it."""
        fd = lock(path)
        if fd is None:
            return False
        self.kept.append(fd)
        return True

    def close(self) -> None:
        """Release the locks."""
        for fd in self.keep():
            os.close(fd)

    def keep(self) -> list[int]:
        """Return the open files. From now on, `close` and the end of `opened` do not close them."""
        kept, self.kept = self.kept, []
        return kept


@contextmanager
def opened() -> Iterator[Locks]:
    """Locks that are released at the end of the block, unless they are kept."""
    fds = Locks()
    try:
        yield fds
    finally:
        fds.close()


def lock(path: str) -> int | None:
    """Open and lock a file. Returns its descriptor, or None if another process has locked it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def is_locked(path: str) -> bool:
    """Whether a process has locked the file.

    Call it only while the queue is held, because it locks the file itself for a moment.
    """
    if not os.path.exists(path):
        return False
    fd = lock(path)
    if fd is None:
        return True
    os.close(fd)
    return False


def write(path: str, text: str) -> None:
    """Write a file whole or not at all."""
    aside = f"{path}.{os.getpid()}.tmp"
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # before it gets its name: a power cut must not leave it empty
    os.replace(aside, path)


def append(path: str, lines: list[str]) -> None:
    """Add lines to a file.

    A newline comes first. It separates them from a line that a power cut has shortened.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write("\n".join(["", *lines, ""]))
        file.flush()
        os.fsync(file.fileno())


def make_private(folder: str) -> None:
    """Make a folder that only this user can read, unless it exists.

    Raises:
        OSError: it cannot be made, or it exists and belongs to another user.
    """
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if os.lstat(folder).st_uid != os.geteuid():
        whose = f"{os.path.basename(folder)} in it belongs to another user"
        raise PermissionError(errno.EPERM, whose, folder)


def is_private(folder: str) -> bool:
    """Whether only this user can read a folder."""
    try:
        return not os.lstat(folder).st_mode & 0o077
    except OSError:
        return False


def remove(folder: str) -> None:
    """Remove a folder and the files in it. It may already be gone."""
    with suppress(OSError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


def text(raw_bytes: bytes) -> str:
    """Bytes of the system (a path, a variable) as text for JSON. It works in any locale."""
    return raw_bytes.decode("utf-8", "surrogateescape")


def raw(words: str) -> bytes:
    """The bytes from which `text` made this text."""
    return words.encode("utf-8", "surrogateescape")


def read(path: str) -> str:
    """The text of a file, without spaces around it. Empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def listed(folder: str) -> list[str]:
    """The names in a folder. Empty if it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
