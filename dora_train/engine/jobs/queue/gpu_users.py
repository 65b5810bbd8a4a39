"""Who else uses a GPU: processes of other users, and programs that are no jobs of this queue.

A lab's server has many users, and no scheduler. taking.py asks here before it takes a GPU, and
runner.py asks again right before the job starts. Standard library only, as there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable

from ...upstream.nvml import Load, loads

# bytes: the driver, and the windows of a desktop, take some of a GPU that nobody computes on
FREE = 2 << 30
AGE = 1.0  # seconds for which an answer of the driver is used again
_last: dict[str, tuple[float, dict[str, Load]]] = {}


def load_of(jobs: Iterable[dict]) -> dict[str, Load]:
    """The use of all GPUs that these jobs may get. Empty if the driver does not answer.

    Args:
        jobs: as they were queued.
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
    """Why a job must not start on these GPUs after all, asked at this moment. Empty: it may."""
    if not gpus or not job.get("nvml"):
        return ""
    found = loads(job["nvml"], list(gpus))
    reasons = [in_use(gpu, load, is_ours=True) for gpu, load in found.items()]
    reason = ", ".join(filter(None, reasons))
    if reason:
        _last.clear()  # else the next look would be answered as before
    return reason


def in_use(gpu: str, load: Load | None, is_ours: bool) -> str:
    """`GPU 2 is in use by another user`. Empty if a job may take it.

    Args:
        is_ours: whether a job of this queue is on the GPU. Then its memory may be in use.
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
    """Whether a process belongs to this user. One that is hidden, or in a container, does not."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    except OSError:
        return False
