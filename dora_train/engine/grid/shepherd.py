"""Dora's Shepherd: it makes the sheep of a grid file's launcher, and works for notebooks.

Like a grid it submits nothing twice, because `commit` makes the same plan (single.py).
"""

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import dora.shep
from dora.conf import SlurmConfig, SubmitRules

from ..errors import UserError
from ..experiment import claims
from ..experiment.records import Job
from ..experiment.xp import XP
from ..experiments import Experiments
from ..jobs.choose import chosen
from ..jobs.executor import Executor
from ..watch.info import find_job
from ..watch.status import look
from . import cancellation
from .sheep import Sheep
from .single import Wish, decide, submit


def silent(text: str) -> None:
    """Log nothing."""


class Shepherd(dora.shep.Shepherd):
    """Dora's class of this name, with its methods.

    Args:
        main: the project's `main`, decorated with `hydra_main`.
        log: called with a line for each job that is submitted or cancelled.
        grid_file: each sheep notes the line of this file that named it.
    """

    main: Experiments

    def __init__(self, main: Experiments, log: Callable[[str], None] = silent, grid_file: str = ""):
        self.main, self.log, self.grid_file = main, log, grid_file
        self._sheep: list[Sheep] = []
        self._first_xps: dict[str, XP] = {}  # by signature
        # What the next commit does: the jobs that it cancels, and the experiments that it submits,
        # a list for each array.
        self._cancels: list[Sheep] = []
        self._wishes: list[list[Wish]] = []
        self._in_array = False

    @cached_property
    def executor(self) -> Executor:
        """Where jobs go. The configuration says it."""
        return chosen(self.main.composer.compose([]).values)

    @cached_property
    def _shown_file(self) -> str:
        return os.path.relpath(self.grid_file)

    # --- sheep ---

    def get_sheep_from_argv(self, argv: Sequence[str]) -> Sheep:
        """The sheep of the experiment with these overrides.

        Raises:
            UserError: they do not fit the configuration, or by chance another experiment has the
                same signature.
        """
        xp = self.main.get_xp(argv)
        xp.refuse_collision(self._first_xps.setdefault(xp.sig, xp).delta or [])
        return self._make(xp, self._place())

    def get_sheep_from_sig(self, sig: str) -> Sheep | None:
        """The sheep of a stored experiment. None: there is none."""
        try:
            return self._make(self.main.get_xp_from_sig(sig))
        except UserError:
            return None

    def get_sheep_from_job_id(self, job_id: str) -> Sheep | None:
        """The sheep whose job has, or had, this id. None: there is none."""
        try:
            return self.get_sheep_from_sig(find_job(self.main.dora.dir, job_id).sig)
        except UserError:
            return None

    def _make(self, xp: XP, place: str = "") -> Sheep:
        sheep = Sheep(xp, self.main.experiment(xp), place)
        self._sheep.append(sheep)
        return sheep

    def _place(self) -> str:
        """The line of the grid file that runs now. A mistake that is found later names it."""
        for frame, line in traceback.walk_stack(None):
            if frame.f_code.co_filename == self.grid_file:
                return f"{self._shown_file}:{line}"
        return ""

    def update(self) -> None:
        """Look at all sheep that were made here, and ask the scheduler now."""
        statuses = look([sheep.experiment for sheep in self._sheep], self.executor, force=True)
        for sheep in self._sheep:
            sheep.status = statuses[sheep.experiment.sig]

    # --- what is done at `commit` ---

    @contextmanager
    def job_array(self, slurm_config: SlurmConfig) -> Iterator[None]:
        """Submit the experiments of this context as one array."""
        self._wishes.append([])
        self._in_array = True
        try:
            yield
        finally:
            self._in_array = False

    def maybe_submit_lazy(
        self,
        sheep: Sheep,  # type: ignore[override]
        slurm_config: SlurmConfig,
        rules: SubmitRules,
    ) -> None:
        """Submit this experiment at `commit()`, if the rules say so.

        Raises:
            UserError: the resources are not valid.
        """
        wish = Wish(sheep.xp, self.main.resources(sheep.xp, slurm_config), rules)
        if not self._in_array:
            self._wishes.append([])
        self._wishes[-1].append(wish)

    def cancel_lazy(
        self,
        job: Job | None = None,  # type: ignore[override]
        dependent_jobs: Sequence[Any] = (),
        sheep: Sheep | None = None,  # type: ignore[override]
    ) -> None:
        """Cancel a sheep's job, and those that depend on it, at `commit()`.

        Raises:
            UserError: no sheep that was made here has this job.
        """
        if sheep is None and job is not None:
            sheep = next((one for one in self._sheep if one.job == job), None)
        if sheep is None:
            raise UserError("Shepherd.cancel_lazy: name the sheep: cancel_lazy(sheep=sheep).")
        self._cancels.append(sheep)

    def commit(self) -> None:
        """Cancel and submit what was asked for since the last commit.

        Raises:
            UserError: another user runs a job, an experiment cannot be created, or nothing can be
                submitted from here.
        """
        cancels, self._cancels = self._cancels, []
        wishes, self._wishes = self._wishes, []
        self._cancel_jobs(cancels)
        batches = []
        for batch in wishes:
            batches.append([decide(self.main, wish, self.executor) for wish in batch])
        for outcome in submit(self.main, batches, self.executor):
            news = f"job {outcome.job_id}" if outcome.submitted else outcome.trouble
            self.log(f"{outcome.experiment.sig}: {news}")

    def _cancel_jobs(self, sheep: Sequence[Sheep]) -> None:
        experiments = [one.experiment for one in sheep]
        statuses = look(experiments, self.executor, force=True)
        for one in sheep:
            status = statuses[one.experiment.sig]
            if status.user not in ("", claims.user_name()) and status.live:
                raise UserError(
                    f"XP {one.xp.sig} is {status.state}, of {status.user}: only that user can stop it."
                )
        for job_id in cancellation.cancel(experiments, self.executor):
            self.log(f"cancelled job {job_id}")
