"""The decorator on `main` in train.py: where Dora's command, a job on a node and a rank of a run
come in.

Torch and Lightning are imported by `run/`, once an experiment is entered; reading one costs nothing
of that.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from dora.conf import DoraConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...report.marks import Marks, Watched
from .. import output
from ..config.refused import DORA
from ..config.values import merged
from ..errors import UserError, refuse_undecoded, report_user_errors
from ..experiment.contents import Contents
from ..experiment.find import ROOT, placed
from ..experiment.folder import Experiment
from ..experiment.xp import XP
from ..experiments import Check, Experiments, Stored
from ..run.signals import Signals
from ..run.spawn import end_with_parent
from ..upstream.dora import command_line, config_folder, install, is_dora_command
from . import verbs


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
        checks: each is called before a folder is made, with the configuration's values of its
            parameters' names; raises ValueError, whose message the user sees, where they ask for
            what is not there.
        as_stored: adds keys to the configuration of an older experiment, if today's default is not
            what was done before the key existed.
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
        # Dora replaces sys.argv before it calls main, and tells torchrun's ranks nothing of -f and
        # --clear.
        self.command = command_line() if is_dora_command() else None
        is_run = getattr(self.command, "command", "") == "run"
        if self.command is not None:
            output.prepare(never_fails=is_run)
        self.signals = Signals().install() if is_run else None
        if self.signals:
            end_with_parent()
        folder = config_folder(main, config_path)
        self._dora_block, self._config_error = _own_block(folder / f"{config_name}.yaml")
        super().__init__(
            main,
            config_name,
            config_path,
            version_base,
            _dora_config(self._dora_block),
            checks,
            as_stored,
            files_of_data,
        )
        # Dora puts the working directory first, which may be another project's
        if self.command is not None:
            sys.path[:] = [str(ROOT), *(path for path in sys.path if path != str(ROOT))]

    @property
    def clear_asked(self) -> bool:
        """Whether this process's command is to begin anew; a rank that `dora run -d` started is
        not."""
        return bool(getattr(self.command, "clear", False))

    def __call__(self) -> Any:
        """Run the experiment of this process's command."""
        _ = self.code  # read now: from here on, what a run imports is imported
        from ..run.session import run

        return run(self, self.requested(), self.signals, clear=self.clear_asked)

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
        from ..run.session import run

        xp = self.get_xp_from_sig(experiment.sig)
        xp.values = merged(job.excluded, self.as_stored(birth.config)) | {"threads": birth.threads}
        return run(self, xp, signals, job.stop)

    @cached_property
    def _marks(self) -> Marks:
        return Marks()

    def marks(self, watched: Iterable[Watched]) -> Mapping[str, str]:
        """By the verdicts of the report."""
        return self._marks.of(watched)

    def check_anew(self, xp: XP) -> None:
        """As there, and the loggers: a job that asks for one that is not installed would fail."""
        super().check_anew(xp)
        from ..run.loggers import check_loggers  # it imports Lightning, which takes seconds

        check_loggers(list(xp.values.get("logger") or []))


def _own_block(file: Path) -> tuple[dict[str, Any], str]:
    """The `dora:` block alone, and why it could not be read: reading verbs must not need the whole
    configuration."""
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
    # in Dora's words: jobs run a snapshot; --no_git_save takes the live files
    config.git_save = True
    return config


report_user_errors()
install(verbs)
