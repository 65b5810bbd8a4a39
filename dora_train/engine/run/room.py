"""Waits for room if the disk is full or a quota is reached, as `DORA_DISK_WAIT` asks.

Meanwhile the run keeps what it holds in memory, and its last checkpoint is whole on the disk. With
room again, it goes on as if nothing had happened. Without `DORA_DISK_WAIT`, and after that time, it
leaves with the error of the disk.
"""

import errno
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .. import environment
from ..errors import UserError
from .failures import full
from .signals import Signals

T = TypeVar("T")
AGAIN = 1.0  # seconds between two tries
PROBE = 1 << 16  # bytes: more than what the loggers write for one entry


class Room:
    """The room on the disk of an experiment.

    Args:
        minutes: how long to wait. 0: not at all.
        say: logs a line.
        signals: a signal ends the waiting.
    """

    def __init__(self, folder: Path, minutes: float, say: Callable[[str], None], signals: Signals):
        self.folder, self.say, self.signals = folder, say, signals
        self.left = minutes * 60  # seconds

    def keep(self, write: Callable[[], T]) -> T:
        """Call `write`, which writes a file whole or not at all. Call it again while it has no room.

        Raises:
            Interrupted: a signal came while it waited.
            OSError, UserError: those of `write`, if there is no room after the given time.
        """
        waits = False
        while True:
            began = time.monotonic()
            try:
                result = write()
            except (OSError, UserError) as error:
                found = full(error)
                # a limit on the size of a file (EFBIG) does not go away by waiting
                if found is None or found.errno == errno.EFBIG or self.left <= 0:
                    raise
                if not waits:
                    self._say_full(found)
                waits = True
            else:
                if waits:
                    self.say("there is room on the disk again: the run goes on")
                return result
            self.signals.check()
            time.sleep(AGAIN)
            self.left -= time.monotonic() - began

    def _say_full(self, error: OSError) -> None:
        self.say(
            f"cannot write into {self.folder}: {os.strerror(error.errno or 0)}. Waiting for up to "
            f"{self.left / 60:.3g} minutes (DORA_DISK_WAIT); the last checkpoint is whole"
        )

    def ensure(self) -> None:
        """Wait until there is room for what cannot be written a second time, as a logger's line."""
        if self.left > 0:
            self.keep(self._probe)

    def _probe(self) -> None:
        with tempfile.TemporaryFile(dir=self.folder) as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())


def minutes_to_wait() -> float:
    """The minutes of `DORA_DISK_WAIT`. 0 if it is not set.

    Raises:
        UserError: it is no number.
    """
    text = environment.disk_wait()
    try:
        minutes = float(text or 0)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes < float("inf"):
        raise UserError(f"DORA_DISK_WAIT={text}: it takes minutes, e.g. DORA_DISK_WAIT=30.")
    return minutes
