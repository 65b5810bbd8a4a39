"""What does a search find on the digits, against random draws and a grid of as many trials?

    python benchmarks/search.py [--trials 20] [--repetitions 5] [--epochs 5]

Every trial is one training of `basic` in this process: the numbers of `dora run`, without its
start. A repetition is a seed, of the search and of its trainings; the grid's points are the same in
each. Printed for each way: the best validation accuracy after half and after all of the trials, and
the test accuracy of the first trial that reached it; means with 95% intervals (Student's t over the
repetitions), and how often it beat random draws of the same repetition.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from basic.train import experiment_parser, parse, train
from dora_train.engine.search.optimizers import Terms, make
from dora_train.engine.search.outcomes import Objective, Outcome
from dora_train.engine.search.replay import Replay
from dora_train.engine.search.space import Space, log, uniform

SPACE: Space = {
    "lr": log(1e-3, 1.0),
    "momentum": uniform(0.0, 0.99),
    "weight-decay": log(1e-6, 1e-1),
}
# points a dimension, in the middles of equal shares
GRID = {"lr": 5, "momentum": 2, "weight-decay": 2}
WAYS = ["nevergrad", "optuna", "random", "grid"]
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


class Trainings:
    """Trains each point once a seed, whichever way comes upon it."""

    def __init__(self, folder: Path, epochs: int):
        self.folder, self.epochs = folder, epochs
        self.results: dict[str, tuple[float, float]] = {}

    def run(self, values: Mapping[str, Any], seed: int) -> tuple[float, float]:
        """(best validation accuracy, test accuracy of that epoch)."""
        name = f"{seed} {sig(values)}"
        if name not in self.results:
            folder = self.folder / str(len(self.results))
            folder.mkdir()
            argv = [f"--{key}={value}" for key, value in values.items()]
            args = parse(
                experiment_parser(),
                [
                    *argv,
                    f"--epochs={self.epochs}",
                    f"--seed={seed}",
                    "--threads=1",
                    "--model-args",
                    "width=16",
                ],
            )
            result = train(args, folder)
            self.results[name] = result["best"]["acc"], result["test"]["acc"]
        return self.results[name]


def sig(values: Mapping[str, Any]) -> str:
    return repr(sorted(values.items()))


def grid_points() -> list[dict[str, Any]]:
    middles = [middles_of(key, count) for key, count in GRID.items()]
    return [dict(zip(GRID, values)) for values in itertools.product(*middles)]


def middles_of(key: str, count: int) -> list[Any]:
    """The middles of `count` equal parts of a dimension."""
    dimension = SPACE[key]
    return [dimension.rounded(dimension.at((place + 0.5) / count)) for place in range(count)]


def searched(
    way: str, seed: int, trials: int, trainings: Trainings
) -> Iterator[tuple[float, float]]:
    """What each trial reached, in turn."""
    if way == "grid":
        points = grid_points()
        assert len(points) == trials, (
            f"the grid has {len(points)} points: an equal budget is wanted"
        )
        yield from (trainings.run(values, seed) for values in points)
        return
    outcomes: dict[str, Outcome] = {}
    replay = Replay(
        make(way, Terms(SPACE, Objective("valid.acc", "max"), seed, trials, 1)), outcomes, sig
    )
    for _ in range(trials):
        trial = replay.ask(1)
        assert trial is not None
        reached = trainings.run(trial.values, seed)
        outcomes[trial.sig] = Outcome(reached[0], (reached[0],))
        yield reached


def best_of(run: list[tuple[float, float]]) -> tuple[float, float]:
    """The trial that a person would take: by the validation set alone."""
    return max(run, key=lambda reached: reached[0])


def interval(values: list[float]) -> str:
    """`0.934 ± 0.011`."""
    half = T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    began, reached = time.monotonic(), {way: [] for way in WAYS}  # type: dict[str, list[list[tuple[float, float]]]]
    with tempfile.TemporaryDirectory() as folder:
        trainings = Trainings(Path(folder), args.epochs)
        for seed in range(args.repetitions):
            for way in WAYS:
                reached[way].append(list(searched(way, seed, args.trials, trainings)))
                print(
                    f"{time.monotonic() - began:5.0f} s  seed {seed}  {way:<10} {best_of(reached[way][-1])}",
                    file=sys.stderr,
                )
    print(
        f"| way | best valid acc of {args.trials // 2} | of {args.trials} | its test acc | better than random |"
    )
    print("| --- | --- | --- | --- | --- |")
    for way in WAYS:
        half = [best_of(run[: args.trials // 2])[0] for run in reached[way]]
        best, test = zip(*map(best_of, reached[way]))
        wins = sum(mine > best_of(other)[0] for mine, other in zip(best, reached["random"]))
        against = "" if way == "random" else f"{wins} of {args.repetitions}"
        print(
            f"| {way} | {interval(half)} | {interval(list(best))} | {interval(list(test))} | {against} |"
        )


if __name__ == "__main__":
    main()
