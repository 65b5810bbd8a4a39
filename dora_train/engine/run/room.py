"""Waits for free space if the disk is full or a quota is reached, as `DORA_DISK_WAIT` asks.

Meanwhile the run keeps everything in memory, and its last checkpoint is whole on the disk. When
there is space again, it continues as if nothing had happened. Without `DORA_DISK_WAIT`, or after
that time, it ends with the error of the disk.
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
PROBE = 1 << 16  # bytes: more than the loggers write for one entry


class Room:
    """Writes to the disk of an experiment, and waits while there is no space.

    Args:
        folder: the folder of the experiment.
        minutes: how long the run waits, all its waits together. 0: it does not wait.
        say: logs a line.
        signals: a signal ends the waiting.
    """

    def __init__(self, folder: Path, minutes: float, say: Callable[[str], None], signals: Signals):
        self.folder, self.say, self.signals = folder, say, signals
        self.left = minutes * 60  # seconds that it may still wait

    def keep(self, write: Callable[[], T]) -> T:
        """Call `write`, and repeat the call while there is no space on the disk.

        Args:
            write: writes a file whole or not at all.

        Raises:
            Interrupted: a signal came while it waited.
            OSError, UserError: from `write`, if there is no space after the given time, or if the
                error has another cause.
        """
        waits = False
        while True:
            began = time.monotonic()
            try:
                result = write()
            except (OSError, UserError) as error:
                found = full(error)
                # Waiting does not help against a limit on the size of a file (EFBIG).
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
        """Wait until there is space. Call it before a write that cannot be repeated.

        A logger's line is such a write.
        """
        if self.left > 0:
            self.keep(self._probe)

    def _probe(self) -> None:
        """Write a temporary file, to find out whether there is space."""
        with tempfile.TemporaryFile(dir=self.folder) as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())  # some file systems report a full disk only now


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
