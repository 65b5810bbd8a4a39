"""Works through the experiments of a packed job, inside its allocation of SLURM.

Each experiment runs in a process of its own, with its own claim, log and end. It starts as a fork
of this process, which has imported the libraries once, as in the queue of this machine (queue/).
So it can be killed, or cancelled, without the others. If this process is killed, the kernel kills
the experiments as well (children.py): SLURM must not take a job for over whose experiments run.

The program `engine/pack.py` calls this.
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

PERIOD = 0.2  # seconds between two looks at the processes
MARKS = 2.0  # seconds between two looks for experiments that a user has cancelled
LIST = "tasks.json"


def list_of(experiment: Experiment, token: str) -> Path:
    """The file with the experiments of each job of an array, and of a packed job."""
    return experiment.folder.parents[1] / ARRAYS / token / LIST


@dataclass(frozen=True)
class Member:
    """One experiment of a packed job, and its submission."""

    experiment: Experiment
    token: str
    number: int  # of the submission

    @property
    def cancelled(self) -> bool:
        """Whether a user has asked for its end, or another submission took its place."""
        job = self.experiment.job_at(self.number)
        return job is None or bool(job.cancelled)

    @property
    def is_over(self) -> bool:
        """Whether this job has nothing more to do for it."""
        return self.cancelled or self.experiment.job_end(self.token) is not None


def members_of(path: Path, task: int) -> list[Member]:
    """The experiments of one job of an array. Empty if the list is missing or damaged.

    Args:
        task: its index in the array.
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
    gpu: str  # empty: it has none
    deadline: float = float("inf")  # when it is killed

    def ask_to_end(self) -> None:
        """Ask the run to save a checkpoint and to end."""
        send(self.pid, signal.SIGTERM)

    def is_gone(self) -> tuple[bool, int]:
        """(whether the process has ended, its exit code or the negative signal)."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return False, 0
        send(-self.pid, signal.SIGKILL)  # it may have left processes behind
        return True, os.waitstatus_to_exitcode(status)


class Pack:
    """The experiments of one job, and the way they run.

    Args:
        at_once: how many of them run at the same time.
        gpus: a place on a GPU for each of those. Empty: they run on the CPU.
        libraries: the names of libraries that they share. None: each imports its own.
        job_id: of this job.
        path: `sys.path` of a program, without its own folder.
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
        self.left: list[Member] = []  # they have started, and were not finished
        self.at_once, self.gpus = at_once, list(gpus)
        self.names, self.libraries = libraries, Libraries()
        self.job_id, self.path = job_id, list(path)
        self._looked = time.monotonic()

    @classmethod
    def read(cls, path: Path, task: int, job_id: str, python_path: Sequence[str]) -> "Pack":
        """The pack that a list on disk describes.

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
        """Run all experiments. Those that ended in an earlier start of this job are left out.

        Args:
            asked_to_end: returns the number of the signal that asks this job to end, or 0.

        Returns:
            The experiments that are not over, because of that signal.
        """
        self.waiting = [member for member in self.waiting if not member.is_over]
        if len(self.waiting) > 1 and self.names is not None:
            self._import(self.names)
        told = False
        while self.waiting or self.running:
            signum = asked_to_end()
            self._note_ends(stopping=signum != 0)
            if signum and not told:
                told = True
                self.left, self.waiting = self.left + self.waiting, []
                for one in self.running:
                    one.ask_to_end()
            self._end_cancelled()
            while self.waiting and len(self.running) < self.at_once:
                self._start(self.waiting.pop(0))
            time.sleep(PERIOD)
        return self.left

    def _import(self, names: Sequence[str]) -> None:
        ours, sys.path[:] = sys.path[:], self.path
        try:
            self.libraries.load("pack", names, self.path)
        except Exception as error:  # a library may raise anything
            print(f"each experiment imports its own libraries: {error}", file=sys.stderr)
        finally:
            sys.path[:] = ours

    def _start(self, member: Member) -> None:
        """Start the process of a member, unless it is over by now."""
        if member.is_over:
            return
        gpu = ""
        if self.gpus:
            gpu = self.gpus.pop(0)
        starter = Parent.here()
        pid = os.fork()
        if pid == 0:
            # This is a copy of the process, and must not do its work a second time.
            try:
                end_with(starter)
                for signum in signal.valid_signals():
                    if callable(signal.getsignal(signum)):
                        signal.signal(signum, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                self._become(member, gpu)
            except Exception as error:
                os.write(2, f"the job could not start it: {error}\n".encode(errors="replace"))
            finally:
                os._exit(127)
        self.running.append(Running(member, pid, gpu))

    def _become(self, member: Member, gpu: str) -> None:
        """Run a member in this process. Does not return."""
        folder = member.experiment.submitit
        folder.mkdir(exist_ok=True)
        program = [Path(__file__).parents[1] / "job.py", member.experiment.folder, member.token]
        env = environment.variables() | {
            environment.JOB_ID: self.job_id,
            environment.PACKED: "1",
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
        """Write down how members ended whose process is gone.

        Args:
            stopping: this job ends. A member that a signal ended resumes when the job is started
                again, so it has no end.
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
            if signum:
                code = 0
            member = one.member
            member.experiment.end_job(member.number, member.token, word, code, signum)

    def _end_cancelled(self) -> None:
        """Ask members to end that a user has cancelled. Kill them after a grace time."""
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
    """A GPU for each of so many experiments. All GPUs have one before the first has two.

    There are fewer places if the GPUs have no room for so many.
    """
    return (list(gpus) * per_gpu)[:at_once]


def has_program(code_root: Path) -> bool:
    """Whether a snapshot can run packed jobs. Those of earlier versions cannot."""
    return program(code_root).exists()


def program(code_root: Path) -> Path:
    """The program of a packed job."""
    return code_root / "dora_train" / "engine" / "pack.py"
