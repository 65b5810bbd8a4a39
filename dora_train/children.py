"""Child processes that end when their parent ends, however it ended.

A killed process cannot end its children. Some of them never notice: a data worker that is writing
a batch into a pipe waits for its reader for ever. So each child looks after its parent by itself.

Used by image_files.py for its workers, and by the engine for every process that a run starts.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.util import register_after_fork

INTERVAL = 1.0  # seconds between two looks at the parent
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_watching: list[int] = []  # the id of the process that has a watching thread already


@dataclass(frozen=True)
class Parent:
    """A process that is about to start another one.

    Attributes:
        in_main_thread: whether its main thread starts the other process.
    """

    pid: int
    in_main_thread: bool = False

    @classmethod
    def here(cls) -> "Parent":
        # On Linux the main thread has the id of the process. Elsewhere the ids never agree.
        return cls(os.getpid(), threading.get_native_id() == os.getpid())


def end_with(parent: Parent, signum: int = signal.SIGKILL, grace: float = 0.0) -> None:
    """Send this process `signum` when its parent ends, and SIGKILL `grace` seconds later.

    Linux can do that by itself. But it looks at the *thread* that started this process, so that is
    right only for a main thread. Otherwise a thread of this process watches the parent.
    """
    if grace == 0 and parent.in_main_thread and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent.pid:  # it ended before the call above
            os.kill(os.getpid(), signum)
    else:
        _watch(lambda: _wait_for_the_end_of(parent.pid), signum, grace)


def end_with_starter(starter: Parent) -> None:
    """The same in a process that `multiprocessing` has started for `starter`, by any method."""
    if multiprocessing.get_start_method() == "fork":
        end_with(starter)
    else:  # its parent may be a fork server, and that waits for the end of its children
        process = multiprocessing.parent_process()
        assert process is not None
        _watch(process.join)


def _watch(until: Callable[[], None], signum: int = signal.SIGKILL, grace: float = 0.0) -> None:
    """Start a thread that waits and then ends this process, unless there is one."""

    def watch() -> None:
        until()
        os.kill(os.getpid(), signum)
        time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    if os.getpid() not in _watching:
        _watching[:] = [os.getpid()]  # a forked child inherits this list, but not the thread
        threading.Thread(target=watch, daemon=True).start()


def _wait_for_the_end_of(parent: int) -> None:
    while os.getppid() == parent:  # the child of an ended process gets another parent
        time.sleep(INTERVAL)


class _Family:
    """Remembers which process forked the one that it is in."""

    parent: Parent

    def before_fork(self) -> None:
        self.parent = Parent.here()

    def after_fork(self) -> None:
        """Called in each new child, and in the children of children."""
        end_with(self.parent)


_family: list[_Family] = []


def end_all_with_this_process() -> None:
    """Let each process that `multiprocessing` forks from here on end with its parent.

    That covers the workers of any DataLoader, and pools. It does not reach processes that are
    started without a fork (on macOS, and by default from Python 3.14 on). The workers of a
    DataLoader call `end_with_starter` then (engine/run/workers.py).
    """
    if not _family:
        _family.append(_Family())
        os.register_at_fork(before=_family[0].before_fork)
        register_after_fork(_family[0], _Family.after_fork)
