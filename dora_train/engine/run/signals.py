"""Signals only set a flag. The next step boundary looks at it (boundary.py).

Work inside a handler hangs now and then (Lightning #21406). A handler that talks to other ranks
always hangs if only one of them was signalled. This file uses the standard library only, because
the handlers are installed before torch is imported.

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
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGPWR")
# macOS has no SIGPWR
CAUGHT = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Interrupted(BaseException):
    """The run leaves before its end, with its checkpoint written.

    It is not an Exception, so that no `except Exception` of other code swallows it.
    """

    def __init__(self, signum: int):
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """The exit code as a shell reports a signal: 130 for Ctrl-C."""
        return 128 + self.signum


class Stopped(BaseException):
    """The run leaves after an epoch because its search has no hope for it. The message says why."""


class Signals:
    """The flag that signals set.

    Attributes:
        signum: the number of the first signal that came, or 0.
        since: when it came, in seconds of the monotonic clock.
        at_once: whether a signal raises Interrupted at once.
        process: the id of the process that installed the handlers.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.since = 0.0
        self.at_once = False
        self.process = os.getpid()

    def install(self) -> "Signals":
        """Note signals from here on. A second Ctrl-C leaves at once, as a person expects."""
        for signum in CAUGHT:
            # Under nohup, SIGHUP stays ignored.
            is_ignored = signal.getsignal(signum) == signal.SIG_IGN
            if signum == signal.SIGHUP and is_ignored:
                continue
            signal.signal(signum, self._note)
        return self

    @contextmanager
    def heard_at_once(self) -> Iterator[None]:
        """Let a signal raise Interrupted at once within this block, when nothing has to be saved.

        Before the training begins, images may be decoded, or a data set downloaded, for minutes.
        The training sets `at_once` back when it begins.

        Raises:
            Interrupted: a signal came, before the block or in it.
        """
        self.at_once = True
        try:
            self.check()
            yield
        finally:
            self.at_once = False

    def heard_alone(self, world_size: int) -> AbstractContextManager[None]:
        """Return a context in which a signal is heard at once, if this is the only rank."""
        if world_size == 1:
            return self.heard_at_once()
        # None of several ranks may leave alone: the others would wait for it when they meet.
        return nullcontext()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        # A data worker that was forked from the run has its handlers. It ends with the run.
        if os.getpid() != self.process:
            return
        # One Ctrl-C reaches a process twice now and then, from the terminal and from its parent.
        # More than a second later, it is a person who asks again.
        if signum == self.signum == signal.SIGINT and time.monotonic() - self.since > 1:
            raise KeyboardInterrupt
        # The first one decides the exit code.
        self.signum = self.signum or signum
        self.since = self.since or time.monotonic()
        if self.at_once:
            # A second signal must not disturb the code that saves its work on the way out.
            self.at_once = False
            raise Interrupted(self.signum)

    def check(self) -> None:
        """Leave if a signal came. It is for places where nothing has to be saved.

        Raises:
            Interrupted: a signal came.
        """
        if self.signum:
            raise Interrupted(self.signum)
