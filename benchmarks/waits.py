"""How often does a training step wait for the GPU?

`python benchmarks/waits.py experiment=cifar10_quick data.folder=FOLDER`.

It trains one epoch as `dora run` does, and counts the operations that torch's sync debug mode names
(`torch.cuda.set_sync_debug_mode`), from the fourth batch to the end of the epoch. The words are
overrides of `dora run`. It needs a CUDA GPU.
"""

from __future__ import annotations

import collections
import logging
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytorch_lightning as pl
import recipe
import torch

from dora_train.data import load_data
from dora_train.engine.run import determinism
from dora_train.model import build_model, prepare_model
from dora_train.train import main as train_main

FIRST = 3  # the batch from which on it counts: before, memory is allocated
SHOWN = 4  # frames of the stack


class Waits(pl.Callback):
    """Counts the waits, by the place in the code that waits."""

    def __init__(self) -> None:
        self.steps = 0
        self.places: collections.Counter[str] = collections.Counter()

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, at: int) -> None:
        if at == FIRST:
            # This call is counted itself, so what was counted before it returns is forgotten.
            torch.cuda.set_sync_debug_mode("warn")
            warnings.simplefilter("always")
            warnings.showwarning = self.note
            self.places.clear()
        self.steps += at >= FIRST

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def note(self, message: Warning | str, *_: Any, **__: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            frames = traceback.extract_stack()[:-1]
            names = [f"{frame.filename}:{frame.lineno}" for frame in frames]
            kept = [name for name in names if "/warnings.py" not in name][-SHOWN:]
            self.places[" < ".join(reversed(kept))] += 1


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("It needs a CUDA GPU.")
    overrides = [*sys.argv[1:], "trainer.max_epochs=1", "trainer.limit_val_batches=0"]
    cfg = train_main.get_xp(overrides).cfg
    determinism.ask(cfg)
    data = load_data(**cfg.data, seed=cfg.seed)
    data.train.to("cuda")
    network = build_model(cfg.model, data.num_classes, data.image_size, **cfg.model_args)
    prepare_model(network, data.train)
    network.train()
    waits, build = Waits(), recipe.build_trainer

    def build_and_watch(*args: Any) -> pl.Trainer:
        trainer = build(*args)
        trainer.callbacks.insert(0, waits)
        return trainer

    recipe.build_trainer = build_and_watch
    recipe.ours(cfg, network, recipe.Timed(data.train, len(data.train)))
    print(f"{' '.join(sys.argv[1:])}: {waits.places.total()} waits in {waits.steps} steps")
    for place, number in waits.places.most_common():
        print(f"{number:6} {place}")


if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    main()
