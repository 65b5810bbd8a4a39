"""Watches over a job of the local queue until all of its processes are gone.

runner.py calls this, and ../pack.py takes parts of it. Standard library only, as there.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from .queue import Queue
from .taking import PERIOD

GRACE = 30.0  # seconds from asking a job to end to killing it: time for a checkpoint
NEVER = float("inf")


def watch(queue: Queue, number: str, ranks: list[int]) -> int:
    """Wait for all ranks.

    If one fails, or a user asks for the end, the others are asked to end, and killed later.

    Returns:
        The exit code, or the negative signal, of the first rank that failed. 0: none did.
    """
    failed, deadline = 0, NEVER
    while ranks:
        for rank in list(ranks):
            pid, status = os.waitpid(rank, os.WNOHANG)
            if pid:
                ranks.remove(rank)
                # it may have left processes behind: data workers, children of a shell
                send(-rank, signal.SIGKILL)
                failed = failed or os.waitstatus_to_exitcode(status)
        if deadline == NEVER and (failed or queue.cancelled_by(number)):
            deadline = time.monotonic() + GRACE
            # only the first process: if its workers ended before it, that would look like a failure
            for rank in ranks:
                send(rank, signal.SIGTERM)
        if time.monotonic() > deadline:
            for rank in ranks:
                send(-rank, signal.SIGKILL)
        if ranks:
            time.sleep(PERIOD)
    return failed


def send(pid: int, signum: int) -> None:
    """Send a signal to a process, or with a negative number to a group of processes."""
    with suppress(OSError):  # it is gone
        os.kill(pid, signum)


def signal_of(code: int) -> int:
    """The signal that ended a process. 0 if it ended by itself.

    A shell reports a process that a signal ended as 128 + signal. A run that was asked to end
    does so, too.

    Args:
        code: an exit code, or a negative signal.
    """
    signum = abs(code) if code < 0 else code - 128
    return signum if signum in signal.valid_signals() else 0


# --- a job whose runner was killed ---


def watch_orphan(queue: Queue, number: str) -> None:
    """Wait until the last process of a job is gone, so that the queue moves on then.

    If a user asks for the end, its processes are asked to end, and killed later.
    """
    alive, deadline = queue.path("jobs", number, "alive"), NEVER
    while queue.is_alive(number):
        if queue.cancelled_by(number):
            holders = _holders(alive)
            leaders = list(filter(_leads, holders))
            if deadline == NEVER:
                for pid in leaders:
                    send(pid, signal.SIGTERM)
                deadline = time.monotonic() + GRACE
            if not leaders or time.monotonic() > deadline:
                for pid in holders:
                    send(pid, signal.SIGKILL)
        time.sleep(PERIOD)


def _leads(pid: int) -> bool:
    """Whether a process leads its group, as the first process of each rank does."""
    try:
        return os.getpgid(pid) == pid
    except OSError:
        return False


def _holders(path: str) -> list[int]:
    """The processes that hold the lock on a file."""
    if not os.path.isdir("/proc"):
        return _openers(path)
    wanted, found = os.stat(path), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            files = os.listdir(f"/proc/{pid}/fd")
            if any(_holds(pid, fd, wanted) for fd in files):
                found.append(int(pid))
        except OSError:  # it is gone, or belongs to another user
            continue
    return found


def _openers(path: str) -> list[int]:
    """The processes that have a file open, on a system that does not tell who locks it (macOS).

    A process that checks whether the file is locked has it open for a moment. So two looks count.
    """
    earlier = _having_open(path)
    time.sleep(PERIOD)
    return sorted(earlier & _having_open(path))


def _having_open(path: str) -> set[int]:
    try:
        import psutil  # a runner has it only on its path, see moving.py
    except ImportError:  # an orphan then runs to its end
        return set()
    found, real = set(), os.path.realpath(path)
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it is gone, or belongs to another user
            if real in [file.path for file in process.open_files()]:
                found.add(process.pid)
    return found - {os.getpid()}


def _holds(pid: str, fd: str, wanted: os.stat_result) -> bool:
    """Whether an open file is `wanted`, and locked.

    A process that checks whether the file is locked has it open as well, without a lock.
    """
    file = os.stat(f"/proc/{pid}/fd/{fd}")
    if (file.st_dev, file.st_ino) != (wanted.st_dev, wanted.st_ino):
        return False
    with open(f"/proc/{pid}/fdinfo/{fd}") as info:
        return "FLOCK" in info.read()
