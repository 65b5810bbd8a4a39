"""Files of several users and machines: who may read them, whose they are, and how old they are.

A file that this user may not read is not missing. A reader that took it for missing would start an
experiment again that a colleague is running.
"""

import os
import shlex
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from .errors import UserError


def listed(folder: Path) -> list[str]:
    """The names in a folder. The list is empty if the folder is missing.

    Raises:
        UserError: this user may not read it.
    """
    try:
        return os.listdir(folder)
    except PermissionError as error:
        raise unreadable(folder) from error
    except OSError:
        return []


def exists(path: Path) -> bool:
    """Whether there is a file or folder.

    Raises:
        UserError: this user may not know.
    """
    try:
        path.stat()
    except PermissionError as error:
        raise unreadable(path) from error
    except OSError:
        return False
    return True


def inode(path: Path) -> int:
    """The inode of a file or folder. 0 if it is missing."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def numbers_of(names: Iterable[str], ending: str = ".json") -> list[int]:
    """The numbers N of the names N.json, ascending."""
    numbers = []
    for name in names:
        number = name.removesuffix(ending)
        if name.endswith(ending) and number.isdigit():
            numbers.append(int(number))
    return sorted(numbers)


def age_of(path: Path) -> float:
    """Seconds since a file was written. Infinity if there is no file."""
    try:
        written = path.stat().st_mtime
    except OSError:
        return float("inf")
    try:
        # By the clock of the disk, which may be another machine's: a new file has its time.
        with tempfile.TemporaryFile(dir=path.parent) as now:
            return os.fstat(now.fileno()).st_mtime - written
    except OSError:  # this user may not write there
        return time.time() - written


def unreadable(path: Path) -> UserError:
    """The error if this user may not read a file or folder.

    It names the folder that is closed, its owner, and the command to ask the owner for.
    """
    closed = path
    for folder in path.parents:
        if not os.access(folder, os.X_OK):
            closed = folder  # the outermost one
    experiment = closed
    for folder in (closed, *closed.parents):
        if folder.parent.name == "xps":
            experiment = folder
            break
    return UserError(
        f"you may not read {closed}, which belongs to {_owner(closed)}.",
        f"ask for: chmod -R go+rX {shlex.quote(str(experiment))}     "
        "or use another folder: DORA_DIR=FOLDER",
    )


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder of another user into which this user may not write.

    Raises:
        UserError: it says whose it is, and what to do.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"you may not write into {folder}, which belongs to {_owner(folder)}.",
            "to make your own run: tag=WORD, or another folder: DORA_DIR=FOLDER",
        )


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):  # a user of another machine
        return "another user"
