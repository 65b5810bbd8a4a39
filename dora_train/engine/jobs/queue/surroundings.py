"""What a job gets from the command that queues it, and how many cores that command may use.

executor.py calls this.
"""

import os
import sys
from collections.abc import Sequence
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


def held_by_cores(fewest: int, most: int, number: int) -> tuple[int, int]:
    """(the fewest, the most) jobs that so many cores hold, from the threads of the jobs."""
    return max(1, number // most), max(1, number // fewest)


def in_words(limits: tuple[int, int]) -> str:
    """`1 job`, or `1 to 2 jobs`."""
    fewest, most = limits
    text = "1 job" if most == 1 else f"{most} jobs"
    return text if fewest == most else f"{fewest} to {text}"


def share_of(gpus: int, visible: list[str], per_gpu: int, threads: int) -> dict[str, Any]:
    """What a job takes of this machine, as taking.py reads it: GPUs, or cores if it gets none.

    Args:
        gpus: how many it gets of those that are visible.
        threads: of all of its ranks.
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
    """The environment of a job: this command's, and the order's own variables.

    The variables of an outer job are left out.

    Args:
        by_index: the job gets GPUs by their numbers.
    """
    found = {key: value for key, value in environment.variables().items() if not outside(key)}
    found.update(order.variables)
    # The numbers are the driver's. CUDA would count the fastest GPU first. But who sets
    # CUDA_VISIBLE_DEVICES counts as CUDA does for him.
    if by_index and environment.visible_gpus() is None:
        found.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return {as_text(key): as_text(value) for key, value in found.items()}


def as_text(value: str | Path) -> str:
    """A path or a value of the environment as text that JSON can hold."""
    return text(os.fsencode(value))


def umask() -> int:
    mask = os.umask(0o022)  # it can only be read by setting it
    os.umask(mask)
    return mask


def start_by_fork(order: Order, preload: Sequence[str] | None) -> dict[str, Any]:
    """What a job needs in order to start as a fork. Empty if it starts as a new process.

    Args:
        preload: the libraries that are imported once for all jobs. None: each imports its own.
    """
    # A line of shell before the program may change what Python imports.
    if preload is None or not order.program or order.parameters.get("setup"):
        return {}
    return {
        "python": as_text(sys.executable),
        "program": list(map(as_text, order.program)),
        "preload": list(preload),
    }
