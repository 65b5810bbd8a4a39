"""What exactness costs: images/s of Lightning's fit with it and without it, on the same loader and network.

    python benchmarks/exactness.py [PAIRS]

With: draws by counter (order, augmentation), all generators seeded at each step, a look at signals and the clock
between two steps. Without: draws from torch's global generator, and neither of the others. Each pair fits both, in
turns, for three epochs, of which the first does not count. Steps here take a few milliseconds: the worst case.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytorch_lightning as pl
import torch

from dora_train import counters
from dora_train.data import load_data
from dora_train.engine.run.boundary import StepBoundary
from dora_train.engine.run.loaders import SameAsOneRank, TrainLoader
from dora_train.engine.run.ranks import Ranks
from dora_train.engine.run.signals import Signals
from dora_train.model import build_model

EPOCHS, REPEATS = 3, 10  # epochs of a fit; how often an epoch goes through the digits


class Speed(pl.Callback):
    """Images/s of each epoch."""

    def __init__(self, images: int):
        self.images, self.speeds = images, []

    def on_train_epoch_start(self, *_):
        self.began = time.perf_counter()

    def on_train_epoch_end(self, *_):
        self.speeds.append(self.images / (time.perf_counter() - self.began))


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = build_model("small", 10)

    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


class Repeated:
    """The digits several times an epoch: one alone takes too short to be measured."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return REPEATS * len(self.batches)

    def epoch(self, epoch, start, rank, world_size):
        for repeat in range(REPEATS):
            yield from self.batches.epoch(REPEATS * epoch + repeat, 0, rank, world_size)


def images_per_second(exact: bool) -> float:
    """The median over the epochs of one fit, without the first."""
    batches = load_data("digits", 64).train
    speed, loader = Speed(REPEATS * batches.num_samples), TrainLoader(Repeated(batches), Ranks())
    own = [SameAsOneRank(Ranks(), 0, counters.seed_all), StepBoundary(Signals(), 1, lambda _: None, 10)]
    loader.trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*(own if exact else []), speed])
    if exact:
        loader.trainer.fit(Module(), loader)
        return statistics.median(speed.speeds[1:])
    with mock.patch("dora_train.augment.integers", lambda samples, bound, *_: torch.randint(bound, samples.shape)), \
            mock.patch("dora_train.batches.permutation", lambda size, *_: torch.randperm(size)):
        loader.trainer.fit(Module(), loader)
    return statistics.median(speed.speeds[1:])


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    images_per_second(True)  # warm
    rows = []
    for number in range(pairs):
        pair = {exact: images_per_second(exact) for exact in ((True, False) if number % 2 else (False, True))}
        rows.append((pair[True], pair[False], pair[True] / pair[False]))
    exact, plain, ratio = (statistics.median(column) for column in zip(*rows))
    print(f"with {exact:,.0f} images/s, without {plain:,.0f}; with / without: {ratio:.3f} "
          f"(medians of {pairs} pairs, torch {torch.__version__}, Lightning {pl.__version__})")


if __name__ == "__main__":
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    main()
