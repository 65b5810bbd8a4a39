"""What a busy machine does to a training with one and with two threads.

    python benchmarks/threads.py [--rounds 1]

Each figure is the mean time of a training step in a process of its own, with nothing beside it,
and beside as many busy processes as there are cores. "waits" is how a thread of OpenMP waits for
the others: GNU's default spins for long, "10,000" spins so many times and then sleeps, as in the
jobs of this project, and "passive" sleeps at once. The last column is the time for which the process
had a core, per step.

`small` trains on batches of 64 images of 3 x 8 x 8, `resnet18` on batches of 16 images of
3 x 32 x 32. About 4 minutes a round on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUSY = "while True: sum(range(100_000))"
POLICIES = {
    "default": {},
    "10,000": {"GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
STEPS = {"small": 200, "resnet18": 8}
BATCH = {"small": 64, "resnet18": 16}


def train(name: str, threads: int) -> None:
    """Print the wall and the CPU seconds of each step, as JSON."""
    sys.path.insert(0, str(ROOT))
    import torch
    from torch.nn import functional

    from dora_train.model import build_model

    torch.set_num_threads(threads)
    size = 8 if name == "small" else 32
    model = build_model(name, 10, size)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images = torch.randn(BATCH[name], 3, size, size)
    labels = torch.randint(10, (BATCH[name],))
    found = []
    for _ in range(STEPS[name]):
        began, cpu = time.perf_counter(), time.process_time()
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append((time.perf_counter() - began, time.process_time() - cpu))
    print(json.dumps(found[len(found) // 4 :]))


def measured(name: str, threads: int, policy: str) -> tuple[float, float]:
    """(wall ms, CPU ms) of a step, as means."""
    done = subprocess.run(
        [sys.executable, __file__, "--train", name, "--threads", str(threads)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), **POLICIES[policy]},
        check=True,
        stdout=subprocess.PIPE,
    )
    steps = json.loads(done.stdout)
    wall = statistics.mean(wall for wall, _ in steps)
    cpu = statistics.mean(cpu for _, cpu in steps)
    return wall * 1e3, cpu * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        train(args.train, args.threads)
        return
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}")
    print("network    threads  waits     beside  ms per step   ms of a core")
    for beside in (0, cores):
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(beside)]
        try:
            for name in STEPS:
                for threads, policy in (
                    (1, "default"),
                    (2, "default"),
                    (2, "10,000"),
                    (2, "passive"),
                ):
                    found = [measured(name, threads, policy) for _ in range(args.rounds)]
                    wall = statistics.median(wall for wall, _ in found)
                    cpu = statistics.median(cpu for _, cpu in found)
                    print(
                        f"{name:10} {threads:7}  {policy:8}  {beside:6}  {wall:11.2f}   {cpu:12.2f}",
                        flush=True,
                    )
        finally:
            for process in busy:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
