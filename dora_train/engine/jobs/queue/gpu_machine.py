"""Locks on GPUs that all queues of this machine see.

Each user has a queue. If two of them looked at a GPU in the same second, both would find it free.
So a job also holds a file in a folder for all: `GPU.QUEUE`, or `GPU.QUEUE.1` for a further job on
the GPU. It is locked first, and then the files of the other queues are looked at: of two queues at
most one finds no other. gpu_locks.py calls this. Standard library only, as there.
"""

from __future__ import annotations

import fcntl
import os
import random
import stat
import time
from contextlib import suppress

from .files import Locks, listed

TRIES, MOMENT = 3, 0.02  # seconds


def lock_for_all(folder: str, fds: Locks, gpu: str, queue: str) -> bool:
    """Lock a GPU against other queues. False if a job of another one is on it.

    Without a folder in which all users can make files, nothing is locked.

    Args:
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
        time.sleep(random.uniform(0, MOMENT))  # two that looked at once looked away at once
    return False


def _locked_alone(folder: str, fds: Locks, name: str, queue: str) -> bool | None:
    """Lock this queue's file of a GPU. None if another queue has locked one as well."""
    number = 0
    while not _lock(os.path.join(folder, f"{name}.{queue}{_suffix(number)}"), fds):
        number += 1  # another job of ours is on it, or somebody looks at the file right now
        if number > len(listed(folder)) + 1:
            return True  # files cannot be made there
    others = [file for file in listed(folder) if _is_of_another(file, name, queue)]
    if any(_is_locked(os.path.join(folder, file)) for file in others):
        os.close(fds.kept.pop())
        return None
    return True


def _suffix(number: int) -> str:
    return f".{number}" if number else ""


def _is_of_another(file: str, gpu: str, queue: str) -> bool:
    owner = file.removeprefix(f"{gpu}.").partition(".")[0]
    return file.startswith(f"{gpu}.") and owner != queue


def _made(folder: str) -> bool:
    """Whether the folder is there, and every user can make files in it, and remove only his own."""
    if not os.path.lexists(folder):
        # Aside: a process that is killed in between must not leave a folder for itself alone.
        aside = f"{folder}.{os.getpid()}.tmp"
        with suppress(OSError):
            os.mkdir(aside)
            os.chmod(aside, 0o1777)  # the umask would take rights away
            os.rename(aside, folder)
        with suppress(OSError):
            os.rmdir(aside)
    try:
        mode = os.lstat(folder).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and stat.S_IMODE(mode) == 0o1777


def _lock(path: str, fds: Locks) -> bool:
    """Lock a file of this queue's own, which other users can read."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError:
        return False
    try:
        os.fchmod(fd, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return False
    fds.kept.append(fd)
    return True


def _is_locked(path: str) -> bool:
    """Whether a job of another queue holds its file. Two that look at once do not see each other."""
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
