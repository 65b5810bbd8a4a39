"""This machine as an executor: a queue of files (queue.py), worked off by small processes
(runner.py).

A job of it runs in the folder, environment and Python of the command that queued it, in a session
of its own: neither Ctrl-C nor the end of the terminal reaches it. All ranks of a job run here,
however many nodes were asked for, and there are no limits of time and memory; what else only a
cluster has is passed over, and said so.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ... import machine
from ...experiment import claims
from ...experiment.claims import Holder
from ...experiment.records import Job, from_stored
from ..executor import JobInfo, NotSubmitted, Order, Phase, Receipt, outside, tokens
from .files import text
from .place import is_ours, machine_of_queue, place, trouble
from .queue import OVER, PENDING, RUNNING, Queue

PHASES = {PENDING: Phase.PENDING, RUNNING: Phase.RUNNING, OVER: Phase.OVER}
FOREIGN = ("partition", "constraint", "qos", "account", "nodelist", "exclude")


class Local:
    """Queues jobs on this machine, and knows what became of them.

    Args:
        jobs: how many run at a time; None: one a GPU, without GPUs as many as `threads` go into the
            cores.
        why: why jobs go here, in a few words.
    """

    name = "local"

    def __init__(self, jobs: int | None = None, threads: int = 1, why: str = ""):
        self._jobs, self._threads, self._why = jobs, threads, why
        self._queue = Queue(str(place()))
        self._others: dict[str, Queue] = {}  # this user's queues in other folders, by their ids
        self._said: set[str] = set()

    # --- is there a queue? ---

    @property
    def queue(self) -> str:
        return self._queue.id()

    def where(self) -> str:
        return f"on this machine ({self._why}), {self.limit} job{'s' * (self.limit > 1)} at a time"

    @cached_property
    def _missing(self) -> str:
        try:
            self._queue.make(machine_of_queue())
            why = trouble(self._queue.root)
        except OSError as error:
            why = error.strerror or str(error)
        return f"the queue cannot lie in {self._queue.root}: {why}" if why else ""

    def missing(self) -> str:
        return self._missing

    def answers_for(self, job: Job) -> bool:
        if job.cluster != self.name:
            return False
        if job.queue_folder and is_ours(job.queue_folder):
            self._others[job.queue] = Queue(job.queue_folder)
        return self._queue_of(job.queue or self.queue) is not None

    def lost(self, job: Job) -> bool:
        """Whether the queue of a job is proven gone: it was this user's, here, and is no more."""
        if job.cluster != self.name or not job.queue_folder or job.user != claims.user_name():
            return False
        maker = from_stored(Holder, job.writer)
        if maker is None or not maker.this_machine() or maker.namespace != machine.namespace():
            return False  # the folders of another machine, or container, are not seen from here
        try:
            return Path(job.queue_folder, "id").read_text(encoding="utf-8").strip() != job.queue
        except (FileNotFoundError, NotADirectoryError):
            return True
        except (OSError, ValueError):
            return False

    def _queue_of(self, queue_id: str) -> Queue | None:
        """The queue of this id, if it is one of this user's that is there."""
        found = self._queue if queue_id == self.queue else self._others.get(queue_id)
        return found if found is not None and queue_id and found.id() == queue_id else None

    @cached_property
    def gpus(self) -> list[str]:
        """The GPUs that this command may use, as CUDA names them."""
        return visible_gpus()

    @cached_property
    def limit(self) -> int:
        """How many jobs run at a time."""
        return self._jobs or len(self.gpus) or max(1, _cores() // self._threads)

    # --- submit, cancel ---

    def submit(self, order: Order) -> Receipt:
        """Put a job into the line; `move` lets it start.

        Raises:
            NotSubmitted: it needs more GPUs than there are, or replaces a job of a cluster that has
                yet to end.
        """
        wanted = order.parameters
        gpus = int(str(wanted.get("gres", "gpu:0")).partition(":")[2]) * wanted["nodes"]
        if gpus > len(self.gpus):
            raise NotSubmitted(
                f"refused: a job of {gpus} GPUs; this machine has {len(self.gpus)} to give"
                f"{' (CUDA_VISIBLE_DEVICES)' * ('CUDA_VISIBLE_DEVICES' in os.environ)}."
            )
        if not all(_queue_id(job_id) == self.queue for job_id in order.after):
            raise NotSubmitted(
                f"refused: it takes the place of job {', '.join(order.after)} of another queue, which "
                "was asked to end; call again in a minute"
            )
        self._pass_over(
            [key for key in FOREIGN if wanted.get(key)]
            + [f"sbatch.{key}" for key in wanted.get("additional_parameters", ())]
        )
        order.folder.mkdir(parents=True, exist_ok=True)
        lines = [*wanted.get("setup", ()), *order.setup, f"exec {order.command}"]
        number = self._queue.add(
            {
                "name": order.name,
                "limit": self.limit,
                "gpus": gpus,
                "visible": self.gpus if gpus else [],
                "ranks": wanted["nodes"] * wanted["ntasks_per_node"],
                "env": _environment(),
                "umask": _umask(),
                "folder": text(os.fsencode(os.getcwd())),
                "script": [
                    shutil.which("bash") or "/bin/sh",
                    "-c",
                    text(os.fsencode("\n".join(lines))),
                ],
                "logs": text(os.fsencode(order.folder.absolute())),
                "after": [_number(job_id) for job_id in order.after],
            },
            None if order.tasks is None else list(order.tasks),
        )
        return Receipt(f"{self.queue}-{number}")

    def _pass_over(self, keys: list[str]) -> None:
        """One line on standard error, the first time."""
        if keys and not self._said.issuperset(keys):
            self._said.update(keys)
            print(f"this machine knows no {' and no '.join(keys)}: passed over.", file=sys.stderr)

    def log_path(self, order: Order, job_id: str, task: int | None) -> Path:
        """Of the first rank; the names are those of submitit's."""
        return order.folder / (
            f"{job_id}_0_log.out" if task is None else f"{job_id}_{task}_0_log.out"
        )

    def cancel(self, job_ids: Iterable[str]) -> None:
        """A job that waits is gone at once; one that runs is asked to leave, and ended after a
        grace time."""
        for job_id, token in tokens(job_ids).items():
            queue = self._queue_of(_queue_id(job_id))
            if queue is not None:
                queue.cancel(_number(job_id), claims.user_name(), token)
        self.move()

    def move(self) -> None:
        """Let the jobs start that can, and put somebody in the place of a runner that was
        killed."""
        if not self.queue:
            return
        # is there anything to do? It is cheap to look
        jobs = [*self._queue.take(), *self._queue.orphans()]
        for job in jobs:
            job.close()
        if jobs:
            _start_runner(self._queue)

    # --- ask ---

    def jobs(self, job_ids: Iterable[str], force: bool = False) -> dict[str, JobInfo]:
        """Files are cheap to read: the answer is always of now."""
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
        return {
            name: f"{self.queue}-{known[name].partition('_')[0]}" for name in names if name in known
        }

    def is_running(self, job_id: str, token: str = "") -> bool | None:
        """Whether a job runs now, and its name holds the token; None: it is another machine's."""
        info = self.jobs([job_id])[job_id]
        if info.phase == Phase.UNKNOWN:
            return None
        return info.of(token).phase == Phase.RUNNING


def is_local(job_id: str) -> bool:
    """Whether an id is one of a local queue: `q3f1a-12`."""
    return job_id.startswith("q")


def _queue_id(job_id: str) -> str:
    return job_id.partition("-")[0]


def _number(job_id: str) -> str:
    return job_id.partition("-")[2]


def _info(job_id: str, phase: str, what: Mapping[str, Any]) -> JobInfo:
    word = str(what.get("word")) if phase == OVER else ""
    return JobInfo(
        job_id,
        PHASES[phase],
        word,
        node=socket.gethostname(),
        user=claims.user_name(),
        exit_code=what.get("code", 0),
        signal=what.get("signal", 0),
        name=what.get("name", ""),
    )


# --- this machine ---


def visible_gpus() -> list[str]:
    """`["0", "1"]`: those that CUDA_VISIBLE_DEVICES leaves, else all that the driver lists.

    Torch is not asked.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        # CUDA stops at the first of those
        ends = [place for place, name in enumerate(names) if name in ("", "-1")]
        return list(dict.fromkeys(names[: ends[0]] if ends else names))
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return (
        [line.strip() for line in done.stdout.splitlines() if line.strip().isdigit()]
        if not done.returncode
        else []
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment() -> dict[str, str]:
    """This command's, without what an outer job left in it."""
    return {
        text(os.fsencode(key)): text(os.fsencode(value))
        for key, value in os.environ.items()
        if not outside(key)
    }


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def _start_runner(queue: Queue) -> None:
    """In a session of its own, and with no pipe of ours: it outlives this command."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from dora_train.engine.jobs.queue.runner import main;"
        "main(sys.argv[2])"
    )
    private = os.open(queue.path("trouble.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(private, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-IS", "-c", code, str(Path(__file__).parents[4]), queue.root],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process.wait()  # until it has forked: what it starts then shows as running
