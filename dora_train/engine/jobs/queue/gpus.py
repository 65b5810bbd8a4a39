"""The GPUs that a command may use on this machine. executor.py hands them out to jobs."""

import subprocess

from ... import environment


def visible_gpus() -> list[str]:
    """`["0", "1"]`: those in CUDA_VISIBLE_DEVICES. If it is not set, all that the driver lists.

    torch is not asked, as its import takes seconds.
    """
    given = environment.visible_gpus()
    if given is not None:
        return _names_in(given)
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,  # a broken driver may never answer
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode != 0:
        return []
    return list(filter(str.isdigit, map(str.strip, done.stdout.splitlines())))


def _names_in(visible: str) -> list[str]:
    """The GPUs that CUDA takes from CUDA_VISIBLE_DEVICES, each once."""
    names: list[str] = []
    for name in map(str.strip, visible.split(",")):
        if name in ("", "-1"):  # CUDA ignores it, and all that follow
            break
        if name not in names:
            names.append(name)
    return names
