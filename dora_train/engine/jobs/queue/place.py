"""Where the queue of this machine lies, and whether a folder will do. `executor.py` calls this."""

import os
import socket
import subprocess
import tempfile
from pathlib import Path

from ... import machine
from ...access import listed
from ...experiment.claims import user_name
from .files import is_locked, lock, read
from .queue import Queue

PLACE = "DORA_QUEUE"  # names the folder of the queue


def place() -> Path:
    """The folder: one a user and machine, since homes are shared by machines now and then."""
    if os.environ.get(PLACE):
        return _room_in(Path(os.environ[PLACE]).absolute())
    queues = Path(_state_folder()).absolute() / "dora_train" / "queue"
    return _under_another_name(queues) or queues / socket.gethostname()


def _state_folder() -> str:
    """Where a user's programs keep their state; without a home, as in some containers, a temporary
    folder."""
    folder = os.path.expanduser(os.environ.get("XDG_STATE_HOME") or "~/.local/state")
    has_home = not folder.startswith("~")
    return folder if has_home else os.path.join(tempfile.gettempdir(), f"state-{os.getuid()}")


def _room_in(folder: Path) -> Path:
    """The folder itself; if it holds other things, as /tmp does, a folder in it."""
    return folder if Queue(str(folder)).fits() else folder / f"dora_queue.{user_name()}"


def _under_another_name(queues: Path) -> Path | None:
    """The queue that this machine made when it had another host name; None if there is none."""
    ours = machine_of_queue()
    if not ours or (queues / socket.gethostname()).exists():
        return None
    if not machine.is_local(queues):  # other machines have their queues there, too
        return None
    known = (queues / name for name in sorted(listed(queues)))
    return next((folder for folder in known if read(str(folder / "machine")) == ours), None)


def machine_of_queue() -> str:
    """What names this machine, or this container of it; empty if nothing but the host name does."""
    found = machine.machine_id()
    return f"{found} {machine.namespace()}".strip() if found else ""


def is_ours(folder: str) -> bool:
    """Whether a folder is there, and this user's."""
    try:
        return os.stat(folder).st_uid == os.geteuid()
    except OSError:
        return False


def trouble(folder: str) -> str:
    """Why locks are of no use in a folder; empty if a process that inherits one keeps it.

    On NFS, Linux makes POSIX locks of them, which are not inherited, or there are none at all.
    """
    path = os.path.join(folder, f".check.{os.getpid()}.tmp")
    try:
        fd = lock(path)
        assert fd is not None, "the file is this process's own"
        with subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[fd]
        ):
            os.close(fd)
            inherited = is_locked(path)
        return (
            "" if inherited and not is_locked(path) else "locks do not work there, as on some NFS"
        )
    except OSError as error:
        return error.strerror or str(error)
    finally:
        Path(path).unlink(missing_ok=True)
