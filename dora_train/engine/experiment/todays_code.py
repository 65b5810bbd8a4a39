"""Today's code of a project: the tag that stands for it, and how it differs from a code that ran.

lookup.py resolves `tag=@code` here. `experiments.py` asks what has changed since an experiment ran.
"""

import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from dora.conf import DoraConfig

from ..config.values import split
from ..errors import UserError, writable
from .code import Code, read_project
from .counted_code import conf_parts, counted_texts, is_tag, python_parts, tag_of
from .find import ROOT
from .folder import CODES, Experiment
from .snapshot import Files, everything, name_of, unpacked


class TodaysCode:
    """What counts of the code of one project.

    Args:
        main: the function that trains.
        config_folder: of the configuration.
        dora: Dora's own settings.
    """

    def __init__(self, main: Callable, config_folder: Path, dora: DoraConfig):
        self.module = os.path.relpath(main.__code__.co_filename, ROOT)
        self.conf = os.path.relpath(config_folder, ROOT)
        self.dora = dora
        self._tagged = False
        self._ran: dict[str, Files] = {}  # by hash
        self._differing: dict[tuple[str, str, frozenset[str]], list[str]] = {}

    @cached_property
    def now(self) -> Code:
        """The project's code as this command found it."""
        return read_project(self.dora.dir)

    def read_again(self) -> None:
        """Take the code as it is now, unless a tag was resolved: a tag stands for one code."""
        if not self._tagged:
            self.now = read_project(self.dora.dir)

    def resolved(self, values: Mapping[str, Any]) -> str:
        """The tag that `tag=@code` becomes, once for all experiments of a command."""
        self._tagged = True
        return self.tag(values)

    def tag(self, values: Mapping[str, Any]) -> str:
        """The tag of today's code for an experiment with these values."""
        python = python_parts(self.now.files, self.module, self._counted(values))
        return tag_of(python | conf_parts(self.now.files, self.conf, self.dora.exclude))

    def refuse_other(self, values: Mapping[str, Any]) -> None:
        """Refuse to run today's code if the tag names another one.

        Raises:
            UserError: it does.
        """
        tag = values.get("tag")
        if is_tag(tag) and tag != (now := self.tag(values)):
            raise UserError(
                f"tag={tag} names other code than today's, which is {now}.",
                "to run today's code: tag=@code     to see what has changed: "
                "python -m dora_train.snapshots --diff SIG",
            )

    def for_jobs(self, values: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
        """The folder of the code that a job submitted now runs, and its record (`Start.code`).

        Raises:
            UserError: the configuration asks for neither a snapshot nor the live files. Or it asks
                for the live files, and its tag names a code.
        """
        kind = str(values.get("code", "snapshot"))
        if kind not in ("snapshot", "live"):
            raise UserError(
                f"code={kind}: a job runs a snapshot, or the live files: code=snapshot or code=live."
            )
        if not self.dora.git_save or kind == "live":
            if is_tag(values.get("tag")):
                raise UserError(
                    "tag=@code names the code as it is now. This job would run the files at its start.",
                    "use a snapshot: code=snapshot, and no --no_git_save",
                )
            return ROOT, self.now.stored() | {"hash": ""}
        self.read_again()
        if self.now.note:
            print(self.now.note, file=sys.stderr)
        with writable(self.dora.dir):
            return self.now.snapshot(self.dora.dir), self.now.stored()

    def differs(self, experiment: Experiment, values: Mapping[str, Any]) -> list[str]:
        """The files that count and are not as the experiment last ran them.

        Empty if there are none, or if the files that it ran are lost.

        Args:
            values: of the experiment.
        """
        codes = experiment.codes()
        name = str(codes[-1].code.get("hash") or "") if codes else ""
        if not name or name == self.now.hash:
            return []
        key = name, self.now.hash, frozenset(counted_texts(values, self.dora.exclude))
        if key not in self._differing:
            ran = self._files(experiment, name)
            self._differing[key] = self._differences(ran, self._counted(values)) if ran else []
        return self._differing[key]

    def _differences(self, ran: Files, counted: Mapping[str, Any]) -> list[str]:
        before = python_parts(ran, self.module, counted)
        now = python_parts(self.now.files, self.module, counted)
        paths = sorted(before.keys() | now.keys())
        return [path for path in paths if before.get(path) != now.get(path)]

    def _files(self, experiment: Experiment, name: str) -> Files:
        """The files of the hash `name`, from the experiment's archive or from the snapshot."""
        if name not in self._ran:
            files = unpacked(experiment.code_archive(name))
            if not files:
                files = everything(self.dora.dir / CODES / name)
            self._ran[name] = files if name_of(files) == name else {}
        return self._ran[name]

    def _counted(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that may name a module of the run."""
        return split(values, self.dora.exclude)[0]
