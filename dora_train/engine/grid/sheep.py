"""Dora's Sheep and Shepherd, answered from our files: what a grid file's launcher makes, and explorers are given.

Stock Dora keeps its jobs in pickles (`job.pkl`) and asks sacct for each; here nothing is read but the experiment's
folder and the status that status.py gave it.
"""

import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dora.shep

from ..store import Experiment, Job, State
from ..xp import XP
from .logs import log_of
from .status import Status

DORA_WORDS = {  # the words that explorers written for Dora compare with; None: never started
    State.NEW: None, State.WAITING: "PENDING", State.RUNNING: "RUNNING", State.COMPLETED: "COMPLETED",
    State.FAILED: "FAILED", State.CANCELLED: "CANCELLED", State.TIMED_OUT: "TIMEOUT", State.STOPPED: "STOPPED",
    State.INTERRUPTED: "INTERRUPTED",
}


class Sheep(dora.shep.Sheep):
    """One experiment of a grid, with the attributes that Dora documents: xp, job, state(), is_done(), log."""

    xp: XP

    def __init__(self, xp: XP, experiment: Experiment, place: str = ""):
        self.xp = xp
        self.experiment = experiment
        self.place = place  # "grids/mysweep.py:14", the call that named it
        self.status = Status(State.NEW)  # as of the last look

    @property
    def job(self) -> Job | None:  # type: ignore[override]
        """What it was last submitted as, with its `job_id`; None: it never was a job."""
        return self.experiment.job()

    def state(self, mode: str = "standard") -> str | None:
        """Its state in Dora's words, e.g. "RUNNING"; None: never started. `mode` is Dora's, and means nothing here."""
        return DORA_WORDS[self.status.state]

    def is_done(self, mode: str = "standard") -> bool:
        """Whether it neither waits nor runs."""
        return not self.status.live

    @property
    def current_job_id(self) -> str | None:
        job = self.job
        return (self.status.job_id or job.job_id or None) if job is not None else None

    @property
    def log(self) -> Path | None:
        """Where its output is; None: there is none yet."""
        return log_of(self.experiment, self.job)

    def __repr__(self) -> str:
        return f"Sheep({self.xp.sig}, state={self.status.state}, argv={self.xp.argv})"


@dataclass
class Shepherd:
    """What Dora's Launcher needs of one: `main`, and a sheep from overrides."""

    main: Any
    grid_file: str = ""
    met: dict[str, XP] = field(default_factory=dict)  # by signature

    def get_sheep_from_argv(self, argv: Sequence[str]) -> Sheep:
        xp = self.main.get_xp(argv)
        xp.refuse_collision(self.met.setdefault(xp.sig, xp).delta or [])
        return Sheep(xp, self.main.experiment(xp), self._place())

    def _place(self) -> str:
        """The line of the grid file that is being run, for a mistake that is found later on."""
        for frame, line in traceback.walk_stack(None):
            if frame.f_code.co_filename == self.grid_file:
                return f"{os.path.relpath(self.grid_file)}:{line}"
        return ""
