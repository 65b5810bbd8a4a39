"""How long a grid of small experiments takes on this machine's queue, and what the queue costs
while 300 of them wait.

    python benchmarks/grid_speed.py [--experiments 20] [--rounds 1] [--waiting 300]

All in one run, with one thread an experiment, on the CPU. The work of an experiment is the wall
time of `dora run` by itself, from its start to its exit: some are run one at a time before, between
and after the rest, so that all meet the same load. Their median, times the number of experiments,
over the slots, is the ideal. `dora grid` and submitit's LocalExecutor, whose jobs call `dora run`,
start from nothing and end when all is done. submitit has no queue: all run at once. GB: by how much
the machine's free memory fell meanwhile.

What waits is measured with no command open, and without the jobs that run: the queue's own
processes, their memory as PSS, where a shared page counts once. About 3 minutes on 2 idle cores.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import submitit

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("", "tests/engine")]

from grid_project import DORA, GridProject, Machine  # noqa: E402

GRID = '''"""A benchmark's question."""
from dora import Explorer


@Explorer
def explorer(launcher):
    launcher.slurm_(setup={setup}).bind_({{"trainer.max_epochs": {epochs}}})
    for seed in range({count}):
        launcher(seed=seed)
'''


class Bench:
    """A copy of the project with `slots` jobs at a time, and outputs of its own for each thing that
    is measured."""

    def __init__(self, folder: Path, epochs: int, slots: int):
        self.machine, self.epochs, self.count = Machine(folder), epochs, 0
        self.machine.env["CUDA_VISIBLE_DEVICES"] = ""
        self.project = GridProject(folder, self.machine)
        config = self.project.folder / "conf" / "config.yaml"
        text = (
            config.read_text()
            .replace("\nthreads: 2", "\nthreads: 1")
            .replace("\n  jobs: ", f"\n  jobs: {slots} ")
        )
        config.write_text(text)

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

    def write_grid(self, count: int, setup: list[str]) -> None:
        text = GRID.format(setup=setup, epochs=self.epochs, count=count)
        (self.project.folder / "grids" / "bench.py").write_text(text)

    # --- the same work, three ways ---

    def alone(self) -> float:
        """Wall seconds."""
        return timed(lambda: self.call("run", f"trainer.max_epochs={self.epochs}", "seed=0"))[0]

    def grid(self, count: int) -> tuple[float, float]:
        self.write_grid(count, [])
        return timed(lambda: self.call("grid", "bench"))

    def submitit(self, count: int) -> tuple[float, float]:
        return timed(lambda: self._submitit(count))

    def _submitit(self, count: int) -> None:
        env = self.env()
        executor = submitit.LocalExecutor(Path(env["DORA_DIR"]) / "submitit")
        executor.update_parameters(timeout_min=60)
        command = submitit.helpers.CommandFunction(
            [str(DORA), "run", f"trainer.max_epochs={self.epochs}"],
            verbose=False,
            cwd=self.project.folder,
            env=env,
        )
        for job in [executor.submit(command, f"seed={seed}") for seed in range(count)]:
            job.result()

    # --- what waits ---

    def waiting(self, count: int, slots: int, seconds: float) -> str:
        """The cost of the queue's own processes, while `slots` jobs sleep and `count` wait."""
        self.write_grid(count + slots, ["sleep 600"])
        env = self.env()
        self.call("grid", "bench", "--no_monitoring", env=env)
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


def cpu_of(processes: list[psutil.Process]) -> float:
    """Seconds."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """(wall seconds, GB by which the machine's free memory fell at the most)."""
    first, done = psutil.virtual_memory().available, threading.Event()
    free = [first]

    def watch() -> None:
        while not done.wait(0.2):
            free.append(psutil.virtual_memory().available)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        work()
        return time.perf_counter() - began, (first - min(free)) / 1e9
    finally:
        done.set()
        watcher.join()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (
        ("experiments", 20),
        ("epochs", 10),
        ("slots", 2),
        ("rounds", 1),
        ("waiting", 300),
        ("seconds", 20),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), args.epochs, args.slots)
        bench.alone()  # warms the disk's cache
        alone, walls = [bench.alone()], {"dora grid": [], "submitit, all at once": []}
        ways = dict(zip(walls, (bench.grid, bench.submitit)))
        for _ in range(args.rounds):
            for name, way in ways.items():
                walls[name].append(way(args.experiments))
                alone += [bench.alone(), bench.alone()]
        waiting = bench.waiting(args.waiting, args.slots, args.seconds)
    ideal = statistics.median(alone) * args.experiments / args.slots
    print(
        f"{args.experiments} experiments of {args.epochs} epochs, {args.slots} at a time, seconds"
    )
    print(
        f"{'one by itself':<22} {statistics.median(alone):>6.1f}   {min(alone):.1f} .. {max(alone):.1f}"
    )
    print(f"{'ideal':<22} {ideal:>6.1f}")
    for name, results in walls.items():
        wall, memory = (statistics.median(column) for column in zip(*results))
        print(f"{name:<22} {wall:>6.1f}   {wall / ideal:.2f} of ideal   {memory:.1f} GB")
    print(f"{args.waiting} that wait: {waiting}")


if __name__ == "__main__":
    main()
