"""Imports the libraries of a run once, for all jobs that may start as forks of the process.

Python takes seconds to import torch and Lightning. A fork of a process that has imported them takes
milliseconds, and computes the same bits. Only installed libraries are imported ahead: each job
imports the project from its own snapshot. runner.py says which process starts which job.
Standard library only, as there.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable

# The libraries of a run that is shipped here. One that is not installed is left out.
USUAL = (
    "torch",
    "torch.distributed",
    "torch.utils.tensorboard",
    "pytorch_lightning",
    "torchmetrics",
    "torchvision",
    "dora.__main__",
    "hydra.core.override_parser.overrides_parser",
    "hydra.experimental.callbacks",
    "rich.progress",
    "sklearn.datasets",
    "tensorboard.backend.event_processing.event_accumulator",
)
# Variables that differ between two terminals, and that no library reads while it is imported.
OF_A_TERMINAL = ("_", "SHLVL", "PWD", "OLDPWD", "COLUMNS", "LINES", "WINDOWID")
OF_A_TERMINAL_BEGIN = ("DORA_", "SSH_", "TMUX")
INSTALLED = ("site-packages", "dist-packages")


class Libraries:
    """The libraries that this process has imported.

    Attributes:
        kind: the kind of job that they are for (`kind_of`). Empty: none are imported.
        failed: why the import failed, for the kinds of job that start without it.
        path: `sys.path` as a program that is started anew would have it, without its own folder.
    """

    def __init__(self) -> None:
        self.kind = ""
        self.failed: dict[str, str] = {}
        self.path: list[str] = []
        self._packages: list[tuple[str, int]] = []

    def load(self, kind: str, names: Iterable[str], path: list[str]) -> None:
        """Import the libraries for a kind of job.

        Raises:
            RuntimeError: a fork of this process could not do what a new process can.
            Exception: from the import of a library.
        """
        self.path = path
        self._packages = _installed(path)
        for name in names:
            if importlib.util.find_spec(name.partition(".")[0]) is not None:
                importlib.import_module(name)
        trouble = _trouble_of_a_fork()
        if trouble:
            raise RuntimeError(trouble)
        self.kind = kind

    def fit(self, kind: str) -> bool:
        """Whether a job of this kind may start as a fork, as no package was installed since."""
        return kind != "" and kind == self.kind and self._packages == _installed(self.path)


def kind_of(job: dict) -> str:
    """The Python, folder, libraries and environment of a job. Empty if it starts without a fork.

    Args:
        job: as it was queued.
    """
    if not job.get("program"):
        return ""
    variables = [item for item in job.get("env", {}).items() if not _is_of_a_terminal(item[0])]
    rest = [job.get(key) for key in ("python", "folder", "preload")]
    return json.dumps([*rest, sorted(variables)])


def _is_of_a_terminal(variable: str) -> bool:
    return variable in OF_A_TERMINAL or variable.startswith(OF_A_TERMINAL_BEGIN)


def _installed(path: Iterable[str]) -> list[tuple[str, int]]:
    """The folders of installed packages. Each with a time that changes if one is installed."""
    found = []
    for folder in path:
        if os.path.basename(folder) in INSTALLED and os.path.isdir(folder):
            found.append((folder, os.stat(folder).st_mtime_ns))
    return found


def is_installed(file: str) -> bool:
    """Whether a module's file belongs to Python or to an installed package."""
    if any(f"/{name}/" in file for name in INSTALLED):
        return True
    return file.startswith(os.path.dirname(os.__file__) + "/")


def _trouble_of_a_fork() -> str:
    """Why a fork of this process could not do what a new process can. Empty if it can."""
    # OpenBLAS has threads from its import on. It ends them before a fork, and starts them anew.
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    if len(os.listdir("/proc/self/task")) > 1:
        return "a library has started threads, and a fork would not have them"
    for fd in os.listdir("/proc/self/fd"):
        # The driver opens this device when CUDA starts. A fork could not use CUDA then.
        if os.path.realpath(f"/proc/self/fd/{fd}").startswith("/dev/nvidia-uvm"):
            return "a library has started CUDA, and a fork could not use it"
    return ""


def forget_the_project() -> None:
    """Forget the modules that are not installed, so that a job imports its own.

    These are the modules of the queue, and what a folder in PYTHONPATH may have added.
    """
    ours = __name__.partition(".")[0]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        # torch.ops and torch.classes are no files, and have a relative name here
        is_elsewhere = os.path.isabs(file) and not is_installed(file)
        if is_elsewhere or name.partition(".")[0] == ours:
            del sys.modules[name]
