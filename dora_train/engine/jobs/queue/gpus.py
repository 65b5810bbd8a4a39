"""Finds the GPUs that a command may use on this machine. executor.py gives them to jobs."""

import subprocess
from collections.abc import Sequence

from ... import environment
from ...errors import UserError


def visible_gpus() -> list[str]:
    """The GPUs in CUDA_VISIBLE_DEVICES, e.g. `["0", "1"]`. If it is not set: all of the driver.

    torch is not asked, because its import takes seconds.
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
    """The GPUs in a value of `local.gpus`, e.g. 2, "2,3" or [2, 3]. Empty if it is blank."""
    if value is None:
        return []
    parts = value if isinstance(value, (list, tuple)) else [value]
    return _names_in(",".join(map(str, parts)))


def chosen_of(visible: list[str], only: Sequence[str]) -> list[str]:
    """The GPUs that jobs may get. Empty on a machine without GPUs, also if `only` names some.

    Args:
        visible: the GPUs that this command may use.
        only: the GPUs in `local.gpus`. Empty: all.

    Raises:
        UserError: a GPU in `only` is not visible.
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
        if name in ("", "-1"):  # CUDA ignores this entry and all after it
            break
        if name not in names:
            names.append(name)
    return names
