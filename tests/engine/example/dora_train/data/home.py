"""Folders of a user: below the home folder, or below the temporary folder if there is no home.

A process in a container may have neither HOME nor an entry in /etc/passwd. `Path.expanduser` raises
there, and `os.path.expanduser` leaves a `~` in the path. Standard library only: the data sets use
this file, and the engine may.
"""

import os
import tempfile
from pathlib import Path

from ..data_error import DataError


def user_folder(kind: str) -> Path:
    """`~/KIND/dora_train`, for example `user_folder(".cache")`; it need not exist.

    Without a home: `/tmp/dora_train-UID/KIND`, which lasts as long as the temporary folder.

    Raises:
        DataError: there is no home, and the temporary folder belongs to another user.
    """
    home = os.path.expanduser("~")
    if home != "~":
        return Path(home) / kind / "dora_train"
    own = Path(tempfile.gettempdir()) / f"dora_train-{os.getuid()}"
    if own.exists() and own.stat().st_uid != os.getuid():
        raise DataError(
            f"this account has no home folder, and {own} belongs to another user: set HOME."
        )
    return own / kind.lstrip(".")


def expanded(path: str | os.PathLike[str]) -> Path:
    """`path` with its home folder in the place of `~` or `~user`.

    Raises:
        DataError: there is no such home folder.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        home = found.split(os.sep)[0]
        raise DataError(f'{path}: "{home}" has no home folder here. Write the whole path.')
    return Path(found)
