"""Takes the jobs that can start now, and the jobs that have lost their runner.

To take a job means to lock what it needs. The processes of the job inherit these locks. runner.py
starts the jobs that are taken, and moving.py checks whether a runner is needed. Standard library
only: see runner.py.
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

PERIOD = 0.2  # seconds between two checks
GPU_PERIOD = 2.0  # seconds between two checks of GPUs that others use
# The reasons why a job cannot start now.
NO_SLOT, NO_CORE, NO_GPU, STARTING = "no slot", "no core", "no gpu", "starting"


class Taken:
    """A job that this process may start or watch.

    Args:
        shared: open, locked files that the processes of the job inherit. The first is `alive`. It
            is empty for a job that runs already and has lost its runner.
        watched: the open, locked file `watched`: only this process watches the job.
        gpus: the GPUs that the job gets.
    """

    def __init__(self, number: str, shared: list[int], watched: int, gpus: list[str]):
        self.number, self.shared, self.watched, self.gpus = number, shared, watched, gpus

    def let_inherit(self, is_inherited: bool) -> None:
        """Set whether the locks pass to a program that this process starts or becomes."""
        for fd in (*self.shared, self.watched):
            os.set_inheritable(fd, is_inherited)

    def close(self) -> None:
        """Release the locks in this process. Processes that inherited them keep them."""
        alive, rest = self.shared[:1], self.shared[1:]
        for fd in (*rest, self.watched, *alive):  # `alive` last: then the folder may be removed
            os.close(fd)


def ready(queue: Queue) -> list[Taken]:
    """Take the jobs that can start now, and the jobs that have lost their runner."""
    loads = load_of(_waiting_jobs(queue))  # before the queue is held, because a driver may be slow
    with queue.held():
        return [*_startable(queue, loads), *_orphans(queue)]


def await_gpus(queue: Queue) -> list[Taken]:
    """Do the same as `ready`, but wait while a job waits for a GPU that others use.

    This is needed because the other user's program starts no runner when it ends. Only one process
    waits. A second one gets an empty list.
    """
    return _await(queue, "gpus_awaited", lambda: _is_blocked(queue), GPU_PERIOD)


def must_await_gpus(queue: Queue) -> bool:
    """Whether a job waits for a GPU that others use, and no process checks when the GPU is free."""
    with queue.held():
        return _is_blocked(queue) and not is_locked(queue.path("gpus_awaited"))


def _is_blocked(queue: Queue) -> bool:
    return any(queue.files_of(number).waits_for() for number in queue.waiting())


def _waiting_jobs(queue: Queue) -> list[dict]:
    return [queue.job(number) or {} for number in queue.waiting()]


def await_ready(queue: Queue) -> list[Taken]:
    """Do the same as `ready`, but wait while a command says that more jobs may follow.

    Only one process waits. A second one gets an empty list, and so does the first one when no such
    command is left.
    """
    return _await(queue, "idle", lambda: is_locked(queue.path("more")), PERIOD)


def _await(queue: Queue, name: str, goes_on: Callable[[], bool], period: float) -> list[Taken]:
    """Wait for jobs that can start, and take them.

    Args:
        name: the file that the waiting process locks, so that only one process waits.
        goes_on: whether it is still worth waiting. It is called while the queue is held.
        period: seconds between two checks.
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
                    # Unlocked while the queue is held: a command that adds a job after this must
                    # see that no process waits any more.
                    fds.close()
                    return jobs
            time.sleep(period)


def is_awaited(queue: Queue) -> bool:
    """Whether a process waits for the next jobs, and will start them."""
    with queue.held():
        return is_locked(queue.path("idle"))


def _startable(queue: Queue, loads: Mapping[str, Load]) -> list[Taken]:
    """Take the jobs that can start now, in their order. Call it while the queue is held.

    No job overtakes an earlier one that waits for the same slot, cores or GPU.
    """
    taken: list[Taken] = []
    queue.tidy()
    reserved: set[str] = set()  # GPUs for which an earlier job waits
    no_core = False  # whether an earlier job waits for cores
    for number in queue.waiting():
        job = queue.job(number) or {}
        if not all(map(queue.is_over, job.get("after", ()))):
            continue  # it takes no slot yet, so later jobs may start
        if no_core and needs_cores(job):
            continue
        found = _take(queue, number, job, reserved, loads)
        if found == NO_SLOT:
            break  # no later job may overtake it
        no_core = no_core or found == NO_CORE
        if isinstance(found, Taken):
            taken.append(found)
        elif found == NO_GPU:
            reserved.update(job["visible"])
    return taken


def _take(
    queue: Queue, number: str, job: dict, reserved: set[str], loads: Mapping[str, Load]
) -> Taken | str:
    """Lock everything that a job needs. Returns the job, or the reason why it cannot start."""
    files = queue.files_of(number)
    os.makedirs(files.folder, exist_ok=True)
    with opened() as fds:
        if not fds.lock(files.path("alive")):
            return STARTING  # another process has taken it, and starts it in a moment
        running = _running(queue)
        # `room` is there if `local.jobs` is blank. Then cores or GPUs limit the jobs, not a number.
        if "room" not in job and len(running) >= job.get("limit", 1):
            return NO_SLOT
        if needs_cores(job) and not _has_cores(queue, job, running):
            return NO_CORE
        _lock_slot(queue, fds, number)  # also without a limit: `_running` and `_orphans` read slots
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
    """Whether a job needs free cores to start: `local.jobs` is blank, and it has no GPU."""
    return "room" in job and not job.get("gpus")


def _has_cores(queue: Queue, job: dict, running: Sequence[str]) -> bool:
    """Whether the running jobs leave enough cores. If no job uses cores, it is always enough."""
    in_use = 0
    for number in running:
        in_use += (queue.job(number) or {}).get("cores", 1)
    return in_use == 0 or in_use + job["cores"] <= job["room"]


def _running(queue: Queue) -> list[str]:
    """The numbers of the jobs that have a slot."""
    found = []
    for name in listed(queue.path("slots")):
        if is_locked(queue.path("slots", name)):
            found.append(read(queue.path("slots", name)))
    return found


def _lock_slot(queue: Queue, fds: Locks, number: str) -> None:
    """Lock a slot for a job, and write the number of the job into it."""
    names = sorted(listed(queue.path("slots")), key=int)
    for name in [*names, str(len(names))]:  # the last one is new, in case all others are locked
        if fds.lock(queue.path("slots", name)):
            break
    os.ftruncate(fds.kept[-1], 0)
    os.pwrite(fds.kept[-1], number.encode(), 0)


def _orphans(queue: Queue) -> list[Taken]:
    """Take the running jobs whose runner was killed, to watch them.

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
