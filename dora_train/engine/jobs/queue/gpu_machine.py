"""Locks GPUs in a folder that the queues of all users of this machine share.

Each user has a queue. If two queues checked a GPU in the same second, both would find it free. So a
job also locks a file in a common folder: `GPU.QUEUE`, or `GPU.QUEUE.1` for the queue's next job on
this GPU. It locks its own file first, and then checks the files of the other queues. So at most one
of two queues gets the GPU. gpu_locks.py calls this. Standard library only: see runner.py.
"""

from __future__ import annotations

import fcntl
import os
import random
import stat
import time
from contextlib import suppress

from .files import Locks, listed

TRIES = 3
MOMENT = 0.02  # seconds: the longest wait between two tries


def lock_for_all(folder: str, fds: Locks, gpu: str, queue: str) -> bool:
    """Lock a GPU against other queues. False if a job of another queue is on it.

    If there is no folder in which all users can make files, nothing is locked, and it returns True.

    Args:
        folder: the common folder. Empty: none.
        fds: the lock is added to these.
        gpu: a name that is the same for all users.
        queue: the name of this queue.
    """
    if not folder or not _made(folder):
        return True
    name = gpu.replace("/", "_")
    for _ in range(TRIES):
        found = _locked_alone(folder, fds, name, queue)
        if found is not None:
            return found
        # Two queues that tried at the same time have both given up. The next try comes at a random
        # time, so that one of them comes first.
        time.sleep(random.uniform(0, MOMENT))
    return False


def _locked_alone(folder: str, fds: Locks, name: str, queue: str) -> bool | None:
    """Lock a file of this queue for a GPU. None if another queue has locked one, too."""
    number = 0
    while not _lock(os.path.join(folder, f"{name}.{queue}{_suffix(number)}"), fds):
        number += 1  # a job of this queue has locked it, or another process just checks it
        if number > len(listed(folder)) + 1:
            return True  # this user cannot make files there
    others = [file for file in listed(folder) if _is_of_another(file, name, queue)]
    if any(_is_locked(os.path.join(folder, file)) for file in others):
        os.close(fds.kept.pop())
        return None
    return True


def _suffix(number: int) -> str:
    return f".{number}" if number else ""


def _is_of_another(file: str, gpu: str, queue: str) -> bool:
    """Whether a file is for this GPU, and belongs to another queue."""
    owner = file.removeprefix(f"{gpu}.").partition(".")[0]
    return file.startswith(f"{gpu}.") and owner != queue


def _made(folder: str) -> bool:
    """Make the folder if it is missing. Returns whether all users can make files in it.

    Nobody can remove another user's files there (mode 1777, as /tmp).
    """
    if not os.path.lexists(folder):
        # Made under another name first: if this process is killed before it sets the mode, the
        # folder itself must not be closed to other users.
        aside = f"{folder}.{os.getpid()}.tmp"
        with suppress(OSError):
            os.mkdir(aside)
            os.chmod(aside, 0o1777)  # not in mkdir, where the umask would remove rights
            os.rename(aside, folder)
        with suppress(OSError):
            os.rmdir(aside)
    try:
        mode = os.lstat(folder).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and stat.S_IMODE(mode) == 0o1777


def _lock(path: str, fds: Locks) -> bool:
    """Lock a file of this queue. Other users can read it, and so check whether it is locked."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError:
        return False
    try:
        os.fchmod(fd, 0o644)  # the umask may have removed the right to read
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return False
    fds.kept.append(fd)
    return True


def _is_locked(path: str) -> bool:
    """Whether a job of another queue has locked its file.

    The lock for this check is shared, so two checks at the same time do not disturb each other.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
