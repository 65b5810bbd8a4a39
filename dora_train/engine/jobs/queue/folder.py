"""The folder of the local queue: makes it, names it, and lets one process at a time hold it.

queue.py says what each file in it means. Standard library only: see runner.py.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .files import is_private, listed, make_private, read, write

FOLDERS = ("waiting", "jobs", "slots", "gpus")
FILES = ("id", "machine", "last", "ended", "lock", "idle", "more", "gpus_awaited", "trouble.log")


class QueueFolder:
    """A folder that is a queue, or can become one."""

    def __init__(self, root: str):
        self.root = root

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def make(self, machine: str = "") -> None:
        """Make the queue. A folder that exists keeps its mode.

        Args:
            machine: an id of this machine that does not depend on its host name.

        Raises:
            OSError: it cannot be written, or something in it belongs to another user.
        """
        # Only the queue itself is private. The folders above it have the usual mode.
        os.makedirs(os.path.dirname(self.root), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(self.root, 0o700)
        for folder in FOLDERS:
            make_private(self.path(folder))
        with self.held():
            if machine and not read(self.path("machine")):
                write(self.path("machine"), machine)
            if not self.id():
                write(self.path("id"), f"q{os.urandom(4).hex()}")

    def fits(self) -> bool:
        """Whether the folder is a queue or can become one: it is missing, or holds nothing else."""
        return os.path.exists(self.path("id")) or all(map(self._is_of_queue, listed(self.root)))

    def _is_of_queue(self, name: str) -> bool:
        """Whether a file may belong to a queue, also to one that another command is just making."""
        if name in FOLDERS:
            return is_private(self.path(name))
        return name in FILES or name.endswith(".tmp")

    def id(self) -> str:
        """The name of the queue: `q3f1a`. Empty if there is no queue yet."""
        return read(self.path("id"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the queue, so that no other process reads or changes it within this block."""
        # Not with files.lock: it does not wait if another process holds the file.
        fd = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
