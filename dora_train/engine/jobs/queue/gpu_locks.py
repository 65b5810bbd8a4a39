"""Locks the GPUs for a job of the local queue. Jobs may share a GPU.

The first job on GPU 0 locks `gpus/0`, the next ones lock `gpus/0.1`, `gpus/0.2` ... Each job writes
into its file how many jobs it allows on the GPU, itself included. A GPU is left out if others use
it (gpu_users.py), or if another queue has just given it to a job (gpu_machine.py). taking.py calls
this. Standard library only: see runner.py.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from ...upstream.nvml import Load
from .files import Locks, is_locked, listed, read
from .gpu_machine import lock_for_all
from .gpu_users import in_use
from .queue import Queue


def lock_gpus(
    queue: Queue, fds: Locks, job: dict, reserved: Collection[str], loads: Mapping[str, Load]
) -> tuple[list[str], list[str]]:
    """Lock the GPUs that a job needs. GPUs with the fewest jobs come first.

    Args:
        fds: the locks are added to these.
        job: `visible` lists the GPUs that its command may use. `gpus` is how many it needs.
            `per_gpu` is how many jobs it allows on each GPU, itself included.
        reserved: GPUs for which an earlier job waits.
        loads: the use of each GPU that the driver knows.

    Returns:
        The names of the locked GPUs, and the reasons why others were left out. If the job has to
        wait, there are fewer GPUs than it needs.
    """
    needed, most = job.get("gpus", 0), job.get("per_gpu", 1)
    # Not all files in the folder `gpus`: the command of the job may see only some of the GPUs.
    places = {gpu: _Places(queue, gpu) for gpu in job.get("visible", ()) if gpu not in reserved}
    locked: list[str] = []
    reasons: list[str] = []
    for gpu in sorted(places, key=lambda gpu: len(places[gpu].allowed)):
        if len(locked) == needed:
            break
        load = loads.get(gpu)
        reason = in_use(gpu, load, is_ours=bool(places[gpu].allowed))
        if reason:
            reasons.append(reason)
        elif not places[gpu].lock(fds, most):
            continue
        elif lock_for_all(job.get("for_all", ""), fds, load.uuid if load else gpu, queue.id()):
            locked.append(gpu)
        else:
            os.close(fds.kept.pop())  # unlocks the place that was just taken
            reasons.append(f"GPU {gpu} is in use by a job of another queue")
    return locked, reasons


class _Places:
    """The files of one GPU in the queue's folder. Each file is a place for one job.

    Attributes:
        allowed: for each job on the GPU, how many jobs it allows there.
        free: the path of a file that no job has locked.
    """

    def __init__(self, queue: Queue, gpu: str):
        name = gpu.replace("/", "_")
        self.allowed: list[int] = []
        known = [
            name,
            *(f"{name}.{number}" for number in range(1, len(listed(queue.path("gpus"))))),
        ]
        free = []
        for file in known:
            path = queue.path("gpus", file)
            if is_locked(path):
                # A job of an earlier version writes nothing into it, and does not share its GPU.
                self.allowed.append(int(read(path) or 1))
            else:
                free.append(path)
        self.free = [*free, queue.path("gpus", f"{name}.{len(known)}")][0]

    def lock(self, fds: Locks, most: int) -> bool:
        """Take a place. False if this job, or a job on the GPU, does not allow one more."""
        if len(self.allowed) >= min([most, *self.allowed]) or not fds.lock(self.free):
            return False
        os.ftruncate(fds.kept[-1], 0)
        os.pwrite(fds.kept[-1], str(most).encode(), 0)
        return True
