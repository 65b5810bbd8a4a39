"""Takes the jobs that can start now, and those that have lost their runner.

What a job needs is locked here, and the processes of the job inherit the locks. runner.py goes on
from there, and executor.py checks with this whether a runner is needed. Standard library only, as
there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from ...upstream.nvml import Load
from .files import Locks, is_locked, listed, opened, read
from .gpu_locks import lock_gpus
from .gpu_users import load_of
from .queue import Queue

PERIOD = 0.2  # seconds between two looks
GPU_PERIOD = 2.0  # seconds between two looks at GPUs that others use
# why a job cannot start now
NO_SLOT, NO_CORE, NO_GPU, STARTING = "no slot", "no core", "no gpu", "starting"


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
    loads = load_of(_waiting_jobs(queue))  # not while the queue is held: a driver may be slow
    with queue.held():
        return [*_startable(queue, loads), *_orphans(queue)]


def await_gpus(queue: Queue) -> list[Taken]:
    """The same, but wait for them while a job waits for a GPU that others use.

    No job of this queue ends then, after which a runner would look again. One process waits, as in
    `await_ready`.
    """
    return _await(queue, "gpus_awaited", lambda: _is_blocked(queue), GPU_PERIOD)


def must_await_gpus(queue: Queue) -> bool:
    """Whether a job waits for a GPU that others use, and no process looks when it is free."""
    with queue.held():
        return _is_blocked(queue) and not is_locked(queue.path("gpus_awaited"))


def _is_blocked(queue: Queue) -> bool:
    return any(queue.files_of(number).waits_for() for number in queue.waiting())


def _waiting_jobs(queue: Queue) -> list[dict]:
    return [queue.job(number) or {} for number in queue.waiting()]


def await_ready(queue: Queue) -> list[Taken]:
    """The same, but wait for them while a command says that more jobs may follow.

    One process waits. It is empty for a second one, and once no such command is left.
    """
    return _await(queue, "idle", lambda: is_locked(queue.path("more")), PERIOD)


def _await(queue: Queue, name: str, goes_on: Callable[[], bool], period: float) -> list[Taken]:
    """Wait for jobs that can start. One process waits, and it locks the file `name`.

    Args:
        goes_on: whether there may be such jobs later. It is called while the queue is held.
        period: seconds between two looks.
    """
    with opened() as fds:
        with queue.held():
            if not fds.lock(queue.path(name)):
                return []
        while True:
            loads = load_of(_waiting_jobs(queue))
            with queue.held():
                jobs = [*_startable(queue, loads), *_orphans(queue)]
                if jobs or not goes_on():
                    # While the queue is held: a command that adds a job later must not rely on us.
                    fds.close()
                    return jobs
            time.sleep(period)


def is_awaited(queue: Queue) -> bool:
    """Whether a process waits for the next jobs, and will start them."""
    with queue.held():
        return is_locked(queue.path("idle"))


def _startable(queue: Queue, loads: Mapping[str, Load]) -> list[Taken]:
    """The jobs that can start now, in their order. Call it while the queue is held.

    No job overtakes another one that waits for the same slot, cores or GPU.
    """
    taken: list[Taken] = []
    queue.tidy()
    reserved: set[str] = set()  # GPUs that a job further up in the line waits for
    no_core = False  # a job further up in the line waits for cores
    for number in queue.waiting():
        job = queue.job(number) or {}
        if not all(map(queue.is_over, job.get("after", ()))):
            continue  # it takes no slot yet, so the next in line may start
        if no_core and needs_cores(job):
            continue
        found = _take(queue, number, job, reserved, loads)
        if found == NO_SLOT:
            break
        no_core = no_core or found == NO_CORE
        if isinstance(found, Taken):
            taken.append(found)
        elif found == NO_GPU:
            reserved.update(job["visible"])
    return taken


def _take(
    queue: Queue, number: str, job: dict, reserved: set[str], loads: Mapping[str, Load]
) -> Taken | str:
    """The job with all that it needs locked, or why it cannot start."""
    files = queue.files_of(number)
    os.makedirs(files.folder, exist_ok=True)
    with opened() as fds:
        if not fds.lock(files.path("alive")):
            return STARTING  # its runner will take it out of the line
        running = _running(queue)
        if "room" not in job and len(running) >= job.get("limit", 1):
            return NO_SLOT
        if needs_cores(job) and not _has_cores(queue, job, running):
            return NO_CORE
        _lock_slot(queue, fds, number)
        gpus, reasons = lock_gpus(queue, fds, job, reserved, loads)
        if len(gpus) < job.get("gpus", 0):
            files.wait_for(", ".join(reasons))
            return NO_GPU
        files.wait_for("")
        shared = list(fds.kept)
        if not fds.lock(files.path("watched")):
            return STARTING
        return Taken(number, shared, fds.keep()[-1], gpus)


def needs_cores(job: dict) -> bool:
    """Whether a job starts when there are cores for it: `local.jobs` is blank, and it has no GPU."""
    return "room" in job and not job.get("gpus")


def _has_cores(queue: Queue, job: dict, running: Sequence[str]) -> bool:
    """Whether the cores that the running jobs leave are enough. A single job always has enough."""
    in_use = 0
    for number in running:
        in_use += (queue.job(number) or {}).get("cores", 1)
    return in_use == 0 or in_use + job["cores"] <= job["room"]


def _running(queue: Queue) -> list[str]:
    """The jobs that have a slot."""
    found = []
    for name in listed(queue.path("slots")):
        if is_locked(queue.path("slots", name)):
            found.append(read(queue.path("slots", name)))
    return found


def _lock_slot(queue: Queue, fds: Locks, number: str) -> None:
    """Lock a slot. Its content tells which job has it."""
    names = sorted(listed(queue.path("slots")), key=int)
    for name in [*names, str(len(names))]:  # a new one, if there is no other
        if fds.lock(queue.path("slots", name)):
            break
    os.ftruncate(fds.kept[-1], 0)
    os.pwrite(fds.kept[-1], number.encode(), 0)


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
