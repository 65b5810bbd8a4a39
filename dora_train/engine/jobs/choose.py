"""Where jobs go, and who is asked about those that went elsewhere before:

SLURM, or the queue of this machine.

`cluster: auto | slurm | local` of the configuration, with DORA_CLUSTER above it, chooses for new
jobs. A job that is known is asked about where it went, whatever is chosen today; a local one is
told from one of SLURM's by its id.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean
from ..experiment.records import Job
from .executor import Executor, JobInfo, Order, Receipt, tokens
from .queue.executor import Local, is_local
from .slurm import Slurm

WORDS = ("auto", "slurm", "local")
CHOICE = "DORA_CLUSTER"


class Places:
    """SLURM and this machine as one executor: new jobs go to the chosen one."""

    def __init__(self, slurm: Slurm, local: Local, chosen: Executor):
        self._slurm, self._local, self._chosen = slurm, local, chosen

    @property
    def name(self) -> str:
        return self._chosen.name

    @property
    def queue(self) -> str:
        return self._chosen.queue

    def where(self) -> str:
        return self._chosen.where()

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
        wanted = tokens(job_ids)
        local, slurm = _split(wanted)
        if local:
            self._local.cancel({job_id: wanted[job_id] for job_id in local})
        if slurm and not self._slurm.missing():
            self._slurm.cancel({job_id: wanted[job_id] for job_id in slurm})

    def move(self) -> None:
        self._local.move()

    def jobs(self, job_ids: Iterable[str], force: bool = False) -> dict[str, JobInfo]:
        local, slurm = _split(job_ids)
        return self._local.jobs(local) | (self._slurm.jobs(slurm, force) if slurm else {})

    def find(self, names: Iterable[str]) -> dict[str, str] | None:
        wanted = list(names)
        found = self._local.find(wanted) or {}
        rest = [name for name in wanted if name not in found]
        if not rest or self._slurm.missing():
            return found
        queued = self._slurm.find(rest)
        return None if queued is None else found | queued

    def is_running(self, job_id: str, token: str = "") -> bool | None:
        """Whether a job runs now, and its name holds the token; None: nobody here can tell."""
        return (self._local if is_local(job_id) else self._slurm).is_running(job_id, token)


def _split(job_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    known = list(job_ids)
    return [one for one in known if is_local(one)], [one for one in known if not is_local(one)]


def asked() -> Places:
    """For questions alone."""
    local = Local()
    return Places(Slurm(), local, local)


def chosen(cfg: Any) -> Places:
    """Where a configuration, and the environment above it, send new jobs.

    Raises:
        UserError: an unknown word.
    """
    word, why = _word(cfg)
    slurm, jobs = Slurm(why=why or "sbatch found"), (cfg.get("local") or {}).get("jobs")
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise UserError(
            f'"{jobs}" is no number of jobs at a time (local.jobs): give 1 or more, or leave it blank.'
        )
    if word == "slurm" or (word == "auto" and not slurm.missing()):
        return Places(slurm, Local(), slurm)
    local = Local(jobs, int(cfg.get("threads") or 1), why or slurm.missing())
    return Places(slurm, local, local)


def _word(cfg: Any) -> tuple[str, str]:
    """(the word, who said so; empty for auto)."""
    given = os.environ.get(CHOICE)
    word, source = (
        (given, f"{CHOICE}={given}") if given else (str(cfg.get("cluster") or "auto"), "")
    )
    source = source or f"cluster: {word}"
    if word not in WORDS:
        raise UserError(
            f'{source}: unknown cluster "{word}"{did_you_mean(word, WORDS)} There is: {", ".join(WORDS)}.'
        )
    return word, "" if word == "auto" else source
