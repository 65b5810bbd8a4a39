"""Images/s of a recipe in a whole run, beside a bare PyTorch loop with the same network:

`python benchmarks/recipe.py experiment=cifar10_quick data.folder=FOLDER`.

Both train epochs of the recipe in one process, in turns: the same network, data in memory,
augmentation, precision and optimizer, on the device that a run would take. The loop does nothing
else. Ours is the trainer of `dora run` with all its callbacks, its metrics, its average of the
weights, TensorBoard, CSV and the checkpoint at the end of each epoch. Neither validates. The clock
runs from the third batch to the end. The time of a step is the time between two batches that are
asked for. Its median does not see the pauses that other programs cause. What is left is the end of
the epochs.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytorch_lightning as pl
import torch
from rich.console import Console
from torch.nn import functional as F

from dora_train.counters import seed_all
from dora_train.data import load_data
from dora_train.data.batches import Batch, Batches
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import RunState
from dora_train.engine.run import determinism
from dora_train.engine.run import session as sessions
from dora_train.engine.run.history import History
from dora_train.engine.run.loaders import TrainLoader
from dora_train.engine.run.ranks import Ranks
from dora_train.engine.run.signals import Signals
from dora_train.engine.run.trainer import build_trainer, prepare
from dora_train.model import build_model, prepare_model
from dora_train.module import Classifier
from dora_train.optim import build_optimizer
from dora_train.train import main as train_main

WARM = 2  # batches of the first epoch before the clock starts


class Timed:
    """The batches of some epochs.

    Attributes:
        began: when the first batch that counts was asked for. 0: not yet.
        seconds: of each step, but for the last one of an epoch.
    """

    def __init__(self, batches: Batches, steps: int):
        self.batches, self.steps, self.began = batches, steps, 0.0
        self.seconds: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def size_of(self, index: int) -> int:
        return self.batches.size_of(index)

    def epoch(self, *place: int) -> Iterator[Batch]:
        asked = 0.0
        for step, batch in enumerate(itertools.islice(self.batches.epoch(*place), self.steps)):
            yield batch
            if step + 1 == WARM and not self.began:
                self.began = now()
            before, asked = asked, time.perf_counter()
            if step >= WARM:
                self.seconds.append(asked - before)

    def images(self, epochs: int) -> int:
        """How many are trained while the clock runs."""
        sizes = list(map(self.size_of, range(self.steps)))
        return epochs * sum(sizes) - sum(sizes[:WARM])


def now() -> float:
    """The time in seconds, once a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def bare(cfg: Any, network: torch.nn.Module, timed: Timed) -> None:
    """The vanilla loop, without anything."""
    network.to(timed.batches.made_on)
    if cfg.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if cfg.compile:
        network.compile()
    optimizer = build_optimizer(network.parameters(), **cfg.optim)
    kind, is_mixed = timed.batches.made_on.type, cfg.trainer.precision == "bf16-mixed"
    for epoch in range(cfg.trainer.max_epochs):
        for images, labels in timed.epoch(epoch):
            with torch.autocast(kind, torch.bfloat16, enabled=is_mixed):
                loss = F.cross_entropy(
                    network(images), labels, label_smoothing=cfg.loss.label_smoothing
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def ours(cfg: Any, network: torch.nn.Module, timed: Timed) -> None:
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(Path(folder) / "00000000")
        experiment.folder.mkdir()
        console = Console(file=open(os.devnull, "w"), force_terminal=True)
        session = sessions.Session(
            experiment, Ranks(), Signals(), RunState(), RunState(), console, train_main.find
        )
        module = Classifier(network, cfg.optim, cfg.schedule, cfg.loss)
        trainer = build_trainer(cfg, session, module, History("valid.acc", "max", 0, 1), 1)
        prepare(module, cfg, trainer)
        trainer.fit(module, TrainLoader(timed, Ranks(), trainer))


class Speed(NamedTuple):
    rate: float  # images per second
    step: float  # the median, in seconds


def speed(way: Any, cfg: Any, data: Any, steps: int) -> Speed:
    seed_all("weights", cfg.seed)
    network = build_model(cfg.model, data.num_classes, data.image_size, **cfg.model_args)
    prepare_model(network, data.train)
    network.train()
    timed = Timed(data.train, steps)
    way(cfg, network, timed)
    rate = timed.images(cfg.trainer.max_epochs) / (now() - timed.began)
    return Speed(rate, statistics.median(timed.seconds))


def where(device: torch.device, threads: int) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{threads} thread(s)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="+", help="as for `dora run`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="of an epoch; 0: all")
    given = parser.parse_args()
    fixed = [f"trainer.max_epochs={given.epochs}", "trainer.limit_val_batches=0"]
    cfg = train_main.get_xp([*given.overrides, *fixed]).cfg
    torch.set_num_threads(cfg.threads)
    determinism.ask(cfg)
    device = torch.device("cpu")
    if determinism.on_cuda(cfg):
        device = torch.device("cuda")
        torch.use_deterministic_algorithms(cfg.deterministic, warn_only=True)
    data = load_data(**cfg.data, seed=cfg.seed)
    data.train.to(device)
    steps = min(given.steps or len(data.train), len(data.train))
    found: dict[Any, list[Speed]] = {bare: [], ours: []}
    for number in range(given.rounds):
        order = (bare, ours) if number % 2 else (ours, bare)
        for way in order:
            found[way].append(speed(way, cfg, data, steps))
    pairs = list(zip(found[ours], found[bare], strict=True))
    print(
        f"{' '.join(given.overrides)}: {where(device, cfg.threads)}, {given.epochs} epochs of {steps} "
        f"steps, {given.rounds} rounds; "
        f"torch {torch.__version__}, Lightning {pl.__version__}\n"
        f"images/s: bare {median_of(found[bare], 'rate'):,.0f}, ours {median_of(found[ours], 'rate'):,.0f}; "
        f"ours / bare {spread([our.rate / plain.rate for our, plain in pairs])}\n"
        f"ms a step: bare {1000 * median_of(found[bare], 'step'):.2f}, "
        f"ours {1000 * median_of(found[ours], 'step'):.2f}; "
        f"bare / ours {spread([plain.step / our.step for our, plain in pairs])}"
    )


def median_of(speeds: list[Speed], name: str) -> float:
    return statistics.median(getattr(one, name) for one in speeds)


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f})"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    main()
