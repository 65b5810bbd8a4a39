"""Runs the experiments of a packed job, inside its SLURM allocation.

Each experiment runs in its own process, and has its own claim, log and end. So one experiment can
be killed or cancelled, and the others continue. Its process is a fork of this process, which has
imported the libraries once. The local queue does the same (queue/).

If this process is killed, the kernel kills the experiments too (children.py). Otherwise SLURM would
report the job as over while its experiments still run. The program `engine/pack.py` calls this.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...children import Parent, end_with
from .. import environment
from ..experiment.folder import ARRAYS, Experiment
from .queue.gpus import visible_gpus
from .queue.libraries import Libraries
from .queue.starting import become_job, enter
from .queue.surroundings import as_text, umask
from .queue.watching import GRACE, send, signal_of

PERIOD = 0.2  # seconds between two checks of the processes
MARKS = 2.0  # seconds between two checks for experiments that a user has cancelled
LIST = "tasks.json"


def list_of(experiment: Experiment, token: str) -> Path:
    """The path of the file that lists the experiments of a packed job, or of a job array."""
    return experiment.folder.parents[1] / ARRAYS / token / LIST


@dataclass(frozen=True)
class Member:
    """One experiment of a packed job, and its submission."""

    experiment: Experiment
    token: str
    number: int  # of the submission

    @property
    def cancelled(self) -> bool:
        """Whether a user has cancelled it, or another submission has replaced this one."""
        job = self.experiment.job_at(self.number)
        return job is None or bool(job.cancelled)

    @property
    def is_over(self) -> bool:
        """Whether this job has nothing more to do for the experiment."""
        return self.cancelled or self.experiment.job_end(self.token) is not None


def members_of(path: Path, task: int) -> list[Member]:
    """The experiments of one job. Empty if the list is missing or damaged.

    Args:
        path: the list.
        task: the index of the job in its array. 0 if there is only one job.
    """
    with suppress(OSError, ValueError, LookupError, TypeError):
        jobs = json.loads(path.read_text(encoding="utf-8"))["jobs"]
        return [Member(Experiment(Path(folder)), *rest) for folder, *rest in jobs[task]]
    return []


@dataclass
class Running:
    """The process of a member."""

    member: Member
    pid: int
    gpu: str  # empty: it runs on the CPU
    deadline: float = float("inf")  # when it is killed, in seconds of the monotonic clock

    def ask_to_end(self) -> None:
        """Ask the run to save a checkpoint and to end."""
        send(self.pid, signal.SIGTERM)

    def is_gone(self) -> tuple[bool, int]:
        """Returns whether the process has ended, and its exit code or its negative signal."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return False, 0
        send(-self.pid, signal.SIGKILL)  # its whole group: it may have left processes behind
        return True, os.waitstatus_to_exitcode(status)


class Pack:
    """The experiments of one job. `work` runs them.

    Args:
        at_once: how many experiments run at the same time.
        gpus: the GPUs for these. A GPU that several experiments share is listed several times.
            Empty: they run on the CPU.
        libraries: the names of libraries that they share. None: each imports its own.
        job_id: of this job.
        path: `sys.path` for an experiment, without the folder of its program.
    """

    def __init__(
        self,
        members: Sequence[Member],
        at_once: int,
        gpus: Sequence[str],
        libraries: Sequence[str] | None,
        job_id: str,
        path: Sequence[str],
    ):
        self.waiting = list(members)
        self.running: list[Running] = []
        self.left: list[Member] = []  # not over, because a signal asked this job to end
        self.at_once, self.gpus = at_once, list(gpus)
        self.names, self.libraries = libraries, Libraries()
        self.job_id, self.path = job_id, list(path)
        self._looked = time.monotonic()

    @classmethod
    def read(cls, path: Path, task: int, job_id: str, python_path: Sequence[str]) -> "Pack":
        """Read a pack from a list on disk.

        Args:
            task: the index of this job in its array.

        Raises:
            OSError, ValueError, LookupError: the list cannot be read.
        """
        content = json.loads(path.read_text(encoding="utf-8"))
        at_once, gpus = content["at_once"], []
        if content["gpus"]:
            gpus = places(visible_gpus(), content["per_gpu"], at_once)
            at_once = len(gpus) or at_once
        members = members_of(path, task)
        return cls(members, at_once, gpus, content["libraries"], job_id, python_path)

    def work(self, asked_to_end: Callable[[], int]) -> list[Member]:
        """Run all experiments. Experiments that ended in an earlier start of this job are left out.

        Args:
            asked_to_end: returns the number of the signal that asks this job to end, or 0.

        Returns:
            The experiments that are not over because of this signal.
        """
        self.waiting = [member for member in self.waiting if not member.is_over]
        # A single experiment gains nothing from shared libraries.
        if len(self.waiting) > 1 and self.names is not None:
            self._import(self.names)
        told = False
        while self.waiting or self.running:
            signum = asked_to_end()
            self._note_ends(stopping=signum != 0)
            if signum and not told:
                told = True
                # Those that have not started are left, too: they resume with the others.
                self.left, self.waiting = self.left + self.waiting, []
                for one in self.running:
                    one.ask_to_end()
            self._end_cancelled()
            while self.waiting and len(self.running) < self.at_once:
                self._start(self.waiting.pop(0))
            time.sleep(PERIOD)
        return self.left

    def _import(self, names: Sequence[str]) -> None:
        """Import the libraries that the experiments share."""
        # Only installed libraries are imported here. Each experiment imports the project itself.
        ours, sys.path[:] = sys.path[:], self.path
        try:
            self.libraries.load("pack", names, self.path)
        except Exception as error:  # a library may raise anything
            print(f"each experiment imports its own libraries: {error}", file=sys.stderr)
        finally:
            sys.path[:] = ours

    def _start(self, member: Member) -> None:
        """Start the process of a member, unless the member is already over."""
        if member.is_over:
            return
        gpu = ""
        if self.gpus:
            gpu = self.gpus.pop(0)
        starter = Parent.here()
        pid = os.fork()
        if pid == 0:
            # This is a copy of the process. It must not do the work of the process a second time.
            try:
                end_with(starter)
                # The handlers of this program must not run in an experiment.
                for signum in signal.valid_signals():
                    if callable(signal.getsignal(signum)):
                        signal.signal(signum, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a new Python
                self._become(member, gpu)
            except Exception as error:
                os.write(2, f"the job could not start it: {error}\n".encode(errors="replace"))
            finally:
                os._exit(127)
        self.running.append(Running(member, pid, gpu))

    def _become(self, member: Member, gpu: str) -> None:
        """Turn this process into the run of a member. Does not return."""
        folder = member.experiment.submitit
        folder.mkdir(exist_ok=True)
        program = [Path(__file__).parents[1] / "job.py", member.experiment.folder, member.token]
        env = environment.variables() | {
            environment.JOB_ID: self.job_id,
            environment.PACKED: "1",  # so it does not requeue the job, or take all of its cores
        }
        if gpu:
            env["CUDA_VISIBLE_DEVICES"] = gpu
        words = [as_text(str(word)) for word in program]
        job = {
            "logs": as_text(folder.absolute()),
            "umask": umask(),
            "folder": as_text(os.getcwd()),
            "program": words,
            "script": [as_text(sys.executable), "-u", *words],
        }
        enter(job, f"{self.job_id}_0")
        libraries = None
        if self.libraries.fit("pack"):
            libraries = self.libraries
        variables = {as_text(key): as_text(value) for key, value in env.items()}
        become_job(job, variables, libraries)

    def _note_ends(self, stopping: bool) -> None:
        """Record how members ended, if their processes are gone.

        Args:
            stopping: whether this job ends. A member that a signal ended then gets no record: it
                resumes when this job is started again.
        """
        for one in list(self.running):
            is_gone, code = one.is_gone()
            if not is_gone:
                continue
            self.running.remove(one)
            if one.gpu:
                self.gpus.append(one.gpu)
            signum = signal_of(code)
            if signum and stopping and not one.member.cancelled:
                self.left.append(one.member)
                continue
            word = "COMPLETED"
            if code:
                word = "CANCELLED" if one.member.cancelled else "FAILED"
            if signum:  # an end stores the signal, and not the exit code made from it
                code = 0
            member = one.member
            member.experiment.end_job(member.number, member.token, word, code, signum)

    def _end_cancelled(self) -> None:
        """Ask the cancelled members to end. Kill them after a grace time."""
        now = time.monotonic()
        for one in self.running:
            if now > one.deadline:
                send(-one.pid, signal.SIGKILL)
        if now - self._looked < MARKS:
            return
        self._looked = now
        for one in self.running:
            if one.deadline == float("inf") and one.member.cancelled:
                one.deadline = now + GRACE
                one.ask_to_end()


def places(gpus: Sequence[str], per_gpu: int, at_once: int) -> list[str]:
    """The GPUs for experiments that run at the same time. Each GPU gets one before any gets two.

    The list is shorter than `at_once` if the GPUs have no room for so many.

    >>> places(["0", "1"], per_gpu=2, at_once=3)
    ['0', '1', '0']
    """
    return (list(gpus) * per_gpu)[:at_once]


def has_program(code_root: Path) -> bool:
    """Whether a snapshot can run packed jobs. Snapshots of earlier versions cannot."""
    return program(code_root).exists()


def program(code_root: Path) -> Path:
    """The path of the program of a packed job, in a snapshot."""
    return code_root / "dora_train" / "engine" / "pack.py"
