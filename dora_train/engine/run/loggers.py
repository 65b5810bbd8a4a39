"""TensorBoard and CSV in the experiment's folder, and wandb where asked for, from the same numbers
as the history.

All are continuous over a resume: TensorBoard is told from which step on older events are void, the
CSV file is written anew from the history when a run starts, and the id of a run of wandb is the
signature; of the epochs before, it is given those that it has not got.
"""

import csv
import importlib.util
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from ...best_so_far import metrics_of
from ..config.values import flatten
from ..errors import UserError
from ..experiment.folder import Experiment
from ..files import written_aside
from .history import Entry, History, batches_of


def _tensorboard(folder: Path, void: int) -> Logger:
    """Its events lie in the experiment's folder itself, so that TensorBoard names the run by its
    signature.

    The step is given to a run that starts anew, too: an attempt before it may have logged, and been
        killed before it
    saved.
    """
    in_order(folder)
    return TensorBoardLogger(
        str(folder), name="", version="", default_hp_metric=False, purge_step=void
    )


def in_order(folder: Path) -> None:
    """Have TensorBoard read the files of earlier attempts before the one that is about to be made.

    It reads them by their names, which begin with the second of their start (tensorboard 2.21's
    EventFileWriter), and each says from which step on what was read before is void. On another
    machine, or after its clock was set back, the new one would come first, and its epochs be gone.
    """
    moved, limit = [], int(time.time()) - 1
    for path in sorted(folder.glob("events.out.tfevents.[0-9]*.*"), reverse=True):
        *head, second, rest = path.name.split(".", 4)
        if not second.isdecimal():  # somebody else's
            continue
        limit = min(limit, int(second))
        moved.append((path, path.with_name(".".join([*head, f"{limit:010}", rest]))))
        limit -= 1
    for path, aside in reversed(moved):  # the oldest first: a kill in between changes no order
        path.rename(aside)


def _wandb(folder: Path, void: int) -> Logger:
    """Project, entity and WANDB_MODE=offline come from wandb's own variables."""
    from pytorch_lightning.loggers import WandbLogger

    project = os.environ.get("WANDB_PROJECT", "dora_train")
    return WandbLogger(
        name=folder.name, id=folder.name, project=project, save_dir=str(folder), resume="allow"
    )


# name -> the logger for an experiment's folder; from the optimizer step `void` on, what was logged
# before is void
LOGGERS: dict[str, Callable[[Path, int], Logger]] = {"tensorboard": _tensorboard, "wandb": _wandb}
CSV = "csv"  # ours, and no logger of Lightning's


def check_loggers(names: Sequence[str]) -> None:
    """Raises: UserError for a name that is not known, or a logger that is not installed."""
    known = [CSV, *LOGGERS]
    for name in names:
        if name not in known:
            raise UserError(
                f'unknown logger "{name}": any of {", ".join(known)}, e.g. logger=[csv].'
            )
    if "wandb" in names and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "logger=[wandb] needs wandb, which is not installed: pip install -r requirements-extra.txt"
        )


def lightning_loggers(names: Sequence[str], folder: Path, void: int) -> list[Logger]:
    """Lightning's loggers among `names`.

    Args:
        void: the optimizer step from which on what an earlier attempt logged is void: see
            `Resume.first_void_step`.
    """
    return [LOGGERS[name](folder, void) for name in names if name in LOGGERS]


def log_values(logger: Logger, config: Mapping[str, Any]) -> None:
    """The values of an experiment as its hyper-parameters:

    TensorBoard's HPARAMS tab, wandb's config.

    Lightning's own way writes placeholders for metrics as well; the tab finds those of the epochs
    by itself.
    """
    values = {
        key: value if isinstance(value, (bool, int, float, str)) else str(value)
        for key, value in flatten(config)
    }
    if isinstance(logger, TensorBoardLogger):
        _, start, _ = hparams(values, {})
        logger.experiment.file_writer.add_summary(start)
    else:
        logger.log_hyperparams(values)


class LogHistory(Checkpoint):
    """Gives each new entry of the history to Lightning's loggers and to metrics.csv."""

    def __init__(self, experiment: Experiment, history: History, with_csv: bool):
        self.experiment, self.history = experiment, history
        self.csv = CsvFile(experiment.metrics_csv) if with_csv else None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if self.csv:
            self.csv.rewrite(self.history.entries)
        birth = self.experiment.birth()
        for logger in trainer.loggers:
            log_values(logger, birth.config if birth else {})
            self._catch_up(trainer, logger)

    def _catch_up(self, trainer: Trainer, logger: Logger) -> None:
        """Give wandb the epochs that it has not got: all of them where it is offline.

        wandb 0.31 keeps up to 32 KB in memory, some hundred epochs, which a SIGKILL takes away; and
        each attempt's offline folder is synced by itself. A row is an epoch, so that its count of
        rows says where it is.
        """
        # TensorBoard's has none
        got = getattr(getattr(logger, "experiment", None), "starting_step", None)
        if not isinstance(got, int):
            return
        steps = math.ceil((batches_of(trainer) or 1) / trainer.accumulate_grad_batches)
        for number, entry in enumerate(self.history.entries[got:], got + 1):
            step = entry.get("step", number * steps)
            epoch = math.ceil(step / steps)
            logger.log_metrics({**flat(entry), "epoch": epoch}, step=step)

    def on_entry(self, trainer: Trainer, module: LightningModule) -> None:
        metrics = flat(self.history.entries[-1])
        rates = learning_rates(trainer)
        for logger in trainer.loggers:
            logger.log_metrics(
                {**metrics, **rates, "epoch": self.history.epoch}, step=trainer.global_step
            )
            logger.save()
        if self.csv:
            self.csv.append(self.history.entries)


def learning_rates(trainer: Trainer) -> dict[str, float]:
    """{"lr": ..., "lr/1": ...}: of each group of parameters, of all optimizers."""
    rates: dict[str, float] = {}
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            rates[f"lr/{len(rates)}" if rates else "lr"] = group["lr"]
    return rates


def flat(entry: Entry) -> dict[str, float]:
    """{"train": {"loss": 1}} as {"train/loss": 1}."""
    return {
        f"{split}/{metric}": value
        for split, metrics in metrics_of(entry).items()
        for metric, value in metrics.items()
    }


class CsvFile:
    """One line an entry of the history, one column a metric.

    The first column is the epoch, or the step if the entries have steps.

    A line that a killed run left half is gone at the next start.
    """

    def __init__(self, path: Path):
        self.path = path
        self.columns: list[str] = []

    def rewrite(self, entries: Sequence[Entry]) -> None:
        rows = [self._row(number, entry) for number, entry in enumerate(entries, 1)]
        self.columns = list(dict.fromkeys([name for row in rows for name in row] or ["epoch"]))
        with (
            written_aside(self.path) as aside,
            open(aside, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)

    def append(self, entries: Sequence[Entry]) -> None:
        row = self._row(len(entries), entries[-1])
        if not set(row) <= set(self.columns) or not self.path.exists():
            self.rewrite(entries)
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    @staticmethod
    def _row(number: int, entry: Entry) -> dict[str, Any]:
        place = {"step": entry["step"]} if "step" in entry else {"epoch": number}
        return {**place, **flat(entry)}
