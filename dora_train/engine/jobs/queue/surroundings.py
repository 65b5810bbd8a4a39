"""What a job gets from the command that queues it, and how many cores that command may use.

executor.py calls this.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import environment
from ..executor import Order, outside
from .files import text


def cores() -> int:
    """The number of cores that this command may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment_of(order: Order) -> dict[str, str]:
    """The environment of a job: this command's, and the order's own variables.

    The variables of an outer job are left out.
    """
    found = {key: value for key, value in environment.variables().items() if not outside(key)}
    found.update(order.variables)
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
