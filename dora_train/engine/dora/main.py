"""The decorator on `main` in train.py: where Dora's command, a job on a node and a rank of a run
come in.

`run/` imports torch and Lightning when an experiment is entered. A command that only reads does not
wait for them.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from dora.conf import DoraConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .. import environment, output
from ..config.refused import DORA
from ..config.values import is_excluded, merged
from ..errors import UserError, refuse_undecoded, report_user_errors
from ..experiment.contents import Contents
from ..experiment.find import ROOT, placed
from ..experiment.folder import Experiment
from ..experiment.xp import XP
from ..experiments import Check, Experiments, Stored
from ..run.signals import Signals
from ..run.spawn import end_with_parent
from ..upstream.dora import config_folder, install, own_command
from ..watch import json_lines
from . import verbs

if TYPE_CHECKING:
    from ...report.marks import Marks, Watched

JSON_VERBS = ("run", "grid", "info", "launch")  # they print JSON with DORA_JSON=1


def hydra_main(
    config_name: str,
    config_path: str,
    version_base: str | None = "1.3",
    checks: Sequence[Check] = (),
    as_stored: Stored = dict,
    files_of_data: Callable[[Any], Contents] | None = None,
) -> Callable[[Callable], "TrainMain"]:
    """Dora's decorator of the same name, with early checks.

    Args:
        config_name, config_path, version_base: as Hydra's.
        checks: run before a folder is made. Each receives the configuration's values that its
            parameters name, once for each combination. It raises ValueError if they ask for
            something that is not there. The user sees the message.
        as_stored: adds keys to the configuration of an older experiment, if a run did something
            else than today's default before the key existed.
        files_of_data: what the data set consists of (see contents.py), from the values of `data`
            and without reading it. A resume compares it before it decodes files that have changed.
    """
    return lambda main: TrainMain(
        main, config_name, config_path, version_base, checks, as_stored, files_of_data
    )


class TrainMain(Experiments):
    """Dora's main with our signature, start line, claims and errors."""

    def __init__(
        self,
        main: Callable,
        config_name: str,
        config_path: str,
        version_base: str | None,
        checks: Sequence[Check],
        as_stored: Stored = dict,
        files_of_data: Callable[[Any], Contents] | None = None,
    ):
        # Read now: Dora replaces sys.argv before it calls main.
        self.command = own_command()
        is_run = getattr(self.command, "command", "") == "run"
        if self.command is not None:
            output.prepare(never_fails=is_run)
            if environment.json_asked() and self.command.command in JSON_VERBS:
                output.keep_for_json()
        self.signals: Signals | None = None
        self.is_started_rank = False  # `dora run -d` started this process as a rank
        if is_run:
            self.signals = Signals().install()
            self.is_started_rank = end_with_parent()
        folder = config_folder(main, config_path)
        block = _dora_block(folder / f"{config_name}.yaml")
        super().__init__(
            main,
            config_name,
            config_path,
            version_base,
            _dora_config(block),
            checks,
            as_stored,
            files_of_data,
        )
        # Dora puts the working directory first, which may be another project's
        if self.command is not None:
            sys.path[:] = [str(ROOT), *(path for path in sys.path if path != str(ROOT))]

    @property
    def clear_asked(self) -> bool:
        """Whether this process's command has `--clear`. A rank that `dora run -d` started does
        not."""
        return bool(getattr(self.command, "clear", False))

    def __call__(self) -> Any:
        """Run the experiment of this process's command."""
        _ = self.code  # read now: the modules of the project are imported from here on
        from ..run.ranks import Ranks
        from ..run.session import run

        xp = self.requested()
        try:
            return run(self, xp, self.signals, clear=self.clear_asked)
        finally:
            if Ranks.here().is_first and not self.is_started_rank:
                json_lines.say("run", self.experiment(xp))

    def requested(self) -> XP:
        """The experiment that this process's command names."""
        command = self.command
        if command is None or command.command != "run":
            return self.get_xp(sys.argv[1:])
        argv = list(command.argv)
        if command.from_sig:
            argv = self.get_argv_from_sig(command.from_sig) + argv
        return self.get_xp(argv)

    def run_job(self, experiment: Experiment, token: str, signals: Signals) -> Any:
        """Run an experiment as the job that was submitted with this token. Nothing is composed.

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
        from ..run.session import run

        xp = self.get_xp_from_sig(experiment.sig)
        # Below all: empty sections of the birth, which neither of the two others has.
        below = merged(self.as_stored(birth.config), job.excluded)
        xp.values = merged(below, self.frozen.stored(birth)) | birth.fixed
        return run(self, xp, signals, job.stop)

    @cached_property
    def _marks(self) -> "Marks":
        from ...report.marks import Marks  # of all verbs, only a table needs it

        return Marks()

    def marks(self, watched: Iterable["Watched"]) -> Mapping[str, tuple[str, str]]:
        """As there, by the groups and the verdicts of the report."""
        return self._marks.of(watched)

    def check_anew(self, xp: XP) -> None:
        """As there, and whether the loggers are installed: without them a job would fail."""
        super().check_anew(xp)
        from ..run.loggers import check_loggers  # it imports Lightning, which takes seconds

        check_loggers(list(xp.values.get("logger") or []))


def _dora_block(file: Path) -> dict[str, Any]:
    """The `dora:` block of a configuration, or its most common values if it cannot be read.

    A verb that reads results must work also if the configuration is broken.
    """
    try:
        block = OmegaConf.select(OmegaConf.load(file), "dora", default=None)
        if block is None:
            return {}
        return OmegaConf.to_container(block, resolve=True)  # type: ignore[return-value]
    except (OSError, yaml.YAMLError, OmegaConfBaseException):
        return {"dir": environment.outputs() or "outputs", "grid_package": "grids"}


class _Settings(DoraConfig):
    """Dora's own settings, which remember the answers on keys: a grid asks for few of them."""

    def is_excluded(self, arg_name: str) -> bool:
        return is_excluded(arg_name, self.exclude)


def _dora_config(block: Mapping[str, Any]) -> DoraConfig:
    """Dora's own settings, from the `dora:` block of the configuration.

    Raises:
        UserError: Dora has no such setting, or it is not supported here.
    """
    config = _Settings()
    for key, value in block.items():
        if key in DORA and value:
            raise UserError(f"dora.{key} is not supported here: {DORA[key]}.")
        if not hasattr(config, key):
            raise UserError(f'unknown key "dora.{key}" in the configuration.')
        setattr(config, key, value)
    if not environment.outputs():  # else it is relative to where the command was typed
        config.dir = placed(Path(block.get("dir") or "outputs"))
    refuse_undecoded(os.path.abspath(config.dir), "choose another folder: DORA_DIR=folder")
    config.exclude = [*config.exclude, "dora.*", "slurm.*"]  # as stock Dora adds them
    # The configuration of an older project does not list these keys of the engine.
    config.exclude += ["deterministic", "notify", "retry.*"]
    config.git_save = True  # jobs run a snapshot; `--no_git_save` sets it to False
    return config


report_user_errors()
install(verbs)
