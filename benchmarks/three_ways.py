"""Images/s of the three pipelines side by side:

`python benchmarks/three_ways.py`, in the project's root.

What do Lightning, Hydra and Dora cost over the vanilla loop? Each pipeline is a process of its own,
started by its own command line; they take turns of a few steps, so that all meet the same load of
the machine, and one at a time runs. The clock sits where each asks for its next training batch:
whatever a pipeline does between two batches is counted, waiting for its turn is not. Steps: within
the epochs. Epochs: validation, history, loggers and checkpoints as well.

Two processes of the same program differ by a few percent, by where their memory happens to lie.
Hence several rounds, with new processes each, and `basic again`: what it shows over basic is the
error of the measurement.
"""

import argparse
import os
import random
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dora_train.data.batches import Batch, Batches

WAYS = ("basic", "basic again", "pl_hydra", "dora")
TURN = 5  # steps
# Else glibc gives large blocks back to the system in some processes and not in others, by the
# history of their heaps: up to 1,000 page faults a step.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


# --- inside a pipeline's process ---


class Clock:
    """Reports the time that this process has used at each step, and waits for its turn."""

    def __init__(self, orders: int, reports: int):
        self.orders, self.reports = orders, reports
        self.waited, self.ticks = 0.0, 0

    def tick(self, epoch: int, index: int) -> None:
        now = time.perf_counter()
        self.say(f"{epoch} {index} {now - self.waited} {time.process_time()}")
        if self.ticks % TURN == 0:
            self.wait()
        self.ticks += 1
        self.waited += time.perf_counter() - now

    def say(self, line: str) -> None:
        os.write(self.reports, f"{line}\n".encode())

    def wait(self) -> None:
        self.say("your turn")
        os.read(self.orders, 1)


class Timed:
    """The training batches, with the clock at each."""

    def __init__(self, batches: "Batches", clock: Clock):
        self._batches, self._clock = batches, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(
        self, epoch: int = 0, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> "Iterator[Batch]":
        for index, batch in enumerate(self._batches.epoch(epoch, start, rank, world_size)):
            if index == 0:
                self._clock.tick(epoch, 0)
            yield batch
            self._clock.tick(epoch, index + 1)


def be(way: str, orders: int, reports: int, argv: list[str]) -> None:
    """Become one of the pipelines, by its own command line."""
    clock = Clock(orders, reports)
    os.read(orders, 1)
    sys.path.insert(0, str(Path.cwd()))
    from dora_train import data

    load = data.load_data

    def timed(*args: Any, **kwargs: Any) -> Any:
        loaded = load(*args, **kwargs)
        loaded.train = Timed(loaded.train, clock)  # type: ignore[assignment]
        return loaded

    data.load_data = timed
    module = {
        "basic": "basic.train",
        "basic again": "basic.train",
        "pl_hydra": "pl_hydra.train",
        "dora": "dora",
    }[way]
    if way == "dora":
        argv = ["run", *argv]
    sys.argv = [module, *argv]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


# --- around them ---


def arguments(way: str, given: argparse.Namespace) -> list[str]:
    if way.startswith("basic"):
        words = ["--epochs", str(given.epochs), "--threads", str(given.threads)]
        words += ["--model", given.model]
        if given.model_args:
            words += ["--model-args", *given.model_args]
        return words
    return [
        f"trainer.max_epochs={given.epochs}",
        f"threads={given.threads}",
        f"model={given.model}",
        *(f"model_args.{arg}" for arg in given.model_args),
    ]


class Racer:
    """A pipeline's process, seen from outside."""

    def __init__(self, way: str, given: argparse.Namespace, out: str):
        # epoch, index, own wall time, CPU time
        self.ticks: list[tuple[int, int, float, float]] = []
        orders, self._orders = os.pipe()
        self._reports, reports = os.pipe()
        out = str(Path(out) / way.replace(" ", "_"))
        Path(out).mkdir()
        env = (
            os.environ
            | MALLOC
            | {
                "DORA_DIR": out,
                "OMP_NUM_THREADS": str(given.threads),
                "PYTHONDONTWRITEBYTECODE": "1",
            }
        )
        command = [
            sys.executable,
            __file__,
            "--be",
            way,
            str(orders),
            str(reports),
            *arguments(way, given),
        ]
        self.log = open(Path(out) / "log", "w")
        self.process = subprocess.Popen(
            command, env=env, pass_fds=(orders, reports), stdout=self.log, stderr=self.log
        )
        os.close(orders)
        os.close(reports)
        self._lines = os.fdopen(self._reports)

    def turn(self) -> bool:
        """Let it do its next steps. False if it has ended."""
        os.write(self._orders, b".")
        for line in self._lines:
            if line.startswith("your turn"):
                return True
            epoch, index, wall, cpu = line.split()
            self.ticks.append((int(epoch), int(index), float(wall), float(cpu)))
        code = self.process.wait()
        self.log.close()
        if code:
            sys.exit(f"exit code {code}: {Path(self.log.name).read_text()[-2000:]}")
        return False

    def steps(self, clock: int) -> list[float]:
        """Seconds of each step, in order, without the first epoch: it warms up."""
        return [
            after[clock] - before[clock]
            for before, after in zip(self.ticks, self.ticks[1:])
            if before[0] == after[0] > 0
        ]

    def epochs(self, clock: int) -> list[float]:
        """Seconds of each whole epoch, without the first and the last one."""
        starts = [tick[clock] for tick in self.ticks if tick[1] == 0]
        return [after - before for before, after in zip(starts[1:], starts[2:])]


def race(given: argparse.Namespace, out: str) -> dict[str, Racer]:
    racers = {way: Racer(way, given, out) for way in WAYS}
    running = dict(racers)
    while running:
        # no one always comes after the same one
        for way in random.sample(list(running), len(running)):
            if not running[way].turn():
                del running[way]
    return racers


HEAD = (
    "pipeline",
    "ms a step",
    "images/s, steps",
    "over basic",
    "CPU ms a step",
    "over basic",
    "images/s, epochs",
    "over basic",
)


def report(rounds: list[dict[str, Racer]], samples: int) -> list[str]:
    """A markdown table: images/s, and how much longer than `basic` the same steps took.

    Each cell has the median and the range over the rounds.
    """
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    # Lightning does not ask for one after the last
    batches = max(tick[1] for tick in rounds[0]["basic"].ticks)
    for way in WAYS:
        racers, basics = [racers[way] for racers in rounds], [racers["basic"] for racers in rounds]
        step = median_of_medians([racer.steps(2) for racer in racers])
        cpu = median_of_medians([racer.steps(3) for racer in racers])
        epoch = median_of_medians([racer.epochs(2) for racer in racers])
        costs = [
            [over(racer.steps(2), basic.steps(2)) for racer, basic in zip(racers, basics)],
            [over(racer.steps(3), basic.steps(3)) for racer, basic in zip(racers, basics)],
            [over(racer.epochs(2), basic.epochs(2)) for racer, basic in zip(racers, basics)],
        ]
        shown = ["" if way == "basic" else spread(cost) for cost in costs]
        lines.append(
            f"| {way} | {1000 * step:.1f} | {samples / batches / step:,.0f} | {shown[0]} | {1000 * cpu:.1f} | "
            f"{shown[1]} | {samples / epoch:,.0f} | {shown[2]} |"
        )
    return lines


def median_of_medians(rounds: list[list[float]]) -> float:
    return statistics.median(map(statistics.median, rounds))


def over(mine: list[float], basic: list[float]) -> float:
    """The median, over the same steps, of how much longer one took."""
    return statistics.median(one / other for one, other in zip(mine, basic)) - 1


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):+.1%} ({min(values):+.1%} .. {max(values):+.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=6, help="of a round; the first one warms up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="small")
    parser.add_argument("--model-args", nargs="*", default=["width=96"])
    given = parser.parse_args()
    rounds = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as out:
            rounds.append(race(given, out))
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
    samples = 1199  # of the digits, in the training set
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "pytorch-lightning", "hydra-core")
    )
    print(
        f"{given.rounds} rounds of {len(rounds[0]['basic'].steps(2))} steps of {given.model} "
        f"{' '.join(given.model_args)} on digits, {given.threads} threads; {versions}, "
        f"dora-search {version('dora-search')}, Python {sys.version.split()[0]}\n"
    )
    print("\n".join(report(rounds, samples)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--be"]:
        be(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
    else:
        main()
