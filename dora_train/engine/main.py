"""The decorator on `main` in train.py: what an experiment is, made from overrides, from a signature or from a job.

Dora's command, a job on a node and a rank of a local run all come in here. Torch and Lightning are imported by
`run/`, once an experiment is entered; reading one costs nothing of that.
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
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from dora.conf import DoraConfig, SlurmConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import claims, clearing, limits, output, verbs
from .access import refuse_unwritable
from .code import Code
from .contents import Contents
from .direction import refuse_guess
from .errors import UserError, refuse_undecoded, report_user_errors, writable
from .find import ROOT, find, placed, readable
from .frozen import todays_values
from .grid import resources
from .origin import locate, sha256
from .quoting import quoted
from .records import Birth, State
from .replaced import DORA, refuse_trainer_key
from .run.local import end_with_parent
from .run.signals import Signals
from .share import Imported
from .shell import typed
from .signature import RULE, Composed, Composer
from .store import ARRAYS, CODES, XPS, Experiment
from .upstream.dora import HydraMain, command_line, config_folder, install, is_dora_command
from .values import Delta, flatten, is_excluded, merged, same, split, unflatten
from .xp import XP

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "dora-search", "submitit")


class FrozenArgv(list):
    """The argv of a stored experiment, knowing whose it is: Dora adds the overrides of the command line to it."""

    def __init__(self, experiment: Experiment, extra: Sequence[str] = ()):
        super().__init__([*(experiment.argv() or []), *extra])
        self.experiment, self.extra = experiment, list(extra)

    def __add__(self, other: list) -> "FrozenArgv":  # type: ignore[override]
        return FrozenArgv(self.experiment, [*self.extra, *other])


@dataclass
class Drift:
    """A key whose value would now be another one than when the experiment was made."""

    key: str
    was: Any
    now: Any  # None with `gone`
    gone: bool = False

    def __str__(self) -> str:
        now = "is gone" if self.gone else f"is {self.now} now"
        return f"{self.key} was {self.was}; it {now}"


def hydra_main(config_name: str, config_path: str, version_base: str | None = "1.3",
               checks: Sequence[Callable[..., None]] = (),
               as_stored: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
               files_of_data: Callable[[Any], Contents] | None = None
               ) -> Callable[[Callable], "TrainMain"]:
    """Dora's decorator of the same name, with early checks.

    Args:
        config_name, config_path, version_base: as Hydra's.
        checks: each is called before a folder is made, with the configuration's values of its parameters' names;
            raises ValueError, whose message the user sees, where they ask for what is not there.
        as_stored: adds keys to the configuration of an older experiment, if today's default is not
            what was done before the key existed.
        files_of_data: what the data set consists of (see contents.py), from the values of `data`
            and without reading it. A resume compares it before it decodes files that have changed.
    """
    return lambda main: TrainMain(main, config_name, config_path, version_base, checks, as_stored,
                                  files_of_data)


class TrainMain(HydraMain):
    """Dora's main with our signature, start line, claims and errors."""

    def __init__(self, main: Callable, config_name: str, config_path: str, version_base: str | None,
                 checks: Sequence[Callable[..., None]],
                 as_stored: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
                 files_of_data: Callable[[Any], Contents] | None = None):
        # Dora replaces sys.argv before it calls main, and tells torchrun's ranks nothing of -f and --clear.
        self.command = command_line() if is_dora_command() else None
        is_run = getattr(self.command, "command", "") == "run"
        if self.command is not None:
            output.prepare(never_fails=is_run)
        self.signals = Signals().install() if is_run else None
        if self.signals:
            end_with_parent()
        self._checks = checks
        self.as_stored, self.files_of_data = as_stored, files_of_data
        self._checked_before: set[str] = set()
        folder = config_folder(main, config_path)
        self._dora_block, self._config_error = _own_block(folder / f"{config_name}.yaml")
        super().__init__(main, config_name, config_path, version_base, _dora_config(self._dora_block))
        self.composer = Composer(folder, config_name, version_base)
        if self.command is not None:  # Dora puts the working directory first, which may be another project's
            sys.path[:] = [str(ROOT), *(path for path in sys.path if path != str(ROOT))]

    @property
    def clear_asked(self) -> bool:
        """Whether this process's command is to begin anew; a rank that `dora run -d` started is not."""
        return bool(getattr(self.command, "clear", False))

    def __call__(self) -> Any:
        """Run the experiment of this process's command."""
        _ = self.code  # read now: from here on, what a run imports is imported
        from .run.session import run

        return run(self, self.requested(), self.signals)

    def requested(self) -> XP:
        """The experiment that this process's command names."""
        if getattr(self.command, "command", "") != "run":
            return self.get_xp(sys.argv[1:])
        argv = list(self.command.argv)  # type: ignore[union-attr]
        sig = self.command.from_sig  # type: ignore[union-attr]
        return self.get_xp(self.get_argv_from_sig(sig) + argv if sig else argv)

    def run_job(self, experiment: Experiment, token: str, signals: Signals) -> Any:
        """Run an experiment as the job that was submitted with this token: nothing is composed.

        Raises:
            UserError: the folder holds no experiment.
        """
        job, birth = experiment.job(), experiment.birth()
        if birth is None:
            raise UserError(f"{experiment.folder} holds no experiment.")
        if job is None or job.token != token:
            print(f"XP {experiment.sig}: another submission took this one's place; nothing to do")
            return None
        if not job.code.get("hash"):
            _ = self.code  # it runs the live files: read now, before it imports them
        from .run.session import run

        xp = self.get_xp_from_sig(experiment.sig)
        xp.values = merged(job.excluded, self.as_stored(birth.config)) | {"threads": birth.threads}
        return run(self, xp, signals, job.stop)

    # --- an experiment from overrides, or from its signature ---

    def get_xp(self, argv: Sequence[str]) -> XP:
        """The experiment that `argv` names: composed today, or frozen where it came in by its signature.

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
        """The experiment as it is stored: nothing is composed, so this works when the configuration does not.

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
        """An experiment of which its overrides alone are known; without values if they do not fit any more."""
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
                raise UserError(f'"{arg}": dora.* is read before any override.',
                                "where things land: DORA_DIR=folder; the rest: conf/config.yaml")
            refuse_trainer_key(arg.partition("=")[0].lstrip("+").strip())

    def _counting(self, overrides: Sequence[str]) -> bool:
        """Whether any of these overrides counts in the signature; `slurm={gpus: 1}` is all of `slurm.*`."""
        keys = [arg.partition("=")[0].lstrip("+~").strip() for arg in overrides]
        return any(not is_excluded(key, self.dora.exclude)
                   and not is_excluded(f"{key}.*", self.dora.exclude) for key in keys)

    def _frozen(self, sig: str, excluded: Sequence[str]) -> XP:
        """An experiment with the values it was made with; only what does not count comes from today."""
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
        if XP(self.dora, birth.config, birth.argv, [(key, value) for key, value in birth.delta]).sig != birth.sig:
            raise UserError(f"what came in as {birth.sig} has other values than that signature: it is not imported.")
        argv.put_down(self.dora.dir)
        return self.get_xp_from_sig(birth.sig)

    # --- birth ---

    def create(self, xp: XP, anew: bool = False) -> Experiment:
        """Make the experiment's folder, unless it is there; leaves `xp` with the values that it runs.

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

    def refuse_if_waiting(self, experiment: Experiment) -> None:
        """Raises: UserError where the experiment waits or runs as a job; the job will do what is asked for."""
        job = experiment.job()
        if job is None or job.token == os.environ.get("DORA_TRAIN_JOB"):
            return
        from .grid.places import asked
        from .grid.status import look

        status = look([experiment], asked())[experiment.sig]
        if status.live and status.by_job and status.certain:
            info = f"{typed()} info -f {experiment.sig}"
            raise UserError(f"XP {experiment.sig} is {status.state} as {status.where or 'a job'}.",
                            f"watch it: {info} -t     stop it: {info} -C")

    def refuse_clear(self, experiment: Experiment) -> None:
        """Raises: UserError if the experiment must not be begun anew: it is another user's, runs, or waits as a job."""
        if experiment.folder.exists():
            clearing.refuse_others(experiment)
            claims.refuse_if_held(experiment, self.ask)
            self.refuse_if_waiting(experiment)

    def ask(self, holder: claims.Holder) -> bool | None:
        """Whether the scheduler still runs a holder's job; None where it cannot say."""
        if (holder.job_id, holder.token) == (os.environ.get("DORA_TRAIN_JOB_ID"), os.environ.get("DORA_TRAIN_JOB")):
            return False  # an earlier start of this very job: SLURM runs it once at a time
        from .grid.places import asked

        return asked().is_running(holder.job_id, holder.token)

    def code_for_jobs(self, xp: XP) -> tuple[Path, dict[str, Any]]:
        """The folder of the code that a job submitted now runs, and what is known of it.

        Raises:
            UserError: the configuration asks for neither a snapshot nor the live files.
        """
        kind = str(xp.values.get("code", "snapshot"))
        if kind not in ("snapshot", "live"):
            raise UserError(f"code={kind}: a job runs a snapshot, or the live files: code=snapshot or code=live.")
        if not self.dora.git_save or kind == "live":
            return ROOT, self.code.stored() | {"hash": ""}
        self.code = self._read_code()
        if self.code.note:
            print(self.code.note, file=sys.stderr)
        with writable(self.dora.dir):
            return self.code.snapshot(self.dora.dir), self.code.stored()

    @cached_property
    def code(self) -> Code:
        """The project's code as this command found it."""
        return self._read_code()

    def _read_code(self) -> Code:
        """The project's code as it is now. Results, queue and data are none, even if they lie in the project."""
        out = self.dora.dir
        variables = [os.environ.get(name) for name in ("DORA_QUEUE", "DORA_TRAIN_DATA")]
        elsewhere = [Path(folder) for folder in variables if folder]
        return Code.of(ROOT, [out, out / XPS, out / CODES, out / ARRAYS, *elsewhere])

    def keep_code(self, experiment: Experiment) -> None:
        """Keep the code with the experiment that it runs."""
        self.code.keep(experiment.code_archive(self.code.hash))

    def todays_snapshot(self) -> str:
        """The name of the snapshot that `code_for_jobs` would make; nothing is written."""
        return self._read_code().hash

    def check(self, xp: XP) -> None:
        """Raises: UserError where the configuration asks for what is not there, before anything is on disk."""
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

    def check_anew(self, xp: XP) -> None:
        """As `check`, before results are put aside for a job: also what its run would refuse on any machine.

        Raises:
            UserError: the job would fail.
        """
        self.check(xp)
        from .run.loggers import check_loggers  # it imports Lightning, which takes seconds

        check_loggers(list(xp.values.get("logger") or []))

    def drift(self, xp: XP) -> list[Drift]:
        """The keys that were frozen with another value than `xp` has now; empty for an experiment yet to be made.

        A key that `dora.exclude` has taken in since does not count, nor one that `as_stored` adds.

        Raises:
            UserError: by chance, another experiment has the same signature.
        """
        birth = self.experiment(xp).birth()
        if birth is not None and birth.rule <= RULE:
            xp.refuse_collision(birth.delta)
        if birth is None or os.environ.get("DORA_DRIFT") == "old":  # old: take the frozen values, and go on
            return []
        counted = dict(flatten(self._counted(xp.values)))
        frozen = dict(flatten(self._frozen_values(xp, birth)))
        known = {key for key, _ in flatten(birth.config)}
        younger = {key for key, _ in flatten(self.as_stored(birth.config)) if key not in known}
        return [Drift(key, was, counted.get(key), key not in counted) for key, was in frozen.items()
                if not is_excluded(key, self.dora.exclude) and key not in younger
                and (key not in counted or not same(counted[key], was))]

    def added(self, xp: XP) -> dict[str, Any]:
        """The keys that the configuration did not have yet when the experiment last ran, and their values."""
        birth = self.experiment(xp).birth()
        frozen = dict(flatten(self._frozen_values(xp, birth))) if birth else {}
        return {key: value for key, value in flatten(self._counted(xp.values)) if birth and key not in frozen}

    def _frozen_values(self, xp: XP, birth: Birth) -> Mapping[str, Any]:
        """What the experiment was made with; for younger keys, what it did or first ran with."""
        config = self.as_stored(birth.config)
        known = {key for key, _ in flatten(config)}
        if all(key in known for key, _ in flatten(self._counted(xp.values))):  # mostly: no more files are read
            return config
        added: dict[str, Any] = {}
        for start in self.experiment(xp).starts():
            added = start.added | added
        return merged(unflatten(list(added.items())), config)

    def refuse_drift(self, xp: XP) -> None:
        """Raises: UserError where the same signature would now mean another experiment."""
        drift = self.drift(xp)
        if drift:
            more = f" (and {len(drift) - 2} more)" if len(drift) > 2 else ""
            raise UserError(
                f"XP {xp.sig} was made when {'; '.join(map(str, drift[:2]))}{more}: not the same experiment.",
                f"keep its meaning: {typed()} run -f {xp.sig}     anew: --clear     both: tag=WORD")

    def _counted(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return split(config, self.dora.exclude)[0]

    def excluded(self, xp: XP, slurm: SlurmConfig) -> dict[str, Any]:
        """The values that a job takes from its submission: those that do not count, as they are now.

        And those of keys that the configuration did not have yet when the experiment was made: their defaults.

        Args:
            slurm: the resources that the job gets.
        """
        birth = self.experiment(xp).birth()
        frozen = dict(flatten(birth.config)) if birth else {}
        values = dict(xp.values) | {"slurm": asdict(slurm)}
        return unflatten([(key, value) for key, value in flatten(values) if key not in frozen])

    def _birth(self, xp: XP) -> Birth:
        return Birth(
            sig=xp.sig, argv=list(xp.argv), delta=[list(pair) for pair in xp.delta or []],
            config=self._counted(xp.values), rule=xp.rule, threads=xp.values.get("threads") or 1,
            code=self.code.stored(),
            versions=versions(), born=time.time(), host=socket.gethostname(), user=claims.user_name(),
            origin=self._origin(xp.values), groups=dict(xp.groups))

    def _origin(self, config: Mapping[str, Any]) -> dict[str, str]:
        given = config.get("continue_from") or ""
        path = locate(given, self.find)
        return {"given": given, "file": path.name, "sha256": sha256(path)} if path else {}

    def shorter(self, xp: XP) -> tuple[Experiment, int] | None:
        """A finished experiment that differs in fewer `trainer.max_epochs` alone, and how many: the longest of them."""
        key, delta = "trainer.max_epochs", xp.delta or []
        if key not in dict(delta):
            return None
        found = []
        for experiment in readable(self.dora.dir):
            birth = experiment.birth()
            if birth is None or self._without(key, birth.delta) != self._without(key, delta):
                continue
            epochs = dict(flatten(birth.config)).get(key) or 0
            if 0 < epochs < xp.values["trainer"]["max_epochs"] and experiment.state().state is State.COMPLETED:
                found.append((epochs, experiment.sig))
        return (self.experiment(max(found)[1]), max(found)[0]) if found else None

    def _without(self, key: str, delta: Iterable[Sequence[Any]]) -> list[str]:
        """What of a delta counts, but for one key; comparable."""
        return sorted(json.dumps([name, value], default=str) for name, value in delta
                      if name != key and not is_excluded(name, self.dora.exclude))

    # --- what Dora asks of a main ---

    @cached_property
    def _slurm_block(self) -> dict[str, Any]:
        """`slurm:` of the configuration alone."""
        return self.composer.compose([]).values.get("slurm") or {}

    def get_slurm_config(self) -> SlurmConfig:
        """The resources of a job: `slurm:` of the configuration, over defaults that fit any cluster."""
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
        """What makes up its name: what differs from the defaults, or its overrides if nothing else is known."""
        pairs = xp.delta if xp.delta is not None else [arg.partition("=")[::2] for arg in xp.argv]
        return OrderedDict((key, value) for key, value in pairs)

    def get_xp_history(self, xp: XP) -> list[dict]:  # type: ignore[override]  # all of ours
        return self.experiment(xp).history()

    def value_to_argv(self, arg: Any) -> list[str]:
        """Overrides from what a grid file gives its launcher: text, dicts, or lists of them."""
        if isinstance(arg, str):
            return [arg]
        if isinstance(arg, Mapping):
            return [f"{key}={value if key in self.composer.groups and isinstance(value, str) else quoted(value)}"
                    for key, value in arg.items()]
        if isinstance(arg, (list, tuple)):
            return [text for part in arg for text in self.value_to_argv(part)]
        raise UserError(f"a launcher takes text, a dict or a list of them, not {arg!r}.")


def versions() -> dict[str, str]:
    """Versions of Python and the main packages, without importing them."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _own_block(file: Path) -> tuple[dict[str, Any], str]:
    """The `dora:` block alone, and why it could not be read: reading verbs must not need the whole configuration."""
    try:
        content = OmegaConf.load(file)
        block = OmegaConf.select(content, "dora", default=None)
        return (OmegaConf.to_container(block, resolve=True) if block is not None else {}), ""  # type: ignore[return-value]
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        fallback = {"dir": os.environ.get("DORA_DIR", "outputs"), "grid_package": "grids"}
        return fallback, str(error).splitlines()[0]


def _dora_config(block: Mapping[str, Any]) -> DoraConfig:
    """Raises: UserError for a setting that Dora does not have, or that is replaced here."""
    config = DoraConfig()
    for key, value in block.items():
        if key in DORA and value:
            raise UserError(f"dora.{key} has no place here: {DORA[key]}.")
        if not hasattr(config, key):
            raise UserError(f'unknown key "dora.{key}" in the configuration.')
        setattr(config, key, value)
    if not os.environ.get("DORA_DIR"):  # else it is relative to where the command was typed
        config.dir = placed(Path(block.get("dir") or "outputs"))
    refuse_undecoded(os.path.abspath(config.dir), "choose another folder: DORA_DIR=folder")
    config.exclude = [*config.exclude, "dora.*", "slurm.*"]
    config.git_save = True  # in Dora's words: jobs run a snapshot; --no_git_save takes the live files
    return config


report_user_errors()
install(verbs)
