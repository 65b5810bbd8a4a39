"""Finds out who else uses a GPU: other users, and programs that are not jobs of this queue.

A server of a lab has many users, but no scheduler. taking.py checks a GPU before it takes it, and
runner.py checks it again just before the job starts. Standard library only: see runner.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable

from ...upstream.nvml import Load, loads

# A GPU counts as free if at most so many bytes of its memory are used. The driver and a desktop use
# some memory, even if nobody computes.
FREE = 2 << 30
AGE = 1.0  # seconds for which an answer of the driver is reused
_last: dict[str, tuple[float, dict[str, Load]]] = {}


def load_of(jobs: Iterable[dict]) -> dict[str, Load]:
    """The use of all GPUs that these jobs may get. Empty if the driver does not answer.

    Args:
        jobs: the jobs, as they were queued.
    """
    names: set[str] = set()
    file = ""
    for job in jobs:
        if job.get("gpus") and job.get("nvml"):
            names.update(job["visible"])
            file = job["nvml"]
    if not names:
        return {}
    key = f"{file}\0{sorted(names)}"
    asked, found = _last.get(key, (-AGE, {}))
    if time.monotonic() - asked > AGE:
        found = loads(file, sorted(names))
        _last[key] = time.monotonic(), found
    return found


def others_now(job: dict, gpus: Collection[str]) -> str:
    """Ask the driver now why a job must not start on these GPUs. Empty if it may start."""
    if not gpus or not job.get("nvml"):
        return ""
    found = loads(job["nvml"], list(gpus))
    reasons = [in_use(gpu, load, is_ours=True) for gpu, load in found.items()]
    reason = ", ".join(filter(None, reasons))
    if reason:
        _last.clear()  # otherwise the next check would get the old answer
    return reason


def in_use(gpu: str, load: Load | None, is_ours: bool) -> str:
    """`GPU 2 is in use by another user`. Empty if a job may take it.

    Args:
        is_ours: whether a job of this queue uses the GPU. Then memory in use is no reason.
    """
    if load is None:
        return ""
    if not all(map(_is_mine, load.pids)):
        return f"GPU {gpu} is in use by another user"
    if is_ours or load.used <= FREE:
        return ""
    if load.pids:
        return f"GPU {gpu} is in use by process {load.pids[0]} of yours"
    return f"the memory of GPU {gpu} is in use"


def _is_mine(pid: int) -> bool:
    """Whether a process belongs to this user. False if it is hidden, e.g. in a container."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    except OSError:
        return False
