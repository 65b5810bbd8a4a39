"""Imports the libraries of a run once, for all jobs that start as forks of this process.

Python takes seconds to import torch and Lightning. A fork of a process that has imported them takes
milliseconds, and computes the same bits. Only installed libraries are imported here: each job
imports the project from its own snapshot. runner.py says which process starts which job, and why
this file uses the standard library only.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable

# The libraries that the runs of this project import. A library is left out if it is not installed.
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
# Variables that differ between two terminals. No library reads them while it is imported.
OF_A_TERMINAL = ("_", "SHLVL", "PWD", "OLDPWD", "COLUMNS", "LINES", "WINDOWID")
OF_A_TERMINAL_BEGIN = ("DORA_", "SSH_", "TMUX")
INSTALLED = ("site-packages", "dist-packages")


class Libraries:
    """The libraries that this process has imported.

    Attributes:
        kind: the kind of job for which they were imported (`kind_of`). Empty: nothing is imported.
        failed: why the import failed, by the kind of job. These jobs import their own libraries.
        path: `sys.path` of a new Python program, without the folder of the program.
    """

    def __init__(self) -> None:
        self.kind = ""
        self.failed: dict[str, str] = {}
        self.path: list[str] = []
        self._packages: list[tuple[str, int]] = []

    def load(self, kind: str, names: Iterable[str], path: list[str]) -> None:
        """Import the libraries for a kind of job.

        Args:
            names: the names of the modules to import.
            path: `sys.path` of a new Python program, without the folder of the program.

        Raises:
            RuntimeError: a fork of this process cannot do everything that a new process can.
            Exception: any error from the import of a library.
        """
        self.path = path
        self._packages = _installed(path)
        for name in names:
            if importlib.util.find_spec(name.partition(".")[0]) is not None:
                importlib.import_module(name)
                trouble = _trouble_of_a_fork()
                if trouble:
                    raise RuntimeError(f"{name} {trouble}")
        self.kind = kind

    def fit(self, kind: str) -> bool:
        """Whether a job of this kind may start as a fork. No package may be installed since."""
        return kind != "" and kind == self.kind and self._packages == _installed(self.path)


def kind_of(job: dict) -> str:
    """The kind of a job. Jobs of the same kind can be forks of the same process.

    It is a text made of the job's Python, folder, libraries and environment. Empty if the job does
    not start as a fork.

    Args:
        job: the job, as it was queued.
    """
    if not job.get("program"):
        return ""
    variables = [item for item in job.get("env", {}).items() if not _is_of_a_terminal(item[0])]
    rest = [job.get(key) for key in ("python", "folder", "preload")]
    return json.dumps([*rest, sorted(variables)])


def _is_of_a_terminal(variable: str) -> bool:
    return variable in OF_A_TERMINAL or variable.startswith(OF_A_TERMINAL_BEGIN)


def _installed(path: Iterable[str]) -> list[tuple[str, int]]:
    """The folders of installed packages, each with its mtime, which an installation changes."""
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
    """Why a fork of this process cannot do everything that a new process can. Empty if it can.

    The text follows the name of the library that was imported last.
    """
    for fd in os.listdir("/proc/self/fd"):
        # The driver opens this device when CUDA starts. A fork could not use CUDA then.
        if os.path.realpath(f"/proc/self/fd/{fd}").startswith("/dev/nvidia-uvm"):
            return "has started CUDA, and a fork could not use it"
    # OpenBLAS starts threads when it is imported. It ends them before a fork, and later starts them
    # again. So this process forks once, and then counts the threads that are left.
    if _has_threads():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if _has_threads():
            return "has started threads, and a fork would not have them"
    return ""


def _has_threads() -> bool:
    """Whether this process has more than one thread."""
    return len(os.listdir("/proc/self/task")) > 1


def forget_the_project() -> None:
    """Forget all modules that are not installed, so that a job imports its own versions.

    These are the modules of the queue, and modules from folders in PYTHONPATH.
    """
    ours = __name__.partition(".")[0]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        # torch.ops and torch.classes are not files. Their names here are relative.
        is_elsewhere = os.path.isabs(file) and not is_installed(file)
        if is_elsewhere or name.partition(".")[0] == ours:
            del sys.modules[name]
