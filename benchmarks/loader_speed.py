"""What does it cost to make a DataLoader exact?

    python benchmarks/loader_speed.py [--batches 200] [--rounds 7] [--step 5] [--workers 2]

A plain DataLoader against the same one made exact (dora_train/engine/run/exact_loader.py), in turns
in one process: milliseconds per batch, medians over the rounds, and their ratio. A step of training
is a computation of `--step` milliseconds on one thread. Samples are 32 x 32 images that are flipped
at random, 32 in a batch.

Then the memory of the order of 10 million samples, each in a process of its own: the growth of the
largest resident set until the first batch is there.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dora_train.counters import seed_cpu
from dora_train.engine.run.exact_loader import batches_from


class Flipped(Dataset):
    """Images [3, 32, 32] float32. Half of the readings are mirrored."""

    def __init__(self, size: int):
        self.size, self.image = size, torch.rand(3, 32, 32)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.image.flip(2) if torch.rand(()) < 0.5 else self.image + 0.0


class Numbers(Flipped):
    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        return index


def exact(loader: DataLoader) -> Callable[[], Iterator[Any]]:
    return batches_from(loader, seed_cpu, 0, "train", {}, print).epoch


def work_of(milliseconds: float) -> Callable[[], None]:
    """A computation that takes about that long."""
    a = torch.rand(256, 256)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 0.5:
        a @ a
        count += 1
    products = round(count / 500 * milliseconds)

    def work() -> None:
        for _ in range(products):
            a @ a

    return work


def per_batch(batches: Iterator[Any], step: Callable[[], None]) -> float:
    """Milliseconds, without the start of the workers."""
    next(batches)
    began, count = time.perf_counter(), 0
    for _ in batches:
        step()
        count += 1
    return 1000 * (time.perf_counter() - began) / count


def growth(kind: str) -> float:
    """Megabytes more, at most, until the first of 10 million samples is there."""
    loader = DataLoader(Numbers(10_000_000), 100, shuffle=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batches = exact(loader)() if kind == "exact" else iter(loader)
    next(batches)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--step", type=float, default=5.0, help="milliseconds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", choices=["plain", "exact"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        print(growth(args.memory))
        return
    loader = DataLoader(Flipped(32 * args.batches), 32, shuffle=True, num_workers=args.workers)
    ways = {"plain": loader.__iter__, "exact": exact(loader)}
    step = work_of(args.step)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, batches in ways.items():
            times[way].append(per_batch(iter(batches()), step))
    plain, mine = (statistics.median(times[way]) for way in ways)
    print(f"plain {plain:.2f} ms, exact {mine:.2f} ms per batch: {100 * (mine / plain - 1):+.1f}%")
    for way in ways:
        command = [sys.executable, __file__, "--memory", way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"10 million samples, {way}: {float(done.stdout):.0f} MB")


if __name__ == "__main__":
    main()
