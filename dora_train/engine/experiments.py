"""The registry: finds, makes and checks the experiments of a folder of results, for runs and for
grids.

`Experiments` is also what Dora's command and its launchers ask: an experiment from overrides or
from a signature, its name, the resources of its jobs. `dora/main.py` adds what a process needs.
"""

import contextlib
import inspect
import json
import os
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dora.conf import DoraConfig, SlurmConfig

from .access import refuse_unwritable
from .config import limits
from .config.compose import RULE, Composed, Composer
from .config.direction import refuse_guess
from .config.quoting import quoted
from .config.refused import refuse_trainer_key
from .config.values import Delta, flatten, is_excluded, merged, split, unflatten
from .errors import UserError, writable
from .experiment import claims, clearing
from .experiment.code import Code, read_project
from .experiment.contents import Contents
from .experiment.find import ROOT, find
from .experiment.folder import XPS, Experiment
from .experiment.frozen import Drift, drift, frozen_values, todays_values
from .experiment.origin import locate, sha256
from .experiment.records import Birth
from .experiment.share import Imported
from .experiment.xp import XP
from .jobs import resources
from .jobs.choose import asked
from .shell import typed
from .upstream.dora import HydraMain, config_folder
from .watch.status import look

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "dora-search", "submitit")
Check = Callable[..., None]
Stored = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class FrozenArgv(list):
    """The argv of a stored experiment, knowing whose it is:

    Dora adds the overrides of the command line to it.
    """

    def __init__(self, experiment: Experiment, extra: Sequence[str] = ()):
        super().__init__([*(experiment.argv() or []), *extra])
        self.experiment, self.extra = experiment, list(extra)

    def __add__(self, other: list) -> "FrozenArgv":  # type: ignore[override]
        return FrozenArgv(self.experiment, [*self.extra, *other])


class Experiments(HydraMain):
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
        super().__init__(main, config_name, config_path, version_base, dora)
        self.composer = Composer(config_folder(main, config_path), config_name, version_base)
        self.as_stored, self.files_of_data = as_stored, files_of_data
        self._checks = checks
        self._checked_before: set[str] = set()

    def get_xp(self, argv: Sequence[str]) -> XP:
        """The experiment that `argv` names: composed today, or frozen where it came in by its
        signature.

        Raises:
            UserError: the overrides do not fit the configuration.
        """
        if isinstance(argv, Imported):
            return self._taken_in(argv)
        if isinstance(argv, FrozenArgv) and not self._counting(argv.extra):
            return self._frozen(argv.experiment.sig, argv.extra)
        composed = self._composed(argv)
        xp = self._named(composed, composed.delta, RULE)
        if composed.former is not None:
            former = self._named(composed, composed.former, 1)
            if self.experiment(former).exists():
                return former
        return xp

    def _named(self, composed: Composed, delta: Delta, rule: int) -> XP:
        xp = XP(self.dora, composed.values, composed.argv, delta)
        xp.groups, xp.rule = composed.choices, rule
        return xp

    def get_argv_from_sig(self, sig: str) -> FrozenArgv:
        """The stored argv of an experiment, by any unambiguous beginning of its signature.

        Raises:
            UserError: there is no such experiment, or several.
        """
        return FrozenArgv(self.find(sig))

    def get_xp_from_sig(self, sig: str) -> XP:
        """The experiment as it is stored: nothing is composed, so this works when the configuration
        does not.

        Raises:
            UserError: there is no such experiment, or several.
        """
        experiment = self.find(sig)
        birth = experiment.birth()
        argv = FrozenArgv(experiment)
        if birth is None:  # made by stock Dora
            return self._of_overrides(argv, experiment.sig)
        delta = [(key, value) for key, value in birth.delta]
        xp = XP(self.dora, dict(self.as_stored(birth.config)), argv, delta, experiment.sig)
        xp.groups, xp.rule = birth.groups, birth.rule
        return xp

    def get_xp_from_argv(self, argv: Sequence[str]) -> XP:
        """As `get_xp`: the name in Dora's README."""
        return self.get_xp(argv)

    def _of_overrides(self, argv: FrozenArgv, sig: str) -> XP:
        """An experiment of which its overrides alone are known; without values if they do not fit
        any more."""
        try:
            composed = self.composer.compose(list(argv))
        except UserError:
            return XP(self.dora, {}, argv, None, sig)
        return XP(self.dora, composed.values, argv, composed.delta, sig)

    def find(self, sig: str) -> Experiment:
        """The stored experiment whose signature begins with `sig`.

        Raises:
            UserError: none does, or several.
        """
        return find(self.dora.dir, sig)

    def experiment(self, xp: XP | str) -> Experiment:
        return Experiment(self.dora.dir / XPS / (xp if isinstance(xp, str) else xp.sig))

    def _composed(self, argv: Sequence[str]) -> Composed:
        """What `argv` gives today.

        Raises:
            UserError: an override that is not the user's, or that no run could work with.
        """
        self._refuse_reserved(argv)
        composed = self.composer.compose(argv)
        limits.check_changes(composed.delta, self.composer.defaults)
        return composed

    def _refuse_reserved(self, argv: Sequence[str]) -> None:
        """Raises: UserError if an override is not the user's."""
        for arg in argv:
            if arg.lstrip("+~").startswith("dora."):
                raise UserError(
                    f'"{arg}": dora.* is read before any override.',
                    "where things land: DORA_DIR=folder; the rest: conf/config.yaml",
                )
            refuse_trainer_key(arg.partition("=")[0].lstrip("+").strip())

    def _counting(self, overrides: Sequence[str]) -> bool:
        """Whether any of these overrides counts in the signature; `slurm={gpus: 1}` is all of
        `slurm.*`."""
        keys = [arg.partition("=")[0].lstrip("+~").strip() for arg in overrides]
        return any(
            not is_excluded(key, self.dora.exclude)
            and not is_excluded(f"{key}.*", self.dora.exclude)
            for key in keys
        )

    def _frozen(self, sig: str, excluded: Sequence[str]) -> XP:
        """An experiment with the values it was made with; only what does not count comes from
        today."""
        experiment = self.find(sig)
        birth = experiment.birth()
        if birth is None:  # made by stock Dora: all there is are its overrides
            return self.get_xp(list(experiment.argv() or []) + list(excluded))
        xp = self.get_xp_from_sig(experiment.sig)
        xp.argv = FrozenArgv(experiment, excluded)
        self._refuse_reserved(excluded)
        xp.values, notes = todays_values(self.composer, birth, self.dora.exclude, excluded)
        for note in notes:
            print(f"XP {experiment.sig}: {note}", file=sys.stderr)
        self.use_frozen(xp, birth)
        return xp

    def _taken_in(self, argv: Imported) -> XP:
        """An experiment that another clone has finished.

        Raises:
            UserError: its signature is not that of its values.
        """
        birth = argv.birth
        if (
            XP(
                self.dora, birth.config, birth.argv, [(key, value) for key, value in birth.delta]
            ).sig
            != birth.sig
        ):
            raise UserError(
                f"what came in as {birth.sig} has other values than that signature: it is not imported."
            )
        argv.put_down(self.dora.dir)
        return self.get_xp_from_sig(birth.sig)

    def create(self, xp: XP, anew: bool = False) -> Experiment:
        """Make the experiment's folder, unless it is there; leaves `xp` with the values that it
        runs.

        Args:
            anew: what is there is put aside, and comes back if the new folder cannot be made.

        Raises:
            UserError: the signature would mean something else today, the configuration asks for
                what is not there, or nothing can be written.
        """
        experiment = self.experiment(xp)
        if anew or not experiment.exists():
            self.check(xp)
            birth = self._birth(xp)
            aside = clearing.put_aside(experiment) if anew else contextlib.nullcontext()
            with writable(experiment.folder), aside:
                experiment.write_birth(birth)
        else:
            self.refuse_drift(xp)
            refuse_unwritable(experiment.folder)
        stored = experiment.birth()
        assert stored is not None
        self.use_frozen(xp, stored)
        return experiment

    def init_xp(self, xp: XP) -> XP:  # type: ignore[override]  # all of ours
        """Make the experiment's folder, as Dora's method of this name (`dora import`).

        Raises:
            UserError: as `create`.
        """
        self.create(xp)
        return xp

    def use_frozen(self, xp: XP, birth: Birth) -> None:
        """Leave `xp` with the values that the experiment was made with."""
        xp.values = merged(xp.values, self._frozen_values(xp, birth)) | {"threads": birth.threads}

    def code_for_jobs(self, xp: XP) -> tuple[Path, dict[str, Any]]:
        """The folder of the code that a job submitted now runs, and what is known of it.

        Raises:
            UserError: the configuration asks for neither a snapshot nor the live files.
        """
        kind = str(xp.values.get("code", "snapshot"))
        if kind not in ("snapshot", "live"):
            raise UserError(
                f"code={kind}: a job runs a snapshot, or the live files: code=snapshot or code=live."
            )
        if not self.dora.git_save or kind == "live":
            return ROOT, self.code.stored() | {"hash": ""}
        self.code = read_project(self.dora.dir)
        if self.code.note:
            print(self.code.note, file=sys.stderr)
        with writable(self.dora.dir):
            return self.code.snapshot(self.dora.dir), self.code.stored()

    @cached_property
    def code(self) -> Code:
        """The project's code as this command found it."""
        return read_project(self.dora.dir)

    def todays_snapshot(self) -> str:
        """The name of the snapshot that `code_for_jobs` would make; nothing is written."""
        return read_project(self.dora.dir).hash

    def check(self, xp: XP) -> None:
        """Raises: UserError where the configuration asks for what is not there, before anything is
        on disk."""
        refuse_guess(xp.values, list(xp.argv), self.composer)
        missing = [key for key, value in flatten(xp.values) if value == "???"]
        if missing:
            raise UserError(f"{missing[0]} has no value yet (???): write {missing[0]}=VALUE.")
        for name in xp.values.get("trainer") or {}:
            refuse_trainer_key(f"trainer.{name}")
        limits.check_values(xp.values)
        locate(xp.values.get("continue_from") or "", self.find)
        for check in self._checks:
            asked = {name: xp.values.get(name) for name in inspect.signature(check).parameters}
            question = f"{check.__name__} {json.dumps(asked, default=str)}"
            if question in self._checked_before:  # a grid asks a thousand times, mostly the same
                continue
            try:
                check(**asked)
            except ValueError as error:
                raise UserError(str(error)) from error
            self._checked_before.add(question)

    def marks(self, watched: Iterable[Any]) -> Mapping[str, str]:
        """A word by signature for a live table: whether its setting is the best, or worse.

        Here none.
        """
        return {}

    def check_anew(self, xp: XP) -> None:
        """As `check`, before results are put aside for a job: also what its run would refuse on any
        machine.

        Raises:
            UserError: the job would fail.
        """
        self.check(xp)

    def drift(self, xp: XP) -> list[Drift]:
        """The keys that were frozen with another value than `xp` has now; empty for an experiment
        yet to be made.

        Raises:
            UserError: by chance, another experiment has the same signature.
        """
        birth = self.experiment(xp).birth()
        if birth is not None and birth.rule <= RULE:
            xp.refuse_collision(birth.delta)
        # old: take the frozen values, and go on
        if birth is None or os.environ.get("DORA_DRIFT") == "old":
            return []
        known = {key for key, _ in flatten(birth.config)}
        younger = {key for key, _ in flatten(self.as_stored(birth.config))} - known
        frozen = self._frozen_values(xp, birth)
        return drift(frozen, self._counted(xp.values), self.dora.exclude, younger)

    def added(self, xp: XP) -> dict[str, Any]:
        """The keys that the configuration did not have yet when the experiment last ran, and their
        values."""
        birth = self.experiment(xp).birth()
        if birth is None:
            return {}
        frozen = dict(flatten(self._frozen_values(xp, birth)))
        return {key: value for key, value in flatten(self._counted(xp.values)) if key not in frozen}

    def _frozen_values(self, xp: XP, birth: Birth) -> Mapping[str, Any]:
        config, counted = self.as_stored(birth.config), self._counted(xp.values)
        return frozen_values(self.experiment(xp), config, counted)

    def refuse_drift(self, xp: XP) -> None:
        """Raises: UserError where the same signature would now mean another experiment."""
        drift = self.drift(xp)
        if drift:
            more = f" (and {len(drift) - 2} more)" if len(drift) > 2 else ""
            raise UserError(
                f"XP {xp.sig} was made when {'; '.join(map(str, drift[:2]))}{more}: not the same experiment.",
                f"keep its meaning: {typed()} run -f {xp.sig}     anew: --clear     both: tag=WORD",
            )

    def _counted(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return split(config, self.dora.exclude)[0]

    def excluded(self, xp: XP, slurm: SlurmConfig) -> dict[str, Any]:
        """The values that a job takes from its submission: those that do not count, as they are
        now.

        And those of keys that the configuration did not have yet when the experiment was made:
            their defaults.

        Args:
            slurm: the resources that the job gets.
        """
        birth = self.experiment(xp).birth()
        frozen = dict(flatten(birth.config)) if birth else {}
        values = dict(xp.values) | {"slurm": asdict(slurm)}
        return unflatten([(key, value) for key, value in flatten(values) if key not in frozen])

    def _birth(self, xp: XP) -> Birth:
        return Birth(
            sig=xp.sig,
            argv=list(xp.argv),
            delta=[list(pair) for pair in xp.delta or []],
            config=self._counted(xp.values),
            rule=xp.rule,
            threads=xp.values.get("threads") or 1,
            code=self.code.stored(),
            versions=versions(),
            born=time.time(),
            host=socket.gethostname(),
            user=claims.user_name(),
            origin=self._origin(xp.values),
            groups=dict(xp.groups),
        )

    def _origin(self, config: Mapping[str, Any]) -> dict[str, str]:
        given = config.get("continue_from") or ""
        path = locate(given, self.find)
        return {"given": given, "file": path.name, "sha256": sha256(path)} if path else {}

    @cached_property
    def _slurm_block(self) -> dict[str, Any]:
        """`slurm:` of the configuration alone."""
        return self.composer.compose([]).values.get("slurm") or {}

    def get_slurm_config(self) -> SlurmConfig:
        """The resources of a job:

        `slurm:` of the configuration, over defaults that fit any cluster.
        """
        return resources.configured(self._slurm_block)

    def resources(self, xp: XP, slurm: SlurmConfig) -> SlurmConfig:
        """The resources that this experiment asks for.

        Args:
            slurm: what `get_slurm_config` gave, with what flags and launchers have set since.

        Raises:
            UserError: it asks for what there is not.
        """
        block = xp.values.get("slurm")
        own = self._slurm_block
        return resources.resolved(slurm, own if block is None else block, own, xp.argv)

    def get_name_parts(self, xp: XP) -> OrderedDict:  # type: ignore[override]  # all of ours
        """What makes up its name: what differs from the defaults, or its overrides if nothing else
        is known."""
        pairs = xp.delta if xp.delta is not None else [arg.partition("=")[::2] for arg in xp.argv]
        return OrderedDict((key, value) for key, value in pairs)

    def get_xp_history(self, xp: XP) -> list[dict]:  # type: ignore[override]  # all of ours
        return self.experiment(xp).history()

    def value_to_argv(self, arg: Any) -> list[str]:
        """Overrides from what a grid file gives its launcher: text, dicts, or lists of them."""
        if isinstance(arg, str):
            return [arg]
        if isinstance(arg, Mapping):
            return [
                f"{key}={value if key in self.composer.groups and isinstance(value, str) else quoted(value)}"
                for key, value in arg.items()
            ]
        if isinstance(arg, (list, tuple)):
            return [text for part in arg for text in self.value_to_argv(part)]
        raise UserError(f"a launcher takes text, a dict or a list of them, not {arg!r}.")


# --- who else is at it ---


def refuse_if_waiting(experiment: Experiment) -> None:
    """Raises: UserError where the experiment waits or runs as a job; the job will do what is asked
    for."""
    job = experiment.job()
    if job is None or job.token == os.environ.get("DORA_TRAIN_JOB"):
        return
    status = look([experiment], asked())[experiment.sig]
    if status.live and status.by_job and status.certain:
        info = f"{typed()} info -f {experiment.sig}"
        raise UserError(
            f"XP {experiment.sig} is {status.state} as {status.where or 'a job'}.",
            f"watch it: {info} -t     stop it: {info} -C",
        )


def refuse_clear(experiment: Experiment) -> None:
    """Raises: UserError if the experiment must not be begun anew: it is another user's, runs, or
    waits as a job."""
    if experiment.folder.exists():
        clearing.refuse_others(experiment)
        claims.refuse_if_held(experiment, ask)
        refuse_if_waiting(experiment)


def ask(holder: claims.Holder) -> bool | None:
    """Whether the scheduler still runs a holder's job; None where it cannot say."""
    if (holder.job_id, holder.token) == (
        os.environ.get("DORA_TRAIN_JOB_ID"),
        os.environ.get("DORA_TRAIN_JOB"),
    ):
        return False  # an earlier start of this very job: SLURM runs it once at a time
    return asked().is_running(holder.job_id, holder.token)


def versions() -> dict[str, str]:
    """Versions of Python and the main packages, without importing them."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
