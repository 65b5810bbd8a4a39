"""Files of several users and machines: who may read them, whose they are, and how old they are.

A file that this user may not read is not missing: a reader that took it for that would start again
what a colleague is running.
"""

import os
import shlex
import tempfile
import time
from pathlib import Path

from .errors import UserError


def listed(folder: Path) -> list[str]:
    """The names in a folder; none if it is missing.

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
    """The inode of a file or folder; 0 if it is missing."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def numbered(folder: Path, ending: str = ".json") -> list[int]:
    """Of the files N.json in a folder, ascending."""
    stems = [name.removesuffix(ending) for name in listed(folder) if name.endswith(ending)]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def age_of(path: Path) -> float:
    """Seconds since a file was written, by its disk's clock if possible; infinity without a
    file."""
    try:
        written = path.stat().st_mtime
    except OSError:
        return float("inf")
    try:
        with tempfile.TemporaryFile(dir=path.parent) as now:
            return os.fstat(now.fileno()).st_mtime - written
    except OSError:  # not our folder
        return time.time() - written


def unreadable(path: Path) -> UserError:
    """What to say if this user may not read a file or folder: which, whose, and what to ask for."""
    above = reversed(path.parents)
    closed = next((folder for folder in above if not os.access(folder, os.X_OK)), path)
    holding = (folder for folder in (closed, *closed.parents) if folder.parent.name == "xps")
    whole = shlex.quote(str(next(holding, closed)))
    return UserError(
        f"you may not read {closed}, which belongs to {_owner(closed)}.",
        f"ask for: chmod -R go+rX {whole}     or take another folder: DORA_DIR=FOLDER",
    )


def refuse_unwritable(folder: Path) -> None:
    """Raises: UserError if this user may not write into a folder that is there, as another's."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"you may not write into {folder}, which belongs to {_owner(folder)}.",
            "a run of your own: tag=WORD, or another folder: DORA_DIR=FOLDER",
        )


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):  # a user of another machine
        return "another user"
