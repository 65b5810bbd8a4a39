"""A start from scratch (`--clear`, `--replace_done`): who may clear results, and how they come back.

A command is refused before results are moved. They lie in `outputs/cleared` until the new run has
its first checkpoint (folder.py: `put_aside`). `dora run`, `dora launch` and `dora grid` call this.
"""

import os
import pwd
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError
from ..words import shown_path
from . import claims
from .folder import Experiment


def other_owner(experiment: Experiment) -> str:
    """The user who made the experiment. Empty if that is this user, or there is no experiment."""
    birth = experiment.birth()
    made_by = birth.user if birth is not None else ""
    if made_by and made_by != claims.user_name():
        return made_by
    try:
        is_ours = experiment.folder.stat().st_uid == os.getuid()
    except OSError:  # there is none
        return ""
    # A network's disk may say that files belong to nobody. Then the stored name decides.
    if is_ours or made_by == _name_of(os.getuid()):
        return ""
    return made_by or _owner(experiment.folder)  # stock Dora stores no name


def _name_of(uid: int) -> str:
    """The user's name in the system's table of users.

    `getpass` would believe LOGNAME and USER, which `su` and `sudo` may keep.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except KeyError:  # its user is unknown on this machine
        return "another user"


def refuse_others(experiment: Experiment) -> None:
    """Refuse to clear an experiment of another user.

    Raises:
        UserError: another user made it. Only the owner can remove results.
    """
    owner = other_owner(experiment)
    if owner:
        raise UserError(
            f"XP {experiment.sig} was made by {owner}: only {owner} can clear it.",
            f"to make your own run: tag=WORD     if it is yours: rm -r {_quoted(experiment.folder)}",
        )


@contextmanager
def put_aside(experiment: Experiment) -> Iterator[None]:
    """Put the results aside. They come back if the body of the `with` raises an error."""
    experiment.put_aside()
    try:
        yield
    except BaseException:
        experiment.put_back()
        raise


def what_was_cleared(experiment: Experiment) -> str:
    """A line that says where the results from before `--clear` are, and how to have them back.

    Empty if there are none.
    """
    if not experiment.cleared.exists():
        return ""
    folder, cleared = _quoted(experiment.folder), _quoted(experiment.cleared)
    remove = ""
    if experiment.folder.exists():
        remove = f"rm -r {folder} && "
    return (
        f"{shown_path(experiment.cleared)} has the results from before --clear, until this run "
        f"has a checkpoint. To have them back: {remove}mv {cleared} {folder}"
    )


def _quoted(path: Path) -> str:
    return shlex.quote(shown_path(path))
