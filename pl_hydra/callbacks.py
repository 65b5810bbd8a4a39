"""What Lightning alone does not do: resume so that the numbers are those of a run that nobody
stopped.

`Trainer.fit(ckpt_path=...)` restores weights, optimizer, schedule and counters. The order of the
samples, what dropout draws, the metrics so far and a file that is whole after a kill are left to
you: a few lines each.
"""

import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from dora_train.best_so_far import monitored
from dora_train.counters import seed_all
from dora_train.data.batches import Batches

log = logging.getLogger("pl_hydra")
Metrics = dict[str, float]  # {"loss": ..., "acc": ...}


class Epochs:
    """A split of the data as a loader: asks the trainer for the epoch, when the first batch is
    asked for.

    A stock DataLoader draws its order from the global generator: another one after a resume.
        `set_epoch` of a sampler
    is called too late for it with prefetching workers.
    """

    def __init__(self, batches: Batches, trainer: Any = None):
        # no trainer: the set as it is, for validation and test
        self.batches, self.trainer = batches, trainer

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.batches.epoch(
            self.trainer.fit_loop.epoch_progress.current.processed if self.trainer else 0
        )


class SeedEachBatch(pl.Callback):
    """Dropout and the like draw by (seed, epoch, batch), so that it does not matter what the
    process drew before.

    `pl.seed_everything` seeds once: after a resume, the second half of a run would draw what the
    first half did.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int
    ) -> None:
        seed_all("step", self.seed, trainer.current_epoch, index, 0)


class Means:
    """Means over an epoch, every sample counting once; float64, as 32 bits would not give the same
    last digits."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.samples = 0

    def add(self, outputs: dict[str, Tensor], samples: int) -> None:
        """Take in what a step returned: scalars are means over the batch, others have one value a
        sample."""
        for name, value in outputs.items():
            value = value.detach().to(
                torch.float32 if value.device.type == "mps" else torch.float64
            )
            self.sums[name] = self.sums.get(name, 0) + (
                value * samples if value.ndim == 0 else value.sum()
            )
        self.samples += samples

    def metrics(self) -> Metrics:
        return {name: float(total) / self.samples for name, total in self.sums.items()}


class History(pl.Callback):
    """One entry an epoch, from what the steps return; it travels in the checkpoint.

    Lightning's own means (`self.log(on_epoch=True)`) are float32, and those of past epochs are not
    in the checkpoint.
    """

    def __init__(self, path: Path, metric: str, mode: str, stop_on_nan: bool):
        self.path, self.metric, self.mode, self.stop_on_nan = path, metric, mode, stop_on_nan
        self.entries: list[dict[str, Metrics]] = []
        self.train, self.valid, self.test = Means(), Means(), Means()

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        """CSVLogger begins metrics.csv anew with each process: give it what came before.

        The schedule wants it too.
        """
        module.monitored = monitored(self.entries, self.metric, self.mode, measured_only=True)
        for logger in [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]:
            for number, entry in enumerate(self.entries, 1):
                step = trainer.global_step * number // len(self.entries) - 1
                logger.log_metrics({"epoch": number - 1, **flat(entry)}, step)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.train = Means()

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        self.valid = Means()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        # Lightning has divided it by these
        loss = outputs["loss"] * trainer.accumulate_grad_batches
        self.train.add({**outputs, "loss": loss}, len(batch[1]))

    def on_validation_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if not trainer.sanity_checking:
            self.valid.add(outputs, len(batch[1]))

    def on_test_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.test.add(outputs, len(batch[1]))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Lightning validates before this hook, and saves checkpoints after it: the entry is in
        them."""
        means = {"train": self.train.metrics(), "valid": self.valid.metrics()}
        self.valid = Means()
        entry = {split: metrics for split, metrics in means.items() if metrics}
        if self.stop_on_nan and not all(
            math.isfinite(metrics.get("loss", 0)) for metrics in entry.values()
        ):
            raise FloatingPointError(
                f"diverged in epoch {len(self.entries) + 1}: a loss is no number"
            )
        self.entries.append(entry)
        module.monitored = monitored(self.entries, self.metric, self.mode, measured_only=True)
        # for the loggers, and for the monitor of ModelCheckpoint
        module.log_dict(flat(self.entries[-1]))
        write_json(self.path, self.entries)
        log.info(
            "epoch %d/%d  %s",
            len(self.entries),
            trainer.max_epochs,
            " │ ".join(f"{split} {shown(metrics)}" for split, metrics in self.entries[-1].items()),
        )

    def state_dict(self) -> dict[str, Any]:
        return {"entries": self.entries}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.entries = list(state_dict["entries"])
        # after a kill it may be an entry ahead of the checkpoint
        write_json(self.path, self.entries)


def shown(metrics: Metrics) -> str:
    return " ".join(f"{name} {metrics[name]:.3f}" for name in ("loss", "acc") if name in metrics)


def flat(entry: dict[str, Metrics]) -> Metrics:
    """{"valid": {"acc": 1}} as {"valid/acc": 1}:

    TensorBoard groups by what stands before the slash.
    """
    return {
        f"{split}/{metric}": value
        for split, metrics in entry.items()
        for metric, value in metrics.items()
    }


def best_of(entries: list[dict[str, Metrics]], metric: str, mode: str) -> dict[str, Any]:
    """The first epoch (from 1) with the best value of `metric`, e.g. "valid/acc": the one that
    `best.ckpt` is of."""
    values = [
        (epoch, flat(entry)[metric])
        for epoch, entry in enumerate(entries, 1)
        if metric in flat(entry)
    ]
    if not values:
        return {}
    pick = max if mode == "max" else min
    epoch, value = pick(values, key=lambda item: item[1])
    return {"epoch": epoch, **entries[epoch - 1].get("valid", {}), "value": value}


def checkpoints(folder: Path, metric: str, mode: str) -> list[ModelCheckpoint]:
    """`best.ckpt` and `last.ckpt`: two callbacks, in this order.

    One with `monitor` and `save_last` stops writing last.ckpt once the metric stops improving.
    Without `enable_version_counter=False` a resumed run writes last-v1.ckpt. In Lightning 2.6 a
    folder that was moved makes `best` forget its score.
    """
    how: dict[str, Any] = {"enable_version_counter": False, "save_on_train_epoch_end": True}
    return [
        ModelCheckpoint(folder, "best", monitor=metric, mode=mode, save_weights_only=True, **how),
        ModelCheckpoint(folder, "last", **how),
    ]


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole, or not there:

    Lightning's own was unreadable after 6 of 12 kills in the write.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        aside = Path(f"{path}.tmp")
        torch.save(checkpoint, aside)
        replace(aside, Path(path))


def write_json(path: Path, content: Any) -> None:
    aside = Path(f"{path}.tmp")
    aside.write_text(json.dumps(content) + "\n", encoding="utf-8")
    replace(aside, path)


def replace(aside: Path, path: Path) -> None:
    """Put a finished file in its place; without the fsync, a power cut could leave a new name on no
    content."""
    with open(aside, "rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
