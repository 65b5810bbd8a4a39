"""The GPUs that a command may use on this machine. executor.py hands them out to jobs."""

import subprocess
from collections.abc import Sequence

from ... import environment
from ...errors import UserError


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


def named(value: object) -> list[str]:
    """The GPUs in a value of `local.gpus`: 2, "2,3" or [2, 3]. Empty if it is blank."""
    if value is None:
        return []
    parts = value if isinstance(value, (list, tuple)) else [value]
    return _names_in(",".join(map(str, parts)))


def chosen_of(visible: list[str], only: Sequence[str]) -> list[str]:
    """The GPUs that jobs may get. A machine without GPUs has none, whatever is chosen.

    Raises:
        UserError: one of `only` is not visible.
    """
    unknown = [gpu for gpu in only if gpu not in visible]
    if visible and unknown:
        raise UserError(
            f"local.gpus={','.join(only)}: there is no GPU {', '.join(unknown)} here.",
            f"this machine has {', '.join(visible)} (nvidia-smi, CUDA_VISIBLE_DEVICES)",
        )
    return [gpu for gpu in visible if not only or gpu in only]


def _names_in(visible: str) -> list[str]:
    """The GPUs that CUDA takes from CUDA_VISIBLE_DEVICES, each once."""
    names: list[str] = []
    for name in map(str.strip, visible.split(",")):
        if name in ("", "-1"):  # CUDA ignores it, and all that follow
            break
        if name not in names:
            names.append(name)
    return names
