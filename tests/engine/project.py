"""The project as its users drive it: the real `dora` command, in a folder, with its outputs
somewhere else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from forked import Run

import dora_train
from dora_train.engine.experiment.folder import Experiment

# The project under test: the assembled example for the engine's tests (see example.py), the work
# tree itself for the tests of the researcher's files.
ROOT = Path(dora_train.__file__).resolve().parents[1]
REPOSITORY = Path(__file__).resolve().parents[2]  # this work tree
BIN = Path(sys.executable).parent
QUICK = ["debug=fast", "threads=1"]  # two epochs of a few batches


class Project:
    """Runs commands in `root`, the project under test or a copy of it.

    Args:
        out: what `DORA_DIR` says; made by the commands.
        env: more variables for the commands.
    """

    def __init__(self, out: Path, root: Path = ROOT, env: dict[str, str] | None = None):
        self.out, self.root = out, root
        self.env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SLURM_", "DORA_"))
        }
        self.env |= {
            "DORA_DIR": str(out),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "120",
            "DORA_QUEUE": f"{out}.queue",
            "CUDA_VISIBLE_DEVICES": "",  # the same runs on a machine with a GPU
            **(env or {}),
        }

    @classmethod
    def copy(cls, folder: Path, env: dict[str, str] | None = None) -> Project:
        """A copy whose files a test may edit."""
        root = folder / "project"
        for name in ("conf", "dora_train", "grids"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        return cls(folder / "outputs", root, env)

    def edit(self, file: str, before: str, after: str) -> None:
        """Replace text that must be there."""
        path = self.root / file
        text = path.read_text()
        assert before in text, f"{file} does not hold {before!r}"
        path.write_text(text.replace(before, after))

    def start(self, *command: str, **options: Any) -> subprocess.Popen:
        """A command of the environment, e.g. `dora run`, its output in a pipe."""
        program = str(BIN / command[0])
        return subprocess.Popen(
            [program, *command[1:]],
            cwd=self.root,
            env=self.env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            **{"stderr": subprocess.STDOUT, **options},
        )

    def run(self, *command: str, code: int | None = 0, timeout: float = 240) -> str:
        """What a command prints; its exit code must be `code` (None: any but 0)."""
        process = self.start(*command)
        try:
            output = process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        right = process.returncode != 0 if code is None else process.returncode == code
        assert right, f"{' '.join(command)} ended with {process.returncode}:\n{output}"
        return output

    def dora(self, *args: str, code: int | None = 0) -> str:
        """What `dora ARGS` prints, in a process that has the libraries already."""
        run = Run(self, *args)
        ended, output = run.wait(240), run.text
        run.output.unlink()
        right = ended != 0 if code is None else ended == code
        assert right, f"dora {' '.join(args)} ended with {ended}:\n{output}"
        return output

    def killed(self, *args: str, epoch: int, signum: int, delay: float = 0.0) -> tuple[int, str]:
        """Start `dora ARGS`, and send it a signal once it has finished `epoch` epochs (and `delay`
        seconds passed).

        Returns:
            (exit code, output); the signal is checked to have hit a living process.
        """
        run = Run(self, *args)
        deadline = time.monotonic() + 120
        while not any(len(xp.history()) >= epoch for xp in self.experiments()):
            assert run.poll() is None and time.monotonic() < deadline, run.text
            time.sleep(0.005)
        time.sleep(delay)
        assert run.kill(signum), "it had ended before the signal"
        code, output = run.wait(), run.text
        run.output.unlink()
        return code, output

    def wait_for_checkpoint(self, process: subprocess.Popen) -> None:
        """Until `last.ckpt` of the one experiment is there."""
        while not (self.experiments() and self.xp.last_checkpoint.exists()):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.005)

    def experiments(self) -> list[Experiment]:
        return [
            Experiment(path)
            for path in sorted((self.out / "xps").glob("*"))
            if not path.name.startswith(".")
        ]

    @property
    def xp(self) -> Experiment:
        """The only experiment there is."""
        [experiment] = self.experiments()
        return experiment


def weights(path: Path) -> dict[str, Any]:
    """The state dict of a checkpoint, through the loader that runs no code."""
    import torch

    return torch.load(path, weights_only=True)["state_dict"]


def same_run(one: Experiment, other: Experiment) -> None:
    """Bit for bit: history, result, last and best weights."""
    import torch

    assert one.history() == other.history()
    assert one.result() == other.result()
    for name in ("last.ckpt", "best.ckpt"):
        mine, theirs = weights(one.folder / name), weights(other.folder / name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine), name


def sig_of(output: str) -> str:
    """The signature in the first line that names one."""
    return output.split("XP ")[1][:8]


def stored(path: Path) -> Any:
    return json.loads(path.read_text())


SIGNALS = {
    "SIGINT": signal.SIGINT,
    "SIGTERM": signal.SIGTERM,
    "SIGUSR1": signal.SIGUSR1,
    "SIGUSR2": signal.SIGUSR2,
}
