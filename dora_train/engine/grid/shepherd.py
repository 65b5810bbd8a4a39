"""Dora's Shepherd: what a grid file's launcher makes its sheep with, and what notebooks look,
cancel and submit with.

Like a grid, it submits nothing twice: `commit` goes through the same plan (single.py).
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
from . import submission
from .sheep import Sheep
from .single import Wish, decide, submit


def silent(text: str) -> None:
    """Where nothing is logged."""


class Shepherd(dora.shep.Shepherd):
    """Dora's class of this name, with its methods.

    Args:
        main: what `hydra_main` made of the project's `main`.
        log: called with a line for each job that is submitted or cancelled.
        grid_file: the file whose lines are noted as the place of each sheep.
    """

    main: Experiments

    def __init__(self, main: Experiments, log: Callable[[str], None] = silent, grid_file: str = ""):
        self.main, self.log, self.grid_file = main, log, grid_file
        self._sheep: list[Sheep] = []
        self._met: dict[str, XP] = {}  # by signature
        self._stopped: list[Sheep] = []  # at the next commit
        self._wishes: list[list[Wish]] = []  # of one array each
        self._in_array = False

    @cached_property
    def executor(self) -> Executor:
        """Where jobs go, as the configuration says."""
        return chosen(self.main.composer.compose([]).values)

    # --- sheep ---

    def get_sheep_from_argv(self, argv: Sequence[str]) -> Sheep:
        """The sheep of an experiment, by its overrides.

        Raises:
            UserError: they do not fit the configuration.
        """
        xp = self.main.get_xp(argv)
        xp.refuse_collision(self._met.setdefault(xp.sig, xp).delta or [])
        return self._made(xp, self._place())

    def get_sheep_from_sig(self, sig: str) -> Sheep | None:
        """The sheep of a stored experiment; None: there is none."""
        try:
            return self._made(self.main.get_xp_from_sig(sig))
        except UserError:
            return None

    def get_sheep_from_job_id(self, job_id: str) -> Sheep | None:
        """The sheep whose job has, or had, this id; None: there is none."""
        try:
            return self.get_sheep_from_sig(find_job(self.main.dora.dir, job_id).sig)
        except UserError:
            return None

    def _made(self, xp: XP, place: str = "") -> Sheep:
        self._sheep.append(Sheep(xp, self.main.experiment(xp), place))
        return self._sheep[-1]

    def _place(self) -> str:
        """The line of the grid file that is being run, for a mistake that is found later on."""
        for frame, line in traceback.walk_stack(None):
            if frame.f_code.co_filename == self.grid_file:
                return f"{os.path.relpath(self.grid_file)}:{line}"
        return ""

    def update(self) -> None:
        """Ask the scheduler now about all sheep that were made here."""
        statuses = look([sheep.experiment for sheep in self._sheep], self.executor, force=True)
        for sheep in self._sheep:
            sheep.status = statuses[sheep.experiment.sig]

    # --- what is done at `commit` ---

    @contextmanager
    def job_array(self, slurm_config: SlurmConfig) -> Iterator[None]:
        """What is submitted in this context goes in as one array."""
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
            UserError: there are no such resources.
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
            UserError: the job is of no sheep that was made here.
        """
        found = sheep or next(
            (one for one in self._sheep if job is not None and one.job == job), None
        )
        if found is None:
            raise UserError("Shepherd.cancel_lazy: name the sheep: cancel_lazy(sheep=sheep).")
        self._stopped.append(found)

    def commit(self) -> None:
        """Cancel and submit what was asked for since the last time.

        Raises:
            UserError: a job is another user's, an experiment cannot be made, or nothing can be
                submitted from here.
        """
        cancels, self._stopped = self._stopped, []
        wishes, self._wishes = self._wishes, []
        self._stop(cancels)
        batches = [[decide(self.main, wish, self.executor) for wish in batch] for batch in wishes]
        for outcome in submit(self.main, batches, self.executor):
            sig = outcome.experiment.sig
            self.log(
                f"{sig}: job {outcome.job_id}" if outcome.submitted else f"{sig}: {outcome.trouble}"
            )

    def _stop(self, sheep: Sequence[Sheep]) -> None:
        found = look([one.experiment for one in sheep], self.executor, force=True)
        for one in sheep:
            status = found[one.experiment.sig]
            if status.user not in ("", claims.user_name()) and status.live:
                raise UserError(
                    f"XP {one.xp.sig} is {status.state}, of {status.user}: only they can stop it."
                )
        for job_id in submission.cancel([one.experiment for one in sheep], self.executor):
            self.log(f"cancelled job {job_id}")
