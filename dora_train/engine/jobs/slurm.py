"""SLURM as an executor: sbatch.py submits, and slurm_commands.py asks what became of a job.

A job is not over because it is missing in an answer, which may have been cut off. Either squeue or
sacct must print a line that says so, or scontrol must say that there is no such job. Without an
answer the phase is `UNKNOWN`, which is never taken for an end. One `Slurm` serves one command.
"""

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path

from ..experiment.records import Job
from . import sbatch, slurm_commands
from .executor import JobInfo, Order, Phase, Receipt, job_log, tokens
from .slurm_commands import Commands, Jobs

PERIOD = 30  # seconds between two questions about the same jobs, however often the table is drawn
LAG = 2  # seconds that accounting may be behind the queue


class Slurm:
    """Submits jobs, cancels them, and asks about them, with the methods of `executor.Executor`.

    Args:
        clock: gives seconds, for the time between two questions.
        why: why jobs go to SLURM, in a few words.
    """

    name = "slurm"

    def __init__(self, clock: Callable[[], float] = time.monotonic, why: str = "sbatch found"):
        self._clock, self._why = clock, why
        self._commands = Commands()
        self._infos: Jobs = {}
        self._asked = float("-inf")

    # --- is there a cluster? ---

    @cached_property
    def _cluster(self) -> tuple[str, str]:
        return slurm_commands.cluster()

    @property
    def queue(self) -> str:
        return self._cluster[0]

    def where(self, gpus: Collection[int]) -> str:
        return f'on SLURM ({self._why}, cluster "{self.queue}")'

    def missing(self) -> str:
        return self._cluster[1]

    def answers_for(self, job: Job) -> bool:
        return job.cluster != "local" and not self.missing() and job.queue in ("", self.queue)

    # --- submit and cancel ---

    def submit(self, order: Order) -> Receipt:
        """Give one order to sbatch.

        Raises:
            NotSubmitted: it was refused.
            Unanswered: it is not known whether there is a job.
        """
        receipt = sbatch.submit(order)
        job_ids = [receipt.job_id]
        if order.tasks is not None:
            job_ids = [f"{receipt.job_id}_{task}" for task in order.tasks]
        for job_id in job_ids:  # known without a question
            self._infos[job_id] = JobInfo(job_id, Phase.PENDING, "PENDING", name=order.name)
        return receipt

    def log_path(self, order: Order, job_id: str, task: int | None) -> Path:
        return job_log(order, job_id, task)

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel jobs. Ids that the scheduler does not know, or knows no more, are ignored."""
        self._commands.cancel(self._still_ours(tokens(job_ids)))
        self._asked = float("-inf")  # answers from before the cancel are out of date

    def _still_ours(self, wanted: Mapping[str, str]) -> set[str]:
        """The ids of jobs whose name holds their token, as an id may be another job's by now."""
        named = {job_id for job_id, token in wanted.items() if token}
        ours = set(wanted) - named
        if not named:
            return ours
        # without an answer, nothing is cancelled that may be another's
        queued = self._commands.queued(named) or {}
        for job_id in named & queued.keys():
            if wanted[job_id] in queued[job_id].name:
                ours.add(job_id)
        return ours

    def lost(self, job: Job) -> bool:
        """False: a cluster that does not answer here may come back."""
        return False

    def move(self) -> None:
        """Does nothing: SLURM starts jobs by itself."""

    def more_to_come(self) -> AbstractContextManager[None]:
        """Does nothing: no process of ours starts jobs of SLURM."""
        return nullcontext()

    # --- ask ---

    def jobs(self, job_ids: Iterable[str], force: bool = False) -> Jobs:
        """The answer on each of these jobs.

        SLURM is asked at most every 30 seconds, and at once about jobs that are new to this object.
        """
        wanted = set(job_ids)
        open_ids = set(filter(self._may_change, wanted))
        is_due = force or self._clock() - self._asked >= PERIOD
        if (is_due and open_ids) or not wanted <= self._infos.keys():
            self._ask(open_ids)
        return {
            job_id: self._infos.get(job_id, JobInfo(job_id, Phase.UNKNOWN)) for job_id in wanted
        }

    def _may_change(self, job_id: str) -> bool:
        """Whether a later answer may say more of a job. One without a word has no known end yet."""
        info = self._infos.get(job_id)
        return info is None or info.phase != Phase.OVER or not info.word

    def _ask(self, job_ids: set[str]) -> None:
        self._asked = self._clock()
        queued = self._commands.queued(job_ids)
        known = dict(queued or {})
        rest = job_ids - (known.keys() - _over(known))
        ended = self._commands.ended(rest) or {}
        if queued is not None and len(_over(ended)) < len(ended):
            time.sleep(LAG)  # it ended a moment ago, and accounting does not know that yet
            ended = self._commands.ended(rest) or {}
        if queued is None:
            known = ended
        else:
            for job_id in job_ids - _over(ended) - known.keys() - self._commands.gone:
                known |= self._commands.shown(job_id)
        for job_id in job_ids:
            self._infos[job_id] = self._judged(job_id, known.get(job_id), ended.get(job_id))

    def _judged(self, job_id: str, now: JobInfo | None, past: JobInfo | None) -> JobInfo:
        """The answer on a job. The controller knows best which jobs are alive, and accounting knows
        best how the others ended."""
        if now is not None and now.phase != Phase.OVER:
            return now
        if past is not None and past.phase == Phase.OVER:
            return past
        if now is not None:  # over, and accounting does not know it, or there is none
            return now
        if job_id in self._commands.gone:
            return JobInfo(job_id, Phase.OVER)
        return JobInfo(job_id, Phase.UNKNOWN)

    def is_running(self, job_id: str, token: str = "") -> bool | None:
        """Whether a job runs now, and its name holds the token. None: SLURM cannot say.

        A job that waits, perhaps after a requeue, has no process.
        """
        if not job_id or shutil.which("squeue") is None:
            return None
        return self.jobs([job_id])[job_id].is_running(token)

    def find(self, names: Iterable[str]) -> dict[str, str] | None:
        return self._commands.find(names)


def _over(jobs: Jobs) -> set[str]:
    return {job_id for job_id, info in jobs.items() if info.phase == Phase.OVER}
