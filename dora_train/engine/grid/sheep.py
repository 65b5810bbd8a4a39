"""Dora's Sheep, answered from our files: what `run_grid` returns, and what explorers are given.

Stock Dora keeps its jobs in pickles (`job.pkl`) and asks sacct for each; here nothing is read but
the experiment's folder and what status.py says of it.
"""

import time
from functools import cache
from pathlib import Path

import dora.shep

from ..experiment.folder import Experiment
from ..experiment.records import Job, State
from ..experiment.xp import XP
from ..jobs.choose import asked
from ..jobs.executor import Executor
from ..watch.logs import log_of
from ..watch.status import Status, look

DORA_WORDS = {  # the words that explorers written for Dora compare with; None: never started
    State.NEW: None,
    State.WAITING: "PENDING",
    State.RUNNING: "RUNNING",
    State.COMPLETED: "COMPLETED",
    State.FAILED: "FAILED",
    State.CANCELLED: "CANCELLED",
    State.TIMED_OUT: "TIMEOUT",
    State.STOPPED: "STOPPED",
    State.INTERRUPTED: "INTERRUPTED",
}
FRESH = 1.0  # seconds for which a look at the experiment is not repeated


class Sheep(dora.shep.Sheep):
    """An experiment and its job, with the attributes that Dora documents: xp, job, state(),
    is_done(), log.

    Args:
        place: "grids/mysweep.py:14", the call that named it.
        executor: who is asked about its job; None: whoever answers here.
    """

    xp: XP

    def __init__(
        self,
        xp: XP,
        experiment: Experiment | None = None,
        place: str = "",
        executor: Executor | None = None,
    ):
        self.xp = xp
        self.experiment = experiment or Experiment(xp.folder)
        self.place = place
        self.executor = executor
        self._status, self._looked = Status(State.NEW), float("-inf")

    @property
    def status(self) -> Status:
        """As of the last look."""
        return self._status

    @status.setter
    def status(self, status: Status) -> None:
        self._status, self._looked = status, time.monotonic()

    @property
    def job(self) -> Job | None:  # type: ignore[override]
        """What it was last submitted as, with its `job_id`; None: it never was a job."""
        return self.experiment.job()

    def state(self, mode: str = "standard") -> str | None:
        """Its state now, in Dora's words, e.g. "RUNNING"; None: it was never started.

        Args:
            mode: "standard"; "force": ask the scheduler now; "cache": ask nobody.
        """
        self._look(mode)
        return DORA_WORDS[self.status.state]

    def is_done(self, mode: str = "standard") -> bool:
        """Whether it neither waits nor runs now; `mode` as in `state`."""
        self._look(mode)
        return not self.status.live

    def _look(self, mode: str) -> None:
        is_old = time.monotonic() - self._looked > FRESH
        if mode == "force" or (mode != "cache" and is_old):
            executor = self.executor or _whoever_answers()
            found = look([self.experiment], executor, force=mode == "force")
            self.status = found[self.experiment.sig]

    @property
    def job_id(self) -> str | None:
        """Of the job that counts, in a chain of dependent ones; None: it never was a job."""
        job = self.job
        return (self.status.job_id or job.job_id or None) if job is not None else None

    current_job_id = job_id  # type: ignore[assignment]  # Dora's name

    @property
    def log(self) -> Path | None:
        """Where its output is; None: there is none yet."""
        return log_of(self.experiment, self.job)

    def __repr__(self) -> str:
        return f"Sheep({self.xp.sig}, state={self.status.state}, argv={self.xp.argv})"


@cache
def _whoever_answers() -> Executor:
    """One for the whole process: it remembers what schedulers said, and asks them seldom."""
    return asked()
