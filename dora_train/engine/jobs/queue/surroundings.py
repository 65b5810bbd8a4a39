"""Collects what a job gets from the command that queues it: environment, umask, GPUs or cores.

executor.py calls this.
"""

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ... import environment
from ...upstream import nvml
from ..executor import Order, outside
from .files import text


def cores() -> int:
    """The number of cores that this command may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def held(
    gpus: Collection[int], places: int, threads: tuple[int, int], number: int
) -> tuple[int, int]:
    """The smallest and the largest number of jobs that this machine can hold at the same time.

    Args:
        gpus: how many GPUs the jobs ask for, each number once.
        places: how many jobs of one GPU the GPUs can hold.
        threads: the smallest and the largest number of threads of a job.
        number: the number of cores.
    """
    found = [max(1, places // wanted) for wanted in gpus if wanted]
    if 0 in gpus or not found:
        fewest, most = threads
        found += [max(1, number // most), max(1, number // fewest)]
    return min(found), max(found)


def without_gpus(gpus: Collection[int], visible: Collection[str]) -> str:
    """A warning that no job gets a GPU, on a machine that has some. Empty if there is no need.

    `dora run` takes the GPU that it sees, and a job only the GPUs that it asks for.
    """
    if not visible or set(gpus) != {0}:
        return ""
    return ", on the CPU (slurm.gpus=1: each on a GPU)"


def in_words(limits: tuple[int, int]) -> str:
    """The limits as text: `1 job`, or `1 to 2 jobs`."""
    fewest, most = limits
    text = "1 job" if most == 1 else f"{most} jobs"
    return text if fewest == most else f"{fewest} to {text}"


def share_of(gpus: int, visible: list[str], per_gpu: int, threads: int) -> dict[str, Any]:
    """The share of this machine that a job takes: GPUs, or cores if it needs no GPU.

    taking.py and gpu_locks.py read it.

    Args:
        gpus: how many GPUs it needs.
        visible: the GPUs that it may get.
        per_gpu: how many jobs it allows on each GPU, itself included.
        threads: the threads of all its ranks together.
    """
    if not gpus:
        return {"gpus": 0, "visible": [], "per_gpu": per_gpu, "cores": threads}
    return {
        "gpus": gpus,
        "visible": visible,
        "per_gpu": per_gpu,
        "cores": 0,
        "nvml": nvml.file(),
        "for_all": environment.gpu_locks(),
    }


def environment_of(order: Order, by_index: bool = False) -> dict[str, str]:
    """The environment of a job: that of this command, and the order's own variables.

    The variables of an outer job are left out.

    Args:
        by_index: whether the job gets GPUs, which are then named by their numbers.
    """
    found = {key: value for key, value in environment.variables().items() if not outside(key)}
    found.update(order.variables)
    # The numbers come from the driver, but CUDA by default gives number 0 to the fastest GPU. A
    # user who sets CUDA_VISIBLE_DEVICES means the numbers of CUDA.
    if by_index and environment.visible_gpus() is None:
        found.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return {as_text(key): as_text(value) for key, value in found.items()}


def as_text(value: str | Path) -> str:
    """A path or the value of a variable as text that JSON can store."""
    return text(os.fsencode(value))


def umask() -> int:
    mask = os.umask(0o022)  # it can only be read by setting it
    os.umask(mask)
    return mask


def start_by_fork(order: Order, preload: Sequence[str] | None) -> dict[str, Any]:
    """What a job needs in order to start as a fork. Empty if it starts as a new process.

    Args:
        preload: the libraries that are imported once for all jobs. None: each job imports its own.
    """
    # A shell command before the program may change what Python imports.
    if preload is None or not order.program or order.parameters.get("setup"):
        return {}
    return {
        "python": as_text(sys.executable),
        "program": list(map(as_text, order.program)),
        "preload": list(preload),
    }
