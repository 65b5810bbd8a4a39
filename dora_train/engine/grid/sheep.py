"""Dora's Sheep, an experiment with its job: `run_grid` returns them, and explorers get them.

Stock Dora keeps its jobs in pickles (`job.pkl`) and asks sacct for each. Here all answers come from
the experiment's folder and from status.py.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import dora.shep

from ..errors import UserError
from ..experiment.folder import Experiment
from ..experiment.records import Job, State
from ..experiment.xp import XP
from ..jobs.choose import asked
from ..jobs.executor import Executor
from ..watch.logs import log_of
from ..watch.status import Status, look

# Dora's words, because explorers that were written for Dora compare with them. None: never started.
DORA_WORDS = {
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
FRESH = 1.0  # seconds for which the answer of a look is used again


class Sheep(dora.shep.Sheep):
    """An experiment and its job.

    It has the attributes that Dora documents: xp, job, state(), is_done(), log.

    Args:
        place: the line of the grid file that named it, e.g. "grids/mysweep.py:14".
        executor: it is asked about the job. None: SLURM and the queue of this machine are asked.

    Attributes:
        other_code: it is finished, and ran other code than today's. `dora grid` finds out.
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
        self.other_code = False
        self._status, self._looked = Status(State.NEW), float("-inf")

    @property
    def status(self) -> Status:
        """The status that the last look found."""
        return self._status

    @status.setter
    def status(self, status: Status) -> None:
        self._status, self._looked = status, time.monotonic()

    @property
    def job(self) -> Job | None:  # type: ignore[override]
        """Its last submission, with its `job_id`. None: it was never submitted."""
        return self.experiment.job()

    def state(self, mode: str = "standard") -> str | None:
        """Its state now, in Dora's words, e.g. "RUNNING". None: it was never started.

        Args:
            mode: "force" asks the scheduler now, "cache" returns the state of the last look, and
                "standard" looks again after a second.
        """
        self._look(mode)
        return DORA_WORDS[self.status.state]

    def is_done(self, mode: str = "standard") -> bool:
        """Whether it neither waits nor runs now. `mode` is the same as in `state`."""
        self._look(mode)
        return not self.status.live

    def _look(self, mode: str) -> None:
        is_old = time.monotonic() - self._looked > FRESH
        if mode == "force" or (mode != "cache" and is_old):
            executor = self.executor or _default_executor()
            found = look([self.experiment], executor, force=mode == "force")
            self.status = found[self.experiment.sig]

    @property
    def job_id(self) -> str | None:
        """The id of its job. In a chain of dependent jobs, the one that the status is about.

        None: it was never submitted.
        """
        job = self.job
        if job is None:
            return None
        return self.status.job_id or job.job_id or None

    current_job_id = job_id  # type: ignore[assignment]  # Dora's name

    @property
    def log(self) -> Path | None:
        """The file of its output. None: there is none yet."""
        return log_of(self.experiment, self.job)

    def __repr__(self) -> str:
        return f"Sheep({self.xp.sig}, state={self.status.state}, argv={self.xp.argv})"


@contextmanager
def located(sheep: Sheep) -> Iterator[None]:
    """Put the line of the grid file that named the sheep before the message of a user's mistake."""
    try:
        yield
    except UserError as error:
        place = f"{sheep.place}: " if sheep.place else ""
        raise UserError(f"{place}{error}") from error


@cache
def _default_executor() -> Executor:
    """One executor for the whole process: it remembers what schedulers said, and asks them seldom."""
    return asked()
