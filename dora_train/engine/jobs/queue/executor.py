"""The executor for this machine. It has a queue of files (queue.py), and small processes that start
the jobs (runner.py).

A job runs in the folder, environment and Python of the command that queued it. It has its own
session, so neither Ctrl-C nor the end of the terminal reaches it. All of its ranks run on this
machine, for any number of nodes, without limits on time and memory. Other settings that only a
cluster has are ignored, and a message says so.
"""

import os
import shutil
import socket
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from ... import environment, machine
from ...experiment import claims
from ...experiment.claims import Holder
from ...experiment.records import Job, from_stored
from ..executor import JobInfo, NotSubmitted, Order, Phase, Receipt, job_log, tokens
from .gpus import chosen_of, visible_gpus
from .job_files import OVER, PENDING, RUNNING
from .moving import more_to_come, move
from .place import is_ours, machine_of_queue, place, trouble
from .queue import Queue
from .surroundings import (
    as_text,
    cores,
    environment_of,
    held,
    in_words,
    share_of,
    start_by_fork,
    umask,
    without_gpus,
)

PHASES = {PENDING: Phase.PENDING, RUNNING: Phase.RUNNING, OVER: Phase.OVER}
# settings that only a cluster has
FOREIGN = ("partition", "constraint", "qos", "account", "nodelist", "exclude")


class Local:
    """Queues jobs on this machine, with the methods of `executor.Executor`.

    Args:
        jobs: how many jobs run at the same time. None: as many as GPUs and cores can hold.
        threads: the smallest and the largest number of threads of a job.
        why: why jobs run on this machine, in a few words.
        preload: the libraries that are imported once for all jobs. None: each job imports its own.
        per_gpu: how many jobs may share a GPU.
        only: the GPUs that jobs may get. Empty: all GPUs that this command may use.
    """

    name = "local"

    def __init__(
        self,
        jobs: int | None = None,
        threads: tuple[int, int] = (1, 1),
        why: str = "",
        preload: Sequence[str] | None = None,
        per_gpu: int = 1,
        only: Sequence[str] = (),
    ):
        self._jobs, self._threads, self._why = jobs, threads, why
        self._preload, self._per_gpu, self._only = preload, per_gpu, only
        self._queue = Queue(str(place()))
        self._others: dict[str, Queue] = {}  # this user's queues in other folders, by their ids
        self._reported: set[str] = set()  # ignored settings that a message has named

    # --- is there a queue? ---

    @property
    def queue(self) -> str:
        return self._queue.id()

    def where(self, gpus: Collection[int]) -> str:
        text = f"on this machine ({self._why}), {in_words(self.limits(gpus))} at a time"
        return text + without_gpus(gpus, self.gpus)

    @cached_property
    def _missing(self) -> str:
        try:
            self._queue.make(machine_of_queue())
            why = trouble(self._queue.root)
        except OSError as error:
            why = error.strerror or str(error)
        if not why:
            return ""
        return f"the queue cannot lie in {self._queue.root}: {why}"

    def missing(self) -> str:
        return self._missing

    def answers_for(self, job: Job) -> bool:
        if job.cluster != self.name:
            return False
        if job.queue_folder and is_ours(job.queue_folder):
            self._others[job.queue] = Queue(job.queue_folder)
        return self._queue_of(job.queue or self.queue) is not None

    def lost(self, job: Job) -> bool:
        """Whether the queue of a job was this user's on this machine, and is certainly gone."""
        if job.cluster != self.name or not job.queue_folder or job.user != claims.user_name():
            return False
        maker = from_stored(Holder, job.writer)
        if maker is None or not maker.this_machine() or maker.namespace != machine.namespace():
            return False  # the folders of another machine or container cannot be seen from here
        try:
            # A new queue in the same folder has another id, so the old one is gone.
            return Path(job.queue_folder, "id").read_text(encoding="utf-8").strip() != job.queue
        except (FileNotFoundError, NotADirectoryError):
            return True
        except (OSError, ValueError):
            return False

    def _queue_of(self, queue_id: str) -> Queue | None:
        """The queue with this id. None if this user no longer has such a queue."""
        found = self._others.get(queue_id)
        if queue_id == self.queue:
            found = self._queue
        if found is None or not queue_id or found.id() != queue_id:
            return None
        return found

    @cached_property
    def gpus(self) -> list[str]:
        """The GPUs that jobs may get.

        Raises:
            UserError: `local.gpus` names a GPU that this machine does not have.
        """
        return chosen_of(visible_gpus(), self._only)

    def limits(self, gpus: Collection[int]) -> tuple[int, int]:
        """The smallest and the largest number of jobs at a time, if they ask for so many GPUs."""
        if self._jobs:
            return self._jobs, self._jobs
        return held(gpus, len(self.gpus) * self._per_gpu, self._threads, cores())

    # --- submit, cancel ---

    def submit(self, order: Order) -> Receipt:
        """Put a job into the queue. `move` starts it.

        Raises:
            NotSubmitted: it needs more GPUs than there are, or replaces a job of another queue that
                has not ended yet.
        """
        wanted = order.parameters
        gpus = int(str(wanted.get("gres", "gpu:0")).partition(":")[2]) * wanted["nodes"]
        if gpus > len(self.gpus):
            here = f"this machine has {len(self.gpus)} to give"
            if self._only:
                here += " (local.gpus)"
            elif environment.visible_gpus() is not None:
                here += " (CUDA_VISIBLE_DEVICES)"
            raise NotSubmitted(f"refused: a job of {gpus} GPUs; {here}.")
        # This queue does not know the jobs of another queue. So the new job cannot wait for them.
        if set(map(_queue_id, order.after)) - {self.queue}:
            raise NotSubmitted(
                f"refused: it takes the place of job {', '.join(order.after)} of another queue, which "
                "was asked to end; call again in a minute"
            )
        self._report_ignored(wanted)
        ranks = wanted["nodes"] * wanted["ntasks_per_node"]
        share = share_of(gpus, self.gpus, self._per_gpu, ranks * order.threads)
        if self._jobs is None:  # the cores limit the jobs without a GPU (taking.py)
            share["room"] = cores()
        order.folder.mkdir(parents=True, exist_ok=True)
        job = {
            "limit": self._jobs or 1,  # not read if there is `room`
            "ranks": ranks,
            "env": environment_of(order, by_index=gpus > 0),
            **share,
            **_program_of(order),
            **start_by_fork(order, self._preload),
        }
        number = self._queue.add(job, None if order.tasks is None else list(order.tasks))
        return Receipt(f"{self.queue}-{number}")

    def _report_ignored(self, wanted: Mapping[str, Any]) -> None:
        """Print one line on standard error that names the settings that only a cluster has.

        A setting is reported only once.
        """
        keys = [key for key in FOREIGN if wanted.get(key)]
        keys += [f"sbatch.{key}" for key in wanted.get("additional_parameters", ())]
        if not self._reported.issuperset(keys):
            self._reported.update(keys)
            print(f"ignored, SLURM only: {', '.join(keys)}", file=sys.stderr)

    def log_path(self, order: Order, job_id: str, task: int | None) -> Path:
        return job_log(order, job_id, task)

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel jobs. One that runs is asked to end, and killed after a grace time."""
        for job_id, token in tokens(job_ids).items():
            queue = self._queue_of(_queue_id(job_id))
            if queue is not None:
                queue.cancel(_number(job_id), claims.user_name(), token)
        self.move()

    def move(self) -> None:
        """Start the jobs that can start, and replace runners that were killed."""
        move(self._queue)

    def more_to_come(self) -> AbstractContextManager[None]:
        return more_to_come(self._queue)

    # --- ask ---

    def jobs(self, job_ids: Iterable[str], force: bool = False) -> dict[str, JobInfo]:
        """The answer on each of these jobs. It is always new, because files are fast to read."""
        numbers: dict[str, list[str]] = defaultdict(list)
        for job_id in job_ids:
            numbers[_queue_id(job_id)].append(_number(job_id))
        infos: dict[str, JobInfo] = {}
        for queue_id, wanted in numbers.items():
            infos |= self._jobs_of(queue_id, wanted)
        return infos

    def _jobs_of(self, queue_id: str, numbers: list[str]) -> dict[str, JobInfo]:
        queue = self._queue_of(queue_id)
        ids = {f"{queue_id}-{number}": number for number in numbers}
        if queue is None:
            return {job_id: JobInfo(job_id, Phase.UNKNOWN) for job_id in ids}
        states = queue.states(numbers)
        return {job_id: _info(job_id, *states[number]) for job_id, number in ids.items()}

    def find(self, names: Iterable[str]) -> dict[str, str] | None:
        known = self._queue.named()
        found = {}
        for name in names:
            if name in known:
                found[name] = f"{self.queue}-{known[name].partition('_')[0]}"
        return found

    def is_running(self, job_id: str, token: str = "") -> bool | None:
        """Whether a job runs now, and its name holds the token. None: it is another machine's."""
        return self.jobs([job_id])[job_id].is_running(token)


def _program_of(order: Order) -> dict[str, Any]:
    """What the queue stores about a job: its program, its folders, and the jobs it waits for."""
    lines = [*order.parameters.get("setup", ()), f"exec {order.command}"]
    return {
        "name": order.name,
        "umask": umask(),
        "folder": as_text(os.getcwd()),
        "script": [shutil.which("bash") or "/bin/sh", "-c", as_text("\n".join(lines))],
        "logs": as_text(order.folder.absolute()),
        "group": order.group,
        "last": list(map(as_text, order.last)),
        "after": [_number(job_id) for job_id in order.after],
    }


def is_local(job_id: str) -> bool:
    """Whether a job id belongs to a local queue: `q3f1a-12`."""
    return job_id.startswith("q")


def _queue_id(job_id: str) -> str:
    return job_id.partition("-")[0]


def _number(job_id: str) -> str:
    return job_id.partition("-")[2]


def _info(job_id: str, phase: str, end: Mapping[str, Any]) -> JobInfo:
    """The answer on a job, from its state in the queue."""
    return JobInfo(
        job_id,
        PHASES[phase],
        str(end.get("word")) if phase == OVER else "",
        reason=end.get("waits", ""),
        node=socket.gethostname(),
        gpus=end.get("gpus", ()),
        user=claims.user_name(),
        exit_code=end.get("code", 0),
        signal=end.get("signal", 0),
        name=end.get("name", ""),
    )
