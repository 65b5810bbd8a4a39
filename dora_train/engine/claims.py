"""Who holds an experiment: one writer at a time, on file systems whose locks may lie.

The Nth start of an experiment makes `attempts/N.json`, exclusively, with its holder in it. Nobody removes or
replaces a claim: the next start makes N+1, and may do so only once the holder of N is proven gone, or has said in
`state.json` that attempt N ended. Of two that try at once, one makes the file. A run calls `claim`; whoever wants to
know whether a run is alive calls `holder`.
"""

import getpass
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from . import store
from .errors import UserError
from .store import Experiment, State

Ask = Callable[["Holder"], "bool | None"]  # does its executor still know this holder's job? None: cannot say


def user_name() -> str:
    """The user's name; `os.getlogin` raises in containers and cron jobs."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for this user id
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _boot_id() -> str:
    """What changes at each boot: Linux's own id, elsewhere the time of the boot."""
    import psutil

    return _read("/proc/sys/kernel/random/boot_id") or str(int(psutil.boot_time()))


def _namespace() -> str:
    """Process ids mean something within one namespace only (a container has its own); empty where there are none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


@dataclass(frozen=True)
class Holder:
    """The process behind an attempt: enough to ask its machine, or its executor, whether it lives."""

    attempt: int
    host: str
    boot_id: str
    namespace: str
    pid: int
    started: float  # start time of the process, seconds since the epoch: ids are used again
    since: float
    user: str = ""
    job_id: str = ""
    token: str = ""  # of the submission, for a job
    inode: int = 0  # of the claim's own file: a copied folder's claim is void

    @classmethod
    def here(cls, attempt: int, job_id: str = "", token: str = "") -> "Holder":
        """This process."""
        import psutil

        started = psutil.Process().create_time()
        return cls(attempt, socket.gethostname(), _boot_id(), _namespace(), os.getpid(), started, time.time(),
                   user_name(), job_id, token)

    def alive(self, ask: Ask | None = None) -> bool | None:
        """Whether it still runs: True, False, or None where it cannot be asked from here."""
        if self.host == socket.gethostname():
            if self.boot_id != _boot_id():
                return False
            if self.namespace == _namespace():
                return _process_lives(self.pid, self.started)
        if self.job_id and ask is not None:
            return ask(self)
        return None

    def where(self) -> str:
        """`node7, job 8812` or `node7, process 312`."""
        return f"{self.host}, job {self.job_id}" if self.job_id else f"{self.host}, process {self.pid}"


def _process_lives(pid: int, started: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        # Kernels round the start time to a tick (10 ms); a reused id starts later than that.
        return abs(process.create_time() - started) < 0.05 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _numbers(experiment: Experiment) -> list[int]:
    try:
        return sorted(int(path.stem) for path in experiment.attempts.glob("*.json") if path.stem.isdigit())
    except OSError:
        return []


def latest(experiment: Experiment) -> Holder | None:
    """Whoever made the last attempt, alive or not; None where there was none, or its claim is a copy's."""
    numbers = _numbers(experiment)
    if not numbers:
        return None
    path = experiment.attempts / f"{numbers[-1]}.json"
    holder = store._from_dict(Holder, store.read_json(path))
    if holder is None or holder.inode != path.stat().st_ino:
        return None
    return holder


def holder(experiment: Experiment, ask: Ask | None = None) -> tuple[Holder | None, bool | None]:
    """Who holds the experiment now, and whether that is certain.

    Returns:
        (None, False) where nobody does; (holder, True) where it is alive; (holder, None) where it cannot be asked.
    """
    last = latest(experiment)
    if last is None:
        return None, False
    run = experiment.state()
    if run.attempt == last.attempt and run.state not in (State.RUNNING, State.NEW):
        return None, False
    alive = last.alive(ask)
    return (None, False) if alive is False else (last, alive)


def refuse_if_held(experiment: Experiment, ask: Ask | None = None) -> None:
    """Raises: UserError that says who holds the experiment, where, since when, and what to do about it."""
    last, alive = holder(experiment, ask)
    if last is None or (last.pid == os.getpid() and alive):
        return
    since = time.strftime("%d %b %H:%M", time.localtime(last.since))
    if alive:
        run = experiment.state()
        progress = f" (epoch {run.epoch} of {run.epochs})" if run.epochs else ""
        raise UserError(
            f"XP {experiment.sig} is running on {last.where()}, since {since}{progress}.",
            f"watch it: dora info -f {experiment.sig} -t     stop it: dora info -f {experiment.sig} -C")
    if os.environ.get("DORA_TAKE") != "1":
        raise UserError(
            f"XP {experiment.sig} is held by {last.where()}, since {since}; that machine cannot be asked from here.",
            "if you know that it is gone: DORA_TAKE=1, and the same command again")


def claim(experiment: Experiment, job_id: str = "", token: str = "", ask: Ask | None = None) -> Holder:
    """Make this process the experiment's holder.

    Raises:
        UserError: another process holds it, or a process that cannot be asked.
    """
    refuse_if_held(experiment, ask)
    attempt = (_numbers(experiment) or [0])[-1] + 1
    mine = Holder.here(attempt, job_id, token)
    if not _make(experiment.attempts / f"{attempt}.json", mine):
        refuse_if_held(experiment, ask)
        raise UserError(f"XP {experiment.sig} was taken by another process at this moment.")
    return mine


def _make(path: Path, mine: Holder) -> bool:
    """Make the claim's file with its own inode in it, or say that another was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{mine.host}.{mine.pid}.tmp")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            import json

            content = asdict(mine) | {"inode": os.fstat(file.fileno()).st_ino}
            file.write(json.dumps(content))
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)  # fails where the name exists; atomic on NFS too
        return True
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
