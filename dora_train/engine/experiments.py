"""The registry: finds, makes and checks the experiments of a folder of results, for runs and for
grids.

`experiment/lookup.py` finds them, by overrides or by a signature. `Experiments` makes and checks
them, and knows the code and the resources of their jobs. `dora/main.py` adds what a process needs.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dora.conf import DoraConfig, SlurmConfig

from . import environment
from .access import refuse_unwritable
from .errors import UserError, writable
from .experiment import claims, clearing
from .experiment.birth import birth_of
from .experiment.code import Code
from .experiment.contents import Contents
from .experiment.drift import Drift, Stored, values_of_a_job
from .experiment.early_checks import Check, EarlyChecks
from .experiment.folder import Experiment
from .experiment.lookup import Lookup
from .experiment.records import Birth
from .experiment.xp import XP
from .jobs import resources
from .jobs.choose import asked
from .shell import typed
from .watch.status import look

__all__ = ["Check", "Experiments", "Stored", "ask", "refuse_clear", "refuse_if_waiting"]


class Experiments(Lookup):
    """The experiments of one `main`.

    Args:
        main: the function that trains.
        config_name, config_path, version_base: as Hydra's.
        dora: Dora's own settings.
        checks, as_stored, files_of_data: see `hydra_main`.
    """

    def __init__(
        self,
        main: Callable,
        config_name: str,
        config_path: str,
        version_base: str | None,
        dora: DoraConfig,
        checks: Sequence[Check] = (),
        as_stored: Stored = dict,
        files_of_data: Callable[[Any], Contents] | None = None,
    ):
        super().__init__(main, config_name, config_path, version_base, dora, as_stored)
        self.files_of_data = files_of_data
        self._early_checks = EarlyChecks(self.composer, self.find, checks)

    # --- made ---

    def create(self, xp: XP, anew: bool = False) -> Experiment:
        """Make the experiment's folder, unless it is there. `xp` then has the values that it runs.

        Args:
            anew: put the old results aside first. They come back if the new folder cannot be made.

        Raises:
            UserError: the signature would mean something else today, the configuration asks for
                something that is not there, or nothing can be written.
        """
        experiment = self.experiment(xp)
        if anew or not experiment.exists():
            stored = self._make(experiment, xp, anew)
        else:
            stored = experiment.birth()
            self._refuse_drift(xp, stored)
            refuse_unwritable(experiment.folder)
        assert stored is not None
        self.use_frozen(xp, stored)
        return experiment

    def _make(self, experiment: Experiment, xp: XP, anew: bool) -> Birth | None:
        """Make the folder.

        Returns:
            The birth that is stored. It is another process's if that was first.
        """
        self.check(xp)
        birth = self._birth(xp)
        aside = clearing.put_aside(experiment) if anew else contextlib.nullcontext()
        with writable(experiment.folder), aside:
            experiment.write_birth(birth)
        return experiment.birth()

    def _birth(self, xp: XP) -> Birth:
        return birth_of(xp, self.frozen.counted(xp.values), self.code, self.find)

    def init_xp(self, xp: XP) -> XP:  # type: ignore[override]  # all of ours
        """Make the experiment's folder, as Dora's method of this name (`dora import`).

        Raises:
            UserError: as `create`.
        """
        self.create(xp)
        return xp

    # --- checked ---

    def check(self, xp: XP) -> None:
        """Check the values of an experiment, before anything is on disk.

        Raises:
            UserError: the configuration asks for something that is not there.
        """
        self._early_checks.check(xp)
        self.todays_code.refuse_other(xp.values)

    def check_anew(self, xp: XP) -> None:
        """As `check`, before results are put aside for a job.

        `dora/main.py` adds the checks that a run makes on any machine.

        Raises:
            UserError: the job would fail.
        """
        self.check(xp)

    def marks(self, watched: Iterable[Any]) -> Mapping[str, tuple[str, str]]:
        """By signature, for a live table: the group that it is compared with, and `best` or `worse`.

        Here there is none. `dora/main.py` asks the report.
        """
        return {}

    # --- compared with the configuration of today ---

    def drift(self, xp: XP, experiment: Experiment | None = None) -> list[Drift]:
        """The keys that were frozen with another value than `xp` has now.

        Empty for an experiment that is yet to be made.

        Args:
            experiment: its folder, if it was looked at already.

        Raises:
            UserError: by chance, another experiment has the same signature.
        """
        return self.frozen.drift(xp, (experiment or self.experiment(xp)).birth())

    def refuse_drift(self, xp: XP) -> None:
        """Refuse an experiment whose signature would mean another experiment now.

        Raises:
            UserError: a value that counts was another one when the experiment was made.
        """
        self._refuse_drift(xp, self.experiment(xp).birth())

    def _refuse_drift(self, xp: XP, birth: Birth | None) -> None:
        drift = self.frozen.drift(xp, birth)
        if not drift:
            return
        more = f" (and {len(drift) - 2} more)" if len(drift) > 2 else ""
        raise UserError(
            f"XP {xp.sig} was made when {'; '.join(map(str, drift[:2]))}{more}: not the same experiment.",
            f"keep its meaning: {typed()} run -f {xp.sig}     anew: --clear     both: tag=WORD",
        )

    def use_frozen(self, xp: XP, birth: Birth) -> None:
        """Leave `xp` with the values that the experiment was made with."""
        self.frozen.restore(xp, birth)

    def added(self, xp: XP) -> dict[str, Any]:
        """The keys that the configuration did not have yet when the experiment last ran, and their
        values."""
        return self.frozen.added(xp, self.experiment(xp).birth())

    # --- their jobs ---

    @property
    def code(self) -> Code:
        """The project's code as this command found it."""
        return self.todays_code.now

    def code_for_jobs(self, xp: XP) -> tuple[Path, dict[str, Any]]:
        """The folder of the code that a job submitted now runs, and its record (`Start.code`).

        Raises:
            UserError: the configuration asks for neither a snapshot nor the live files.
        """
        return self.todays_code.for_jobs(xp.values)

    def todays_snapshot(self) -> str:
        """The name of the snapshot that `code_for_jobs` would make. Nothing is written."""
        self.todays_code.read_again()
        return self.code.hash

    def excluded(self, xp: XP, slurm: SlurmConfig) -> dict[str, Any]:
        """The values that a job takes from its submission, see `values_of_a_job`.

        Args:
            slurm: the resources that the job gets.
        """
        return values_of_a_job(xp.values, slurm, self.experiment(xp).birth())

    @cached_property
    def _slurm_block(self) -> dict[str, Any]:
        """`slurm:` of the configuration without overrides."""
        return self.composer.compose([]).values.get("slurm") or {}

    def get_slurm_config(self) -> SlurmConfig:
        """The resources of a job: `slurm:` of the configuration, over defaults that fit any
        cluster."""
        return resources.configured(self._slurm_block)

    def resources(self, xp: XP, slurm: SlurmConfig) -> SlurmConfig:
        """The resources that this experiment asks for.

        Args:
            slurm: what `get_slurm_config` gave, with what flags and launchers have set since.

        Raises:
            UserError: there are no such resources.
        """
        block = xp.values.get("slurm")
        if block is None:
            block = self._slurm_block
        return resources.resolved(slurm, block, self._slurm_block, xp.argv)


# --- other processes ---


def refuse_if_waiting(experiment: Experiment) -> None:
    """Refuse to start an experiment that waits or runs as a job: the job does what is asked for.

    Raises:
        UserError: there is such a job, and it is not this process.
    """
    job = experiment.job()
    own = environment.this_job()
    if job is None or (own.token and job.token == own.token):
        return
    status = look([experiment], asked())[experiment.sig]
    if status.live and status.by_job and status.certain:
        info = f"{typed()} info -f {experiment.sig}"
        raise UserError(
            f"XP {experiment.sig} is {status.state} as {status.where or 'a job'}.",
            f"watch it: {info} -t     stop it: {info} -C",
        )


def refuse_clear(experiment: Experiment) -> None:
    """Refuse to begin an experiment anew that is another user's, runs, or waits as a job.

    Raises:
        UserError: it is one of these.
    """
    if experiment.folder.exists():
        clearing.refuse_others(experiment)
        claims.refuse_if_held(experiment, ask)
        refuse_if_waiting(experiment)


def ask(holder: claims.Holder) -> bool | None:
    """Whether the scheduler still runs a holder's job. None if it cannot say."""
    own = environment.this_job()
    if own.token and (holder.job_id, holder.token) == own:
        return False  # an earlier start of this very job: SLURM runs it once at a time
    return asked().is_running(holder.job_id, holder.token)
