"""Which process holds an experiment: one writer at a time, also if locks do not work on a disk.

The Nth start of an experiment makes `attempts/N.json`, exclusively, with its holder in it. No
process removes or replaces a claim. The next start makes N+1. It may do so only if the holder of N
is proven gone, or has written to `state.json` that attempt N ended. If two try at once, only one
makes the file. A run calls `claim`. To know whether a run is alive, call `holder`.

These say in turn whether a holder is alive, and the first that knows is believed:

1. The processes of this machine, if the claim was made since the last boot, and in this namespace
   of process ids (each container has its own).
2. A lock on the claim's file. Its process keeps it, and the kernel frees it when the process ends,
   in any container. It counts only on a disk of this machine, and only if the file is still the
   one that was locked (its inode).
3. A boot since then, if the host is this one.
4. The scheduler, if the process is a job.

If none of them knows, a start is refused without DORA_TAKE=1. The claim in a copy of the folder is
void, as its process writes to another place. A folder that was restored from a backup, or moved to
another disk while its run is alive, is no copy.
"""

import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .. import environment, machine
from ..access import inode
from ..errors import UserError
from ..files import allow_colleagues, take_name
from ..machine import user_name
from .folder import Experiment
from .records import Job, State, from_stored

__all__ = ["Holder", "claim", "holder", "is_taken", "latest", "refuse_if_held", "user_name"]

Ask = Callable[["Holder"], "bool | None"]  # does this holder's job still run? None: cannot say


@dataclass(frozen=True)
class Holder:
    """The process behind an attempt: enough to ask its machine, or its executor, about it."""

    attempt: int
    host: str
    boot_id: str
    namespace: str
    pid: int
    started: float  # start of the process, seconds since the epoch: ids are used again
    since: float
    user: str = ""
    job_id: str = ""
    token: str = ""  # of the submission, for a job
    inode: int = 0  # of the claim's own file
    # Earlier versions did not know the following.
    ticks: int | None = None  # start of the process, clock ticks since the boot: no clock moves it
    machine_id: str | None = None
    folder: str = ""  # the experiment's, as the process sees it
    locked: bool = False  # the process keeps a lock on the claim's file
    submissions: int | None = None  # how many the experiment had when the attempt began

    @classmethod
    def here(cls, attempt: int, job_id: str = "", token: str = "") -> "Holder":
        """This process."""
        ticks, started = machine.own_start()
        return cls(
            attempt,
            socket.gethostname(),
            machine.boot_id(),
            machine.namespace(),
            os.getpid(),
            started,
            time.time(),
            user_name(),
            job_id,
            token,
            ticks=ticks,
            machine_id=machine.machine_id(),
        )

    def alive(self, ask: Ask | None = None, file: Path | None = None) -> bool | None:
        """Whether it still runs. None if that cannot be known from here.

        Args:
            ask: asks the scheduler about a job.
            file: its claim, on which it may keep a lock.
        """
        if self.same_boot():
            alive = self._in_process_table()
            if alive is None and file is not None:
                alive = self._keeps_lock(file)
            if alive is not None:
                return alive
        elif self.this_machine():
            return False
        if not self.job_id or ask is None:
            return None
        return ask(self)

    def same_boot(self) -> bool:
        """Whether it was started on this machine, since its last boot."""
        if self.boot_id.isdigit():  # earlier versions on macOS: a time, which moves with the clock
            return self.host == socket.gethostname()
        return self.boot_id == machine.boot_id()

    def this_machine(self) -> bool:
        """Whether it was started on this machine, before or after its last boot."""
        known = self.machine_id in (None, machine.machine_id())
        return self.same_boot() or (known and self.host == socket.gethostname())

    def in_reach(self) -> bool:
        """Whether it runs here, in the same namespace of process ids. Then a signal reaches it."""
        return self.same_boot() and self._in_process_table() is True

    def this_process(self) -> bool:
        """Whether it is the process that asks."""
        return self.pid == os.getpid() and self.in_reach()

    def _in_process_table(self) -> bool | None:
        """Whether its process runs, by the processes of this machine. None if they do not tell."""
        if self.namespace != machine.namespace():
            return None
        return machine.lives(self.pid, self.ticks, self.started)

    def _keeps_lock(self, file: Path) -> bool | None:
        """Whether its process keeps the lock on its claim. None if the lock does not tell."""
        if not self.locked or inode(file) != self.inode or not machine.is_local(file):
            return None
        return _is_locked(file)

    def is_after(self, job: Job) -> bool:
        """Whether this attempt began after a submission."""
        # Numbers first: the clocks of two machines may differ by minutes.
        if self.submissions is not None:
            return self.submissions >= job.number
        return self.since > job.submitted

    def where(self) -> str:
        """`node7, job 8812` or `node7, process 312`."""
        process = f"job {self.job_id}" if self.job_id else f"process {self.pid}"
        return f"{self.host}, {process}"


def latest(experiment: Experiment) -> Holder | None:
    """The holder of the last attempt, alive or not. None if there was none, or this is a copy."""
    number = max(experiment.attempt_numbers(), default=0)
    name = f"attempts/{number}.json"
    made = from_stored(Holder, experiment.read(name))
    if made is None or _is_copy(made, experiment, name):
        return None
    return made


def _is_copy(made: Holder, experiment: Experiment, name: str) -> bool:
    """Whether a claim came here in a copy of its folder. Its process writes to another place."""
    if experiment.inode(name) == made.inode:
        return False
    return machine.wrote_elsewhere(made.folder, made.boot_id, experiment.folder)


def holder(experiment: Experiment, ask: Ask | None = None) -> tuple[Holder | None, bool | None]:
    """The process that holds the experiment now, and whether that is certain.

    Returns:
        (None, False) if no process does. (holder, True) if it is alive. (holder, None) if that
        cannot be known from here.
    """
    last = latest(experiment)
    if last is None:
        return None, False
    run = experiment.state()
    if run.attempt == last.attempt and run.state not in (State.RUNNING, State.NEW):
        return None, False
    alive = last.alive(ask, experiment.attempts / f"{last.attempt}.json")
    # A job that several experiments share goes on when one of them has ended.
    if alive is False or (not last.in_reach() and experiment.job_end(last.token)):
        return None, False
    return last, alive


def is_taken() -> bool:
    """Whether the user says that a holder is gone if that cannot be known from here."""
    return environment.take_asked()


def refuse_if_held(experiment: Experiment, ask: Ask | None = None) -> None:
    """Refuse to start an experiment that another process holds.

    Raises:
        UserError: it says which process, since when, and what to do.
    """
    last, alive = holder(experiment, ask)
    if last is None or last.this_process():
        return
    sig, since = experiment.sig, time.strftime("%d %b %H:%M", time.localtime(last.since))
    if alive:
        run = experiment.state()
        progress = ""
        if run.epochs:
            progress = f" (epoch {run.epoch} of {run.epochs})"
        raise UserError(
            f"XP {sig} is running on {last.where()}, since {since}{progress}.",
            f"watch it: dora info -f {sig} -t     stop it: dora info -f {sig} -C",
        )
    if not is_taken():
        raise UserError(
            f"XP {sig} was claimed by {last.where()} on {since}. "
            "This machine cannot check whether that process is still alive.",
            "if you know that it is gone: DORA_TAKE=1, and the same command again",
        )


def claim(
    experiment: Experiment, job_id: str = "", token: str = "", ask: Ask | None = None
) -> Holder:
    """Make this process the experiment's holder.

    Raises:
        UserError: another process holds it, or a process that cannot be asked.
    """
    # The number is read before the holder. If another process claims in between, it takes this
    # number, and `_make` fails.
    attempt = max(experiment.attempt_numbers(), default=0) + 1
    refuse_if_held(experiment, ask)
    mine = replace(
        Holder.here(attempt, job_id, token),
        folder=os.path.realpath(experiment.folder),
        submissions=experiment.job_number(),
    )
    if not _make(experiment.attempts / f"{attempt}.json", mine):
        refuse_if_held(experiment, ask)
        raise UserError(f"XP {experiment.sig} was taken by another process at this moment.")
    return mine


def _make(path: Path, mine: Holder) -> bool:
    """Make the claim's file, locked and with its own inode in it. False if another was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    made = False
    try:
        locked = machine.is_local(path.parent) and _lock(file)
        content = asdict(mine) | {"inode": os.fstat(file).st_ino, "locked": locked}
        os.write(file, json.dumps(content).encode())
        os.fsync(file)
        allow_colleagues(Path(aside))
        made = take_name(Path(aside), path)
    finally:
        Path(aside).unlink(missing_ok=True)
        if not made:  # else it stays open, so that the lock lasts until this process ends
            os.close(file)
    return made


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks
        return False
    return True


def _is_locked(path: Path) -> bool | None:
    """Whether a process keeps the lock. None if the file cannot be opened."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        # Shared: two processes that ask at once do not see each other's lock.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    else:
        return False
    finally:
        os.close(file)
