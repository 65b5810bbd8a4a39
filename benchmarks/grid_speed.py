"""What a grid of small experiments costs on this machine's queue, and what the queue costs while 300
of them wait.

    python benchmarks/grid_speed.py [--experiments 40] [--epochs 3] [--submitit 10] [--waiting 300]

All in one run, on the CPU, with one thread an experiment. Four ways to do the same runs:

    training        the fit of each (`Trainer.fit`) in one process that has imported all: the ideal
    dora grid       as it is: jobs start as forks of a process that has imported the libraries
    cold            the same with `local.warm=false`: each job imports for itself
    submitit        submitit's LocalExecutor, whose jobs call `dora run`. It has no queue: all at once

A way starts from nothing, and ends when all is done. CPU seconds are those of all its processes.
GB: by how much the machine's free memory fell meanwhile.

What waits is measured while `slots` jobs train for ever: the queue's own processes without those
jobs, their memory as PSS, where a shared page counts once. About 6 minutes on 2 idle cores.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import submitit

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("", "tests/engine")]

from grid_project import DORA, GridProject, Machine  # noqa: E402

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2): orphans become children of this process

# Train seeds 0 .. N-1 in this process. Prints the seconds of CPU and of the clock in all fits.
FITS = """
import json, sys, time
import pytorch_lightning as pl
from dora_train.train import main

spent, fit = [0.0, 0.0], pl.Trainer.fit

def timed(*args, **kwargs):
    cpu, began = time.process_time(), time.perf_counter()
    fit(*args, **kwargs)
    spent[0] += time.process_time() - cpu
    spent[1] += time.perf_counter() - began

pl.Trainer.fit = timed
count, *values = sys.argv[1:]
for seed in range(int(count)):
    sys.argv[1:] = [*values, f"seed={seed}"]
    main()
print(json.dumps(spent))
"""

GRID = '''"""A benchmark's question."""
from dora import Explorer


@Explorer
def explorer(launcher):
    launcher.bind_({values})
    for seed in range({count}):
        launcher(seed=seed)
'''


class Bench:
    """A copy of the project with `slots` jobs at a time, and outputs of its own for each thing that
    is measured."""

    def __init__(self, folder: Path, epochs: int, slots: int):
        self.machine, self.count = Machine(folder), 0
        self.machine.env["CUDA_VISIBLE_DEVICES"] = ""
        self.project = GridProject(folder, self.machine)
        # as for a user: the first job of a snapshot compiles it for the others
        self.project.env.pop("PYTHONDONTWRITEBYTECODE", None)
        self.values = {"trainer.max_epochs": epochs, "threads": 1, "local.jobs": slots}

    def words(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.values.items()]

    def env(self) -> dict[str, str]:
        self.count += 1
        return {**self.project.env, "DORA_DIR": str(self.project.out / str(self.count))}

    def call(self, *args: str, env: dict[str, str] | None = None) -> None:
        subprocess.run(
            [DORA, *args],
            cwd=self.project.folder,
            env=env or self.env(),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def write_grid(self, count: int, values: dict[str, object] | None = None) -> None:
        text = GRID.format(values=self.values | (values or {}), count=count)
        (self.project.folder / "grids" / "bench.py").write_text(text)

    # --- the same work, four ways ---

    def training(self, count: int) -> Cost:
        done = subprocess.run(
            [sys.executable, "-c", FITS, str(count), *self.words()],
            cwd=self.project.folder,
            env=self.env(),
            check=True,
            stdout=subprocess.PIPE,
        )
        cpu, wall = json.loads(done.stdout.splitlines()[-1])
        return Cost(wall, cpu, 0.0)

    def grid(self, count: int) -> Cost:
        self.write_grid(count)
        return measured(lambda: self.call("grid", "bench"))

    def cold(self, count: int) -> Cost:
        self.write_grid(count, {"local.warm": False})
        return measured(lambda: self.call("grid", "bench"))

    def submitit(self, count: int) -> Cost:
        return measured(lambda: self._submitit(count))

    def _submitit(self, count: int) -> None:
        env = self.env()
        executor = submitit.LocalExecutor(Path(env["DORA_DIR"]) / "submitit")
        executor.update_parameters(timeout_min=60)
        command = submitit.helpers.CommandFunction(
            [str(DORA), "run", *self.words()],
            verbose=False,
            cwd=self.project.folder,
            env=env,
        )
        for job in [executor.submit(command, f"seed={seed}") for seed in range(count)]:
            job.result()

    # --- what waits ---

    def waiting(self, count: int, slots: int, seconds: float) -> str:
        """The cost of the queue's own processes, while `slots` jobs train and `count` wait."""
        self.write_grid(count + slots, {"trainer.max_epochs": 1_000_000})
        env = self.env()
        self.call("grid", "bench", "--no_monitoring", env=env)
        time.sleep(30)  # until the jobs train
        runners = [
            process
            for process in self.machine.processes()
            if "engine.jobs.queue" in " ".join(process.cmdline())
        ]
        before, began = cpu_of(runners), time.perf_counter()
        time.sleep(seconds)
        cpu = (cpu_of(runners) - before) / (time.perf_counter() - began)
        memory = sum(process.memory_full_info().pss for process in runners) / 2**20
        self.machine.kill_all()
        return (
            f"{memory:.1f} MB, {cpu:.1%} of a core (over {seconds:.0f} s), {len(runners)} processes"
        )


class Cost(NamedTuple):
    """What a way costs, for all of its runs."""

    wall: float  # seconds
    cpu: float  # seconds
    memory: float  # GB by which the machine's free memory fell at the most


def cpu_of(processes: list[psutil.Process]) -> float:
    """Seconds."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def measured(work: Callable[[], None]) -> Cost:
    """The cost of some work, with all processes that it leaves behind."""
    first, done = psutil.virtual_memory().available, threading.Event()
    free, before = [first], spent_by_children()

    def watch() -> None:
        while not done.wait(0.2):
            free.append(psutil.virtual_memory().available)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        work()
        wall = time.perf_counter() - began
    finally:
        done.set()
        watcher.join()
    reap()
    return Cost(wall, spent_by_children() - before, (first - min(free)) / 1e9)


def spent_by_children() -> float:
    """CPU seconds of all processes that have ended, and whose end this process has seen."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def reap() -> None:
    """Wait for the processes that have become children of this one."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (
        ("experiments", 40),
        ("epochs", 3),
        ("slots", 2),
        ("submitit", 10),
        ("waiting", 300),
        ("seconds", 20),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), args.epochs, args.slots)
        bench.training(1)  # warms the disk's cache
        print(
            f"experiments of {args.epochs} epochs, {args.slots} at a time; seconds an experiment; "
            f"load {os.getloadavg()[0]:.1f}"
        )
        for name, way, count in (
            ("training", bench.training, args.experiments),
            ("dora grid", bench.grid, args.experiments),
            ("cold", bench.cold, args.experiments),
            ("submitit", bench.submitit, args.submitit),
        ):
            if count:
                cost = way(count)
                print(
                    f"{name:<10} {count:>3} experiments   wall {cost.wall / count:6.2f}   "
                    f"CPU {cost.cpu / count:6.2f}   {cost.memory:.1f} GB",
                    flush=True,
                )
        if args.waiting:
            print(
                f"{args.waiting} that wait: {bench.waiting(args.waiting, args.slots, args.seconds)}"
            )


if __name__ == "__main__":
    main()
