"""What exactness costs: images/s of Lightning's fit with it and without it, on the same loader and
network; and what part of the training time checkpoints take at the defaults, where an epoch takes
20 s.

    python benchmarks/exactness.py [PAIRS]
    python benchmarks/exactness.py checkpoints [MODEL ...]

With: draws by counter (order, augmentation), all generators seeded at each step, a look at signals
and the clock between two steps. Without: draws from torch's global generator, and neither of the
others. Both with Lightning's loop as `dora run` has it, and one thread. Each pair fits both, in
turns, for seven epochs, of which the first does not count. Steps here take a few milliseconds: the
worst case. 25 pairs take about 2 minutes.

Checkpoints are written into DORA_DIR, else the temporary folder: on a disk, not in memory. Training
stands still while one is written, so that the time within the callback is all that it costs. Each
epoch is the best here, and writes both files: the worst case again. Longer epochs have one every 10
minutes beside that at their end, and pay less.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytorch_lightning as pl
import torch

from dora_train import counters
from dora_train.data import load_data
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.run.boundary import StepBoundary
from dora_train.engine.run.checkpoints import AtomicCheckpointIO, Checkpoints
from dora_train.engine.run.history import History
from dora_train.engine.run.loaders import TrainLoader
from dora_train.engine.run.profile import Unasked
from dora_train.engine.run.ranks import Ranks
from dora_train.engine.run.room import Room
from dora_train.engine.run.same_as_one_rank import SameAsOneRank
from dora_train.engine.run.signals import Signals
from dora_train.model import build_model

EPOCHS, REPEATS = 7, 5  # epochs of a fit; how often an epoch goes through the digits
# seconds of an epoch between checkpoints; epochs, of which the first does not count
LONG, LONG_EPOCHS = 20, 5


class Speed(pl.Callback):
    """Images/s of each epoch."""

    def __init__(self, images: int):
        self.images, self.speeds = images, []

    def on_train_epoch_start(self, *_):
        self.began = time.perf_counter()

    def on_train_epoch_end(self, *_):
        self.speeds.append(self.images / (time.perf_counter() - self.began))


class Module(pl.LightningModule):
    def __init__(self, model: str = "small"):
        super().__init__()
        self.model = build_model(model, 10, 8)

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
    speed = Speed(REPEATS * batches.num_samples)
    own = [
        SameAsOneRank(Ranks(), 0, counters.seed_all),
        StepBoundary(Signals(), 1, SimpleNamespace(save_last=lambda _: None), 10),
    ]
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=exact,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*(own if exact else []), speed],
    )
    module, trainer.profiler = Module(), Unasked()
    loader = TrainLoader(Repeated(batches), Ranks(), trainer)
    if exact:
        trainer.fit(module, loader)
        return statistics.median(speed.speeds[1:])
    with (
        mock.patch(
            "dora_train.data.augment.integers",
            lambda samples, bound, *_: torch.randint(bound, samples.shape),
        ),
        mock.patch("dora_train.data.batches.permutation", lambda size, *_: torch.randperm(size)),
    ):
        trainer.fit(module, loader)
    return statistics.median(speed.speeds[1:])


# --- checkpoints ---


class TimedCheckpoints(Checkpoints):
    """Seconds of each epoch without its checkpoints, and of these."""

    def __init__(self, experiment: Experiment, history: History):
        room = Room(experiment.folder, 0, print, Signals())
        super().__init__(experiment, history, True, 1, lambda: None, room)
        self.training, self.saving = [], []

    def on_train_epoch_start(self, *_):
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer, module):
        began, self.history.improved = time.perf_counter(), True
        super().on_train_epoch_end(trainer, module)
        self.saving.append(time.perf_counter() - began)
        self.training.append(began - self.began)


class Steps:
    """So many batches of digits an epoch."""

    def __init__(self, batches, steps: int):
        self.batches, self.steps = batches, steps

    def __len__(self):
        return self.steps

    def epoch(self, epoch, start, rank, world_size):
        for step in range(start, self.steps):
            if step % len(self.batches) == 0 or step == start:
                passes = self.batches.epoch(epoch + step, 0, rank, world_size)
            yield next(passes)


def fitted(model: str, steps: int, epochs: int) -> tuple[TimedCheckpoints, float]:
    """(the times of a fit with checkpoints at the defaults, MB of an epoch's files)."""
    batches = Steps(load_data("digits", 64).train, steps)
    with tempfile.TemporaryDirectory(dir=os.environ.get("DORA_DIR")) as folder:
        experiment, history = Experiment(Path(folder) / "xp"), History("train.loss", "min", 0, 1)
        checkpoints = TimedCheckpoints(experiment, history)
        boundary = StepBoundary(Signals(), 1, checkpoints, 10)
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[
                SameAsOneRank(Ranks(), 0, counters.seed_all),
                history,
                boundary,
                checkpoints,
            ],
            plugins=[AtomicCheckpointIO(checkpoints.room)],
            default_root_dir=folder,
        )
        trainer.fit(Module(model), TrainLoader(batches, Ranks(), trainer))
        files = experiment.last_checkpoint, experiment.best_checkpoint
        return checkpoints, sum(path.stat().st_size for path in files) / 1e6


def checkpoint_cost(model: str) -> None:
    steps = math.ceil(LONG / statistics.median(fitted(model, 20, 3)[0].training) * 20)
    times, size = fitted(model, steps, LONG_EPOCHS)
    training, saving = times.training[1:], times.saving[1:]
    parts = [save / train for save, train in zip(saving, training)]
    spread = f"{min(saving) * 1000:.0f} .. {max(saving) * 1000:.0f}"
    print(
        f"{model}: checkpoints of {size:.1f} MB an epoch take {statistics.median(saving) * 1000:.0f} ms ({spread}), "
        f"the rest of it {statistics.median(training):.1f} s: {statistics.median(parts):.2%} "
        f"(medians of {len(parts)} epochs, torch {torch.__version__})"
    )


# --- images/s ---


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(2 if sys.argv[1:2] == ["checkpoints"] else 1)
    if sys.argv[1:2] == ["checkpoints"]:
        for model in sys.argv[2:] or ["small", "resnet18"]:
            checkpoint_cost(model)
        return
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    images_per_second(True)  # warm
    rows = []
    for number in range(pairs):
        pair = {
            exact: images_per_second(exact)
            for exact in ((True, False) if number % 2 else (False, True))
        }
        rows.append(
            (
                pair[True],
                pair[False],
                pair[True] / pair[False],
                64e6 * (1 / pair[True] - 1 / pair[False]),
            )
        )
    exact, plain, ratio, added = (statistics.median(column) for column in zip(*rows))
    spread = f"{min(row[2] for row in rows):.3f} .. {max(row[2] for row in rows):.3f}"
    print(
        f"with {exact:,.0f} images/s, without {plain:,.0f}; with / without: {ratio:.3f} ({spread}), "
        f"{added:+.0f} us a step (medians of {pairs} pairs, torch {torch.__version__}, Lightning {pl.__version__})"
    )


if __name__ == "__main__":
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    main()
