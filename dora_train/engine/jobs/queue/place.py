"""Finds the folder of the local queue, and checks that locks work there. executor.py calls this."""

import os
import socket
import subprocess
import tempfile
from pathlib import Path

from ... import environment, machine
from ...access import listed
from ...experiment.claims import user_name
from .files import is_locked, lock, read
from .queue import Queue


def place() -> Path:
    """The folder of the queue: one per user and machine, because machines may share a home."""
    named = environment.queue()
    if named:
        return _room_in(Path(named).absolute())
    queues = Path(_state_folder()).absolute() / "dora_train" / "queue"
    return _under_another_name(queues) or queues / socket.gethostname()


def _state_folder() -> str:
    """The folder for the state of a user's programs."""
    folder = os.path.expanduser(environment.state_folder())
    if folder.startswith("~"):  # the user has no home, as in some containers
        return os.path.join(tempfile.gettempdir(), f"state-{os.getuid()}")
    return folder


def _room_in(folder: Path) -> Path:
    """The folder itself, or a folder in it if it contains other files, as /tmp does."""
    if Queue(str(folder)).fits():
        return folder
    return folder / f"dora_queue.{user_name()}"


def _under_another_name(queues: Path) -> Path | None:
    """The queue that this machine made under another host name. None if there is none."""
    ours = machine_of_queue()
    # A queue under the present name comes first: later jobs were queued there.
    if not ours or (queues / socket.gethostname()).exists():
        return None
    if not machine.is_local(queues):  # on a shared disk, other machines have their queues there
        return None
    for name in sorted(listed(queues)):
        if read(str(queues / name / "machine")) == ours:
            return queues / name
    return None


def machine_of_queue() -> str:
    """An id of this machine, or of this container on it. Empty if only the host name is known."""
    found = machine.machine_id()
    if not found:
        return ""
    return f"{found} {machine.namespace()}".strip()


def is_ours(folder: str) -> bool:
    """Whether a folder exists and belongs to this user."""
    try:
        return os.stat(folder).st_uid == os.geteuid()
    except OSError:
        return False


def trouble(folder: str) -> str:
    """Why locks do not work in a folder. Empty if they do.

    A process that inherits the open file must keep the lock. On NFS there may be no locks, or Linux
    uses POSIX locks instead, which are not inherited.
    """
    path = os.path.join(folder, f".check.{os.getpid()}.tmp")
    try:
        fd = lock(path)
        assert fd is not None, "the file is this process's own"
        heir = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[fd]
        )
        with heir:  # `cat` ends at the end of this block
            os.close(fd)
            inherited = is_locked(path)  # now only `cat` can hold the lock
        if inherited and not is_locked(path):
            return ""
        return "locks do not work there, as on some NFS"
    except OSError as error:
        return error.strerror or str(error)
    finally:
        Path(path).unlink(missing_ok=True)
