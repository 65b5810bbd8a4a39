"""Takes the jobs that can start now, and those that have lost their runner.

What a job needs is locked here, and the processes of the job inherit the locks. runner.py goes on
from there, and executor.py checks with this whether a runner is needed. Standard library only, as
there.
"""

from __future__ import annotations

import os
import time

from .files import Locks, is_locked, listed, opened, read
from .gpu_locks import lock_gpus
from .queue import Queue

PERIOD = 0.2  # seconds between two looks
NO_SLOT, NO_GPU, STARTING = "no slot", "no gpu", "starting"  # why a job cannot start now


class Taken:
    """A job that this process may start or watch over.

    Args:
        shared: open, locked files that the processes of the job inherit. The first is `alive`.
        watched: the open, locked file of the right to watch over it.
        gpus: the GPUs that it gets.
    """

    def __init__(self, number: str, shared: list[int], watched: int, gpus: list[str]):
        self.number, self.shared, self.watched, self.gpus = number, shared, watched, gpus

    def let_inherit(self, is_inherited: bool) -> None:
        """Say whether a program that this process becomes, or starts, has the locks too."""
        for fd in (*self.shared, self.watched):
            os.set_inheritable(fd, is_inherited)

    def close(self) -> None:
        """Let go of the locks. They stay with the processes that inherited them."""
        alive, rest = self.shared[:1], self.shared[1:]
        for fd in (*rest, self.watched, *alive):  # `alive` last: without it, the folder may go
            os.close(fd)


def ready(queue: Queue) -> list[Taken]:
    """The jobs that can start now, and those that have lost their runner."""
    with queue.held():
        return [*_startable(queue), *_orphans(queue)]


def await_ready(queue: Queue) -> list[Taken]:
    """The same, but wait for them while a command says that more jobs may follow.

    One process waits. It is empty for a second one, and once no such command is left.
    """
    with opened() as fds:
        with queue.held():
            if not fds.lock(queue.path("idle")):
                return []
        while True:
            with queue.held():
                jobs = [*_startable(queue), *_orphans(queue)]
                if jobs or not is_locked(queue.path("more")):
                    # While the queue is held: a command that adds a job later must not rely on us.
                    fds.close()
                    return jobs
            time.sleep(PERIOD)


def is_awaited(queue: Queue) -> bool:
    """Whether a process waits for the next jobs, and will start them."""
    with queue.held():
        return is_locked(queue.path("idle"))


def _startable(queue: Queue) -> list[Taken]:
    """The jobs that can start now, in their order. Call it while the queue is held.

    No job overtakes another one that waits for the same slot or GPU.
    """
    taken: list[Taken] = []
    queue.tidy()
    reserved: set[str] = set()  # GPUs that a job further up in the line waits for
    for number in queue.waiting():
        job = queue.job(number) or {}
        if not all(map(queue.is_over, job.get("after", ()))):
            continue  # it takes no slot yet, so the next in line may start
        found = _take(queue, number, job, reserved)
        if found == NO_SLOT:
            break
        if isinstance(found, Taken):
            taken.append(found)
        elif found == NO_GPU:
            reserved.update(job["visible"])
    return taken


def _take(queue: Queue, number: str, job: dict, reserved: set[str]) -> Taken | str:
    """The job with all that it needs locked, or why it cannot start."""
    files = queue.files_of(number)
    os.makedirs(files.folder, exist_ok=True)
    with opened() as fds:
        if not fds.lock(files.path("alive")):
            return STARTING  # its runner will take it out of the line
        if not _lock_slot(queue, fds, number, job.get("limit", 1)):
            return NO_SLOT
        gpus = lock_gpus(queue, fds, job, reserved)
        if len(gpus) < job.get("gpus", 0):
            return NO_GPU
        shared = list(fds.kept)
        if not fds.lock(files.path("watched")):
            return STARTING
        return Taken(number, shared, fds.keep()[-1], gpus)


def _lock_slot(queue: Queue, fds: Locks, number: str, limit: int) -> bool:
    """Lock a slot if fewer than `limit` are in use. Its content tells which job has it."""
    names = sorted(listed(queue.path("slots")), key=int)
    free: list[str] = []
    for name in names:
        if not is_locked(queue.path("slots", name)):
            free.append(name)
    if len(names) - len(free) >= limit:
        return False
    free.append(str(len(names)))  # a new one, if there is no other
    fds.lock(queue.path("slots", free[0]))
    os.ftruncate(fds.kept[-1], 0)
    os.pwrite(fds.kept[-1], number.encode(), 0)
    return True


def _orphans(queue: Queue) -> list[Taken]:
    """Jobs that run and whose runner was killed, each with the right to watch over it.

    Call it while the queue is held.
    """
    found = []
    for slot in listed(queue.path("slots")):
        number = read(queue.path("slots", slot))
        files = queue.files_of(number)
        if not number or not os.path.isdir(files.folder):
            continue
        if is_locked(queue.path("slots", slot)):
            with opened() as fds:
                if fds.lock(files.path("watched")):
                    found.append(Taken(number, [], fds.keep()[0], []))
    return found
