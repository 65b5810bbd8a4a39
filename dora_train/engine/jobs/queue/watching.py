"""Watches a job of the local queue until all of its processes are gone.

runner.py calls this, and ../pack.py uses parts of it. Standard library only: see runner.py. The
exception is psutil, on macOS.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from .queue import Queue
from .taking import PERIOD

GRACE = 30.0  # seconds between the request to end and the kill: time to save a checkpoint
NEVER = float("inf")


def watch(queue: Queue, number: str, ranks: list[int]) -> int:
    """Wait until all ranks of a job have ended.

    If a rank fails, or a user cancels the job, the other ranks are asked to end, and killed later.

    Returns:
        The exit code, or the negative signal, of the first rank that failed. 0 if no rank failed.
    """
    failed, deadline = 0, NEVER
    while ranks:
        for rank in list(ranks):
            pid, status = os.waitpid(rank, os.WNOHANG)
            if pid:
                ranks.remove(rank)
                # Its whole group: it may have left data workers or children of a shell behind.
                send(-rank, signal.SIGKILL)
                failed = failed or os.waitstatus_to_exitcode(status)
        if deadline == NEVER and (failed or queue.cancelled_by(number)):
            deadline = time.monotonic() + GRACE
            # Only the rank itself, not its group: if its data workers ended first, the rank would
            # take that for a failure.
            for rank in ranks:
                send(rank, signal.SIGTERM)
        if time.monotonic() > deadline:
            for rank in ranks:
                send(-rank, signal.SIGKILL)
        if ranks:
            time.sleep(PERIOD)
    return failed


def send(pid: int, signum: int) -> None:
    """Send a signal to a process, or to a process group if the number is negative."""
    with suppress(OSError):  # the process is gone
        os.kill(pid, signum)


def signal_of(code: int) -> int:
    """The signal that ended a process. 0 if the process ended by itself.

    If a signal ends a process, a shell reports 128 + signal. A run that was asked to end does the
    same.

    Args:
        code: an exit code, or a negative signal.
    """
    signum = abs(code) if code < 0 else code - 128
    return signum if signum in signal.valid_signals() else 0


# --- a job whose runner was killed ---


def watch_orphan(queue: Queue, number: str) -> None:
    """Wait until the last process of a job is gone. Then the next jobs can start.

    If a user cancels the job, its processes are asked to end, and killed later.
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
    """The processes that keep a file open. macOS needs this, as it does not tell who locks a file.

    A process that only checks the lock has the file open for a moment. So two checks must agree.
    """
    earlier = _having_open(path)
    time.sleep(PERIOD)
    return sorted(earlier & _having_open(path))


def _having_open(path: str) -> set[int]:
    try:
        import psutil  # it is on the path of a runner, but imported only here (moving.py)
    except ImportError:  # the job then runs to its end
        return set()
    found, real = set(), os.path.realpath(path)
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it is gone, or belongs to another user
            if real in [file.path for file in process.open_files()]:
                found.add(process.pid)
    return found - {os.getpid()}


def _holds(pid: str, fd: str, wanted: os.stat_result) -> bool:
    """Whether a descriptor is the file `wanted`, with a lock.

    A process that checks the lock also has the file open, but without a lock.
    """
    file = os.stat(f"/proc/{pid}/fd/{fd}")
    if (file.st_dev, file.st_ino) != (wanted.st_dev, wanted.st_ino):
        return False
    with open(f"/proc/{pid}/fdinfo/{fd}") as info:
        return "FLOCK" in info.read()
