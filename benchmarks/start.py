"""How long from `dora run` to the first training step, and what the imports take of it.

    python benchmarks/start.py [ROUNDS]

Each round runs, one after the other: a bare script that imports the same libraries and does one
step of the same network; and `dora run` with one step. Medians of wall and CPU seconds, and their
ratio pair by pair.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = [
    "submitit",
    "hydra",
    "torch",
    "dora",
    "torchvision",
    "pytorch_lightning",
    "sklearn.datasets",
]
BARE = """
import dora, hydra, pytorch_lightning, torch
from torch.utils.tensorboard import SummaryWriter
from sklearn.datasets import load_digits
from dora_train.model import build_model
torch.set_num_threads(2)
digits = load_digits()
images = torch.from_numpy(digits.images[:64]).float().unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
model = build_model("small", 10)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
torch.nn.functional.cross_entropy(model(images), torch.from_numpy(digits.target[:64]).long()).backward()
optimizer.step()
"""
ONE_STEP = ["trainer.max_steps=1", "trainer.limit_val_batches=0", "trainer.limit_test_batches=0"]


def measured(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """(wall, CPU) seconds of a command, its children included."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    bare, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
        for number in range(rounds + 1):  # the first round warms the disk's cache
            bare.append(measured([sys.executable, "-c", BARE], env))
            dora = env | {"DORA_DIR": f"{folder}/{number}"}
            ours.append(
                measured([str(Path(sys.executable).with_name("dora")), "run", *ONE_STEP], dora)
            )
        print(
            "import                wall s   CPU s   (each in a process of its own, less an empty one)"
        )
        empty = measured([sys.executable, "-c", ""], env)
        for name in IMPORTS:
            times = [measured([sys.executable, "-c", f"import {name}"], env) for _ in range(3)]
            wall, cpu = (statistics.median(column) for column in zip(*times))
            print(f"{name:<20} {wall - empty[0]:>7.2f} {cpu - empty[1]:>7.2f}")
    print(f"\nto the first step and out again, medians of {rounds}")
    for name, times in (("bare script", bare[1:]), ("dora run", ours[1:])):
        wall, cpu = (statistics.median(column) for column in zip(*times))
        print(f"{name:<20} {wall:>7.2f} {cpu:>7.2f}")
    pairs = list(zip(ours[1:], bare[1:]))
    wall = statistics.median(mine[0] / theirs[0] for mine, theirs in pairs)
    cpu = statistics.median(mine[1] / theirs[1] for mine, theirs in pairs)
    print(f"{'ratio':<20} {wall:>7.2f} {cpu:>7.2f}")


if __name__ == "__main__":
    main()
