"""Chooses the executor of new jobs: SLURM, or the queue of this machine.

New jobs go where `cluster: auto | slurm | local` of the configuration says. DORA_CLUSTER overrides
it. A job that was submitted before belongs to the executor that got it, whatever is chosen today.
Its id tells which one that is.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .. import environment
from ..errors import UserError, did_you_mean
from ..experiment.records import Job
from ..machine import forks_survive
from .executor import Executor, JobInfo, Order, Receipt, tokens
from .queue.executor import Local, is_local
from .queue.gpus import named
from .queue.libraries import USUAL
from .slurm import Slurm

WORDS = ("auto", "slurm", "local")


class Places:
    """SLURM and this machine as one `executor.Executor`. New jobs go to the chosen one."""

    def __init__(self, slurm: Slurm, local: Local, chosen: Executor):
        self._slurm, self._local, self._chosen = slurm, local, chosen

    @property
    def name(self) -> str:
        return self._chosen.name

    @property
    def queue(self) -> str:
        return self._chosen.queue

    def where(self, gpus: Collection[int]) -> str:
        return self._chosen.where(gpus)

    def missing(self) -> str:
        return self._chosen.missing()

    def answers_for(self, job: Job) -> bool:
        return self._local.answers_for(job) or self._slurm.answers_for(job)

    def submit(self, order: Order) -> Receipt:
        return self._chosen.submit(order)

    def log_path(self, order: Order, job_id: str, task: int | None) -> Path:
        return self._chosen.log_path(order, job_id, task)

    def lost(self, job: Job) -> bool:
        return self._local.lost(job)

    def cancel(self, job_ids: Iterable[str]) -> None:
        local, slurm = _split(tokens(job_ids))
        if local:
            self._local.cancel(local)
        if slurm and not self._slurm.missing():  # else scancel would be reported as missing
            self._slurm.cancel(slurm)

    def move(self) -> None:
        self._local.move()

    def more_to_come(self) -> AbstractContextManager[None]:
        return self._chosen.more_to_come()

    def jobs(self, job_ids: Iterable[str], force: bool = False) -> dict[str, JobInfo]:
        local, slurm = _split(tokens(job_ids))
        return self._local.jobs(local) | self._slurm.jobs(slurm, force)

    def find(self, names: Iterable[str]) -> dict[str, str] | None:
        wanted = list(names)
        found = self._local.find(wanted) or {}
        rest = [name for name in wanted if name not in found]
        if not rest or self._slurm.missing():
            return found
        queued = self._slurm.find(rest)
        if queued is None:
            return None
        return found | queued

    def is_running(self, job_id: str, token: str = "") -> bool | None:
        """Whether a job runs now, and its name holds the token. None: this cannot be known here."""
        if is_local(job_id):
            return self._local.is_running(job_id, token)
        return self._slurm.is_running(job_id, token)


def _split(wanted: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """(the jobs of a local queue, those of SLURM), each with its token."""
    local = {job_id: token for job_id, token in wanted.items() if is_local(job_id)}
    return local, {job_id: wanted[job_id] for job_id in wanted if job_id not in local}


def asked() -> Places:
    """Both executors, to be asked about jobs and not to submit any."""
    local = Local()
    return Places(Slurm(), local, local)


def chosen(cfg: Mapping[str, Any]) -> Places:
    """Both executors. New jobs go where the configuration or the environment says.

    Raises:
        UserError: the cluster is unknown, or `local.jobs` is no number of jobs.
    """
    word, why = _cluster(cfg)
    slurm, jobs = Slurm(why=why or "sbatch found"), (cfg.get("local") or {}).get("jobs")
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise UserError(
            f'"{jobs}" is not a number of jobs (local.jobs): give 1 or more, or leave it blank.'
        )
    if word == "slurm" or (word == "auto" and not slurm.missing()):
        return Places(slurm, Local(), slurm)  # both, for jobs that were submitted before
    most = int(cfg.get("threads") or 1)
    local = Local(
        jobs,
        (int(cfg.get("fewest_threads") or most), most),
        why or slurm.missing(),
        preload(cfg),
        (cfg.get("local") or {}).get("per_gpu") or 1,
        named((cfg.get("local") or {}).get("gpus")),
    )
    return Places(slurm, local, local)


def preload(cfg: Mapping[str, Any]) -> list[str] | None:
    """The libraries that the jobs of this machine share. None: each job imports its own."""
    local = cfg.get("local") or {}
    if not forks_survive() or not local.get("warm", True):
        return None
    return [*USUAL, *(local.get("preload") or ())]


def _cluster(cfg: Mapping[str, Any]) -> tuple[str, str]:
    """(auto, slurm or local, the setting that says so). The second is empty for auto."""
    word = environment.cluster()
    source = f"{environment.CLUSTER}={word}"
    if not word:
        word = str(cfg.get("cluster") or "auto")
        source = f"cluster: {word}"
    if word not in WORDS:
        raise UserError(
            f'{source}: unknown cluster "{word}"{did_you_mean(word, WORDS)} There is: {", ".join(WORDS)}.'
        )
    if word == "auto":
        return word, ""
    return word, source
