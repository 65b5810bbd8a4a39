"""The decorator on `main` in train.py: what an experiment is, made from overrides, from a signature or from a job.

Dora's command, a job on a node and a rank of a local run all come in here. Torch and Lightning are imported by
`run/`, once an experiment is entered; reading one costs nothing of that.
"""

import inspect
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from dora.conf import DoraConfig, SlurmConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import claims, upstream, verbs
from .code import Code, content_hash, snapshot
from .contents import Contents
from .errors import UserError, report_user_errors, shortened, writable
from .find import find
from .origin import locate, sha256
from .quoting import quoted
from .replaced import DORA, refuse_trainer_key
from .run.local import end_with_parent
from .run.signals import Signals
from .share import Imported
from .signature import RULE, Composer
from .store import XPS, Birth, Experiment, State
from .values import flatten, is_excluded, merged, split, unflatten
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


class TrainMain(upstream.HydraMain):
    """Dora's main with our signature, start line, claims and errors."""

    def __init__(self, main: Callable, config_name: str, config_path: str, version_base: str | None,
                 checks: Sequence[Callable[..., None]],
                 as_stored: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
                 files_of_data: Callable[[Any], Contents] | None = None):
        self._checks = checks
        self.as_stored, self.files_of_data = as_stored, files_of_data
        self._checked_before: set[str] = set()
        self._said_too_large = False
        folder = upstream.config_folder(main, config_path)
        self._dora_block, self._config_error = _own_block(folder / f"{config_name}.yaml")
        super().__init__(main, config_name, config_path, version_base, _dora_config(self._dora_block))
        self.composer = Composer(folder, config_name, version_base)
        # Dora replaces sys.argv before it calls main, and tells torchrun's ranks nothing of -f and --clear.
        self.command = upstream.command_line() if upstream.is_dora_command() else None
        self.signals = Signals().install() if getattr(self.command, "command", "") == "run" else None
        if self.signals:
            end_with_parent()

    @property
    def clear_asked(self) -> bool:
        """Whether this process's command is to begin anew; a rank that `dora run -d` started is not."""
        return bool(getattr(self.command, "clear", False))

    def __call__(self) -> Any:
        """Run the experiment of this process's command."""
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
        from .run.session import run

        job, birth = experiment.job(), experiment.birth()
        if birth is None:
            raise UserError(f"{experiment.folder} holds no experiment.")
        if job is None or job.token != token:
            print(f"XP {experiment.sig}: another submission took this one's place; nothing to do")
            return None
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
        composed = self.composer.compose(self._checked(argv))
        return XP(self.dora, composed.values, composed.argv, composed.delta)

    def get_argv_from_sig(self, sig: str) -> FrozenArgv:
        """The stored argv of an experiment, by any unambiguous beginning of its signature.

        Raises:
            UserError: there is no such experiment, or several.
        """
        return FrozenArgv(self.find(sig))

    def get_xp_from_sig(self, sig: str) -> XP:
        """The experiment as it is stored: nothing is composed, so this works when the configuration does not."""
        experiment = self.find(sig)
        birth = experiment.birth()
        delta = [(key, value) for key, value in birth.delta] if birth else None
        values = dict(self.as_stored(birth.config)) if birth else {}
        return XP(self.dora, values, FrozenArgv(experiment), delta, experiment.sig)

    def find(self, sig: str) -> Experiment:
        """The stored experiment whose signature begins with `sig`.

        Raises:
            UserError: none does, or several.
        """
        return find(self.dora.dir, sig)

    def experiment(self, xp: XP | str) -> Experiment:
        return Experiment(self.dora.dir / XPS / (xp if isinstance(xp, str) else xp.sig))

    def _checked(self, argv: Sequence[str]) -> list[str]:
        for arg in argv:
            if arg.lstrip("+~").startswith("dora."):
                raise UserError(f'"{arg}": dora.* is read before any override.',
                                "where things land: DORA_DIR=folder; the rest: conf/config.yaml")
            refuse_trainer_key(arg.partition("=")[0].lstrip("+").strip())
        return list(argv)

    def _counting(self, overrides: Sequence[str]) -> bool:
        """Whether any of these overrides counts in the signature."""
        return any(not is_excluded(arg.partition("=")[0].lstrip("+~").strip(), self.dora.exclude)
                   for arg in overrides)

    def _frozen(self, sig: str, excluded: Sequence[str]) -> XP:
        """An experiment with the values it was made with; only what does not count comes from today."""
        experiment = self.find(sig)
        birth = experiment.birth()
        if birth is None:  # made by stock Dora: all there is are its overrides
            return self.get_xp(list(experiment.argv() or []) + list(excluded))
        xp = self.get_xp_from_sig(experiment.sig)
        xp.values = self.composer.compose(self._checked(excluded)).values
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

    def create(self, xp: XP) -> Experiment:
        """Make the experiment's folder, unless it is there; leaves `xp` with the values that it runs.

        Raises:
            UserError: the signature would mean something else today, the configuration asks for what is not there, or
                nothing can be written.
        """
        experiment = self.experiment(xp)
        birth = experiment.birth()
        if birth is None:
            self.check(xp)
            with writable(experiment.folder):
                experiment.write_birth(self._birth(xp))
            birth = experiment.birth()
            assert birth is not None
        else:
            self.refuse_drift(xp)
        self.use_frozen(xp, birth)
        return experiment

    init_xp = create  # type: ignore[assignment]  # Dora's name: `dora grid --init` and `dora import`

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
            raise UserError(f"XP {experiment.sig} is {status.state} as {status.where or 'a job'}.",
                            f"watch it: dora info -f {experiment.sig} -t     stop it: dora info -f {experiment.sig} -C")

    def clear(self, experiment: Experiment) -> None:
        """Remove an experiment's folder: renamed first, so that no other command sees half of it.

        Raises:
            UserError: it is running, or waiting as a job.
        """
        if not experiment.folder.exists():
            return
        claims.refuse_if_held(experiment, self.ask)
        self.refuse_if_waiting(experiment)
        experiment.remove()

    def ask(self, holder: claims.Holder) -> bool | None:
        """Whether the scheduler still runs a holder's job; None where it cannot say."""
        if (holder.job_id, holder.token) == (os.environ.get("DORA_TRAIN_JOB_ID"), os.environ.get("DORA_TRAIN_JOB")):
            return False  # an earlier start of this very job: SLURM runs it once at a time
        from .grid.places import asked

        return asked().is_running(holder.job_id)

    def code_for_jobs(self, xp: XP) -> tuple[Path, dict[str, Any]]:
        """The folder of the code that a job submitted now runs, and what is known of it.

        Raises:
            UserError: the configuration asks for neither a snapshot nor the live files.
        """
        kind = str(xp.values.get("code", "snapshot"))
        if kind not in ("snapshot", "live"):
            raise UserError(f"code={kind}: a job runs a snapshot, or the live files: code=snapshot or code=live.")
        if not self.dora.git_save or kind == "live":
            return Path.cwd(), self.code.stored() | {"hash": ""}
        root = snapshot(Path.cwd(), self.dora.dir)
        if root.name != self.code.hash:  # a file was edited since
            self.code = Code.of(Path.cwd())
        return root, self.code.stored() | {"hash": root.name}

    @cached_property
    def code(self) -> Code:
        """The files as this command found them; what it imported is what it runs, whatever is edited since."""
        return Code.of(Path.cwd())

    def keep_code(self, experiment: Experiment) -> str:
        """Keep with the experiment what makes these files differ from their commit; without git there is nothing.

        Returns:
            Why that cannot be, once a command.
        """
        code = self.code
        if not code.dirty or experiment.patch(code.hash).exists():
            return ""
        if code.patch is not None:
            experiment.write_patch(code.hash, code.patch)
            return ""
        said, self._said_too_large = self._said_too_large, True
        return "" if said else ("what differs from the commit is too large to be kept with the experiment (over 1 MiB):"
                                " commit it, or name the large files in .gitignore")

    def todays_snapshot(self) -> str:
        """The name of the snapshot that `code_for_jobs` would make; nothing is written."""
        return content_hash(Path.cwd())

    def check(self, xp: XP) -> None:
        """Raises: UserError where the configuration asks for what is not there, before anything is on disk."""
        missing = [key for key, value in flatten(xp.values) if value == "???"]
        if missing:
            raise UserError(f"{missing[0]} has no value yet (???): write {missing[0]}=VALUE.")
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

    def drift(self, xp: XP) -> list[Drift]:
        """The keys that were frozen with another value than `xp` has now; empty for an experiment yet to be made.

        A key that `dora.exclude` has taken in since does not count, nor one that `as_stored` adds.

        Raises:
            UserError: by chance, another experiment has the same signature.
        """
        birth = self.experiment(xp).birth()
        if birth is not None and birth.rule == RULE:
            xp.refuse_collision(birth.delta)
        if birth is None or os.environ.get("DORA_DRIFT") == "old":  # old: take the frozen values, and go on
            return []
        counted = dict(flatten(self._counted(xp.values)))
        frozen = dict(flatten(self._frozen_values(xp, birth)))
        known = {key for key, _ in flatten(birth.config)}
        younger = {key for key, _ in flatten(self.as_stored(birth.config)) if key not in known}
        return [Drift(key, was, counted.get(key), key not in counted) for key, was in frozen.items()
                if not is_excluded(key, self.dora.exclude) and key not in younger
                and (key not in counted or counted[key] != was)]

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
                f"keep its meaning: dora run -f {xp.sig}     anew: --clear     both: tag=WORD")

    def _counted(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return split(config, self.dora.exclude)[0]

    def excluded(self, xp: XP) -> dict[str, Any]:
        """The values that a job takes from its submission: those that do not count, as they are now.

        And those of keys that the configuration did not have yet when the experiment was made: their defaults.
        """
        birth = self.experiment(xp).birth()
        frozen = dict(flatten(birth.config)) if birth else {}
        return unflatten([(key, value) for key, value in flatten(xp.values) if key not in frozen])

    def _birth(self, xp: XP) -> Birth:
        return Birth(
            sig=xp.sig, argv=list(xp.argv), delta=[list(pair) for pair in xp.delta or []],
            config=self._counted(xp.values), rule=RULE, threads=xp.values.get("threads") or 1, code=self.code.stored(),
            versions=versions(), born=time.time(), host=socket.gethostname(), user=claims.user_name(),
            origin=self._origin(xp.values))

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
        for path in (self.dora.dir / XPS).glob("*/birth.json"):
            experiment = Experiment(path.parent)
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

    def get_slurm_config(self) -> SlurmConfig:
        """The resources of a job: `slurm:` of the configuration, over defaults that fit any cluster."""
        slurm = SlurmConfig(gpus=0, mem_per_gpu=4, cpus_per_gpu=2, partition="")
        block = self.composer.compose([]).values.get("slurm", {})
        for key, value in block.items():
            if not hasattr(slurm, key):
                raise UserError(f'unknown key "slurm.{key}" in the configuration.',
                                f"slurm has: {shortened(vars(slurm), 30)}.")
            setattr(slurm, key, value)
        return slurm

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
    config.exclude = [*config.exclude, "dora.*", "slurm.*"]
    config.git_save = True  # in Dora's words: jobs run a snapshot; --no_git_save takes the live files
    return config


report_user_errors()
upstream.install(verbs)
