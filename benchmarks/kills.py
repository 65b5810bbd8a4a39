"""Kill a run at random moments, resume it each time, and compare it with an undisturbed one:

`python benchmarks/kills.py optim.lr=0.1 trainer.max_epochs=60 checkpoint.every_minutes=0.005`.

The words after the options are overrides of `dora run`. Both runs train where `dora run` would: on
a GPU if there is one. A kill is SIGKILL. It comes after a random part of the time that the
undisturbed run trained for, counted from the line that names the network. The history, the result
and every tensor of the two checkpoints must be equal. `python -m dora_train.check` compares more,
and trains only two short epochs.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
BEGINS = re.compile(r"parameters\) on ")  # the line before the training
RESUMED = re.compile(r"resumed at [^·\n]*")
FILES = ("history.json", "result.json")
CHECKPOINTS = ("best.ckpt", "last.ckpt")
SHARE = 0.8  # of the undisturbed run's time, in which all kills come


class Run:
    """`dora run` in a folder of its own."""

    def __init__(self, folder: Path, overrides: list[str]):
        command = [sys.executable, "-u", "-m", "dora", "-P", "dora_train", "run", *overrides]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "DORA_DIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.text = ""

    def wait_until_it_trains(self) -> None:
        for line in self._lines():
            if BEGINS.search(line):
                return

    def end(self) -> int:
        """Wait for its end, and return its exit code."""
        for _ in self._lines():
            pass
        return self.process.wait()

    def _lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line
            yield line


def undisturbed(folder: Path, overrides: list[str]) -> float:
    """Train without a kill, and return for how many seconds it trained."""
    run = Run(folder, overrides)
    run.wait_until_it_trains()
    began = time.monotonic()
    if run.end() != 0:
        sys.exit(f"the undisturbed run failed:\n{run.text}")
    return time.monotonic() - began


def disturbed(folder: Path, overrides: list[str], waits: list[float]) -> tuple[int, list[str]]:
    """Kill a run after each of these times in seconds, and then let it end.

    Returns:
        (how often it was killed, the places where it was resumed)
    """
    killed, places = 0, []
    for wait in [*waits, None]:
        run = Run(folder, overrides)
        run.wait_until_it_trains()
        if wait is not None:
            time.sleep(wait)
            killed += run.process.poll() is None
            run.process.kill()
        code = run.end()
        places += RESUMED.findall(run.text)
        if wait is None and code != 0:
            sys.exit(f"the killed run failed at last:\n{run.text}")
    return killed, places


def differences(one: Path, other: Path) -> list[str]:
    """What differs between the folders of two experiments."""
    found = []
    for name in FILES:
        if (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    for name in CHECKPOINTS:
        ours, theirs = tensors_of(one / name), tensors_of(other / name)
        if ours.keys() != theirs.keys():
            found.append(f"{name}: other tensors")
            continue
        differing = [key for key in ours if not torch.equal(ours[key], theirs[key])]
        if differing:
            found.append(f"{name}: {len(differing)} tensors, first {differing[0]}")
    return found


def tensors_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights, the buffers and the state of the optimizers."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    wanted = {key: content[key] for key in ("state_dict", "optimizer_states") if key in content}
    return dict(named_tensors(wanted))


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, part in value.items():
            yield from named_tensors(part, f"{name}.{key}".lstrip("."))


def experiment_in(folder: Path) -> Path:
    [found] = (folder / "xps").iterdir()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="as for `dora run`")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--draw", type=int, default=0, help="another number: other moments")
    given = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        seconds = undisturbed(whole, given.overrides)
        draws, longest = random.Random(given.draw), SHARE * seconds / given.kills
        waits = [draws.uniform(0, longest) for _ in range(given.kills)]
        times, places = disturbed(killed, given.overrides, waits)
        found = differences(experiment_in(whole), experiment_in(killed))
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"{' '.join(given.overrides)}: {where}, torch {torch.__version__}; trained for {seconds:.0f} s, "
        f"killed {times} times, {', '.join(places) or 'never resumed'}\n"
        f"{'the same bits' if not found else 'DIFFERENT: ' + '; '.join(found)}"
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
