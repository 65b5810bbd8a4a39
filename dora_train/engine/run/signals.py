"""Signals set a flag, nothing else; the next step boundary looks at it (boundary.py).

Work inside a handler hangs now and then (Lightning #21406), and a handler that talks to other ranks
always does when only one of them was signalled. Standard library only: the handlers are there
before torch is imported.

| signal | comes from | here |
| --- | --- | --- |
| SIGINT, SIGTERM | Ctrl-C, `kill`, `timeout`, `docker stop` | a checkpoint at the next step, exit 128 + number |
| SIGHUP | the terminal is closed, the connection is lost | the same; ignored under `nohup`, as for any program |
| SIGUSR1, SIGUSR2 | SLURM and other schedulers: the time is nearly up | the same |
| SIGXCPU, SIGPWR | `ulimit -t` and schedulers that use it; a battery or a container | the same |
| SIGQUIT, SIGKILL | Ctrl-\\, `kill -9` | ends at once: the way out if a step hangs. `last.ckpt` is whole |
| SIGTSTP, SIGCONT | Ctrl-Z, `fg`; SLURM's suspend and resume | stops and resumes, as any program |
| SIGPIPE, SIGXFSZ | no reader, a file too large: Python ignores them | an error, see `output.py` and `failures.py` |
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGPWR")
# macOS has no SIGPWR
CAUGHT = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Interrupted(BaseException):
    """The run leaves before its end, with its checkpoint written.

    Not an Exception: nothing may swallow it.
    """

    def __init__(self, signum: int):
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        return 128 + self.signum  # as a shell reports it: 130 for Ctrl-C


class Stopped(BaseException):
    """The run leaves after an epoch because its search has no hope for it. The message says why."""


class Signals:
    """The flag: the number of the first signal that came, or 0."""

    def __init__(self) -> None:
        self.signum = 0
        self.since = 0.0
        self.at_once = False
        self.process = os.getpid()

    def install(self) -> "Signals":
        """From here on a signal is noted. A second Ctrl-C leaves at once, as a person expects."""
        for signum in CAUGHT:
            # nohup
            if not (signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN):
                signal.signal(signum, self._note)
        return self

    @contextmanager
    def heard_at_once(self) -> Iterator[None]:
        """Within this block a signal raises Interrupted at once: nothing has to be saved yet.

        Before the training begins, images may be decoded, or a data set downloaded, for minutes.
        The training sets `at_once` back when it begins.
        """
        self.at_once = True
        try:
            self.check()
            yield
        finally:
            self.at_once = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a data worker, forked from the run: it ends with the run
            return
        # One Ctrl-C reaches a process twice now and then (terminal and parent): a second later it
        # is a person.
        if signum == self.signum == signal.SIGINT and time.monotonic() - self.since > 1:
            raise KeyboardInterrupt
        self.signum = self.signum or signum
        self.since = self.since or time.monotonic()
        if self.at_once:
            self.at_once = False  # a second signal must not disturb what is kept on the way out
            raise Interrupted(self.signum)

    def check(self) -> None:
        """Raises: Interrupted if a signal came. For places where nothing has to be saved."""
        if self.signum:
            raise Interrupted(self.signum)
