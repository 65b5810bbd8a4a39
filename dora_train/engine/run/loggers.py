"""TensorBoard, CSV and wandb, with the same numbers as the history.

TensorBoard and CSV write into the experiment's folder. All three continue over a resume.
TensorBoard is told the step from which on older events are void. The CSV file is written anew from
the history when a run starts. The id of a run of wandb is the signature, and wandb gets the epochs
that it does not have yet.
"""

import csv
import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from ...best_so_far import metrics_of
from .. import environment
from ..config.values import flatten
from ..errors import UserError
from ..experiment.folder import Experiment
from ..files import written_aside
from .history import Entry, History, batches_of
from .room import Room


def _tensorboard(folder: Path, void: int) -> Logger:
    """Return TensorBoard's logger, with its events in the experiment's folder itself.

    So TensorBoard names the run by its signature.
    """
    in_order(folder)
    # A run that starts anew needs the step, too: an attempt before it may have logged, and been
    # killed before it saved.
    return Events(str(folder), name="", version="", default_hp_metric=False, purge_step=void)


class Events(TensorBoardLogger):
    """TensorBoard's logger. It writes hparams.yaml only if a module saved hyper-parameters.

    Else the file would be empty. The values of an experiment are in birth.json.
    """

    @rank_zero_only
    def save(self) -> None:
        """Bring the events to the disk."""
        if self.hparams:
            super().save()
        else:
            self.experiment.flush()


def in_order(folder: Path) -> None:
    """Rename the event files of earlier attempts, so that TensorBoard reads the next one last.

    TensorBoard reads the files by their names, which begin with the second of their start
    (EventFileWriter of tensorboard 2.21). Each file says from which step on the events read before
    it are void. On another machine, or after its clock was set back, the new file would come first,
    and its epochs would be lost.
    """
    renames, limit = [], int(time.time()) - 1
    for path in sorted(folder.glob("events.out.tfevents.[0-9]*.*"), reverse=True):
        *head, second, rest = path.name.split(".", 4)
        # Another program's file.
        if not second.isdecimal():
            continue
        limit = min(limit, int(second))
        renames.append((path, path.with_name(".".join([*head, f"{limit:010}", rest]))))
        limit -= 1
    # The oldest first: a kill in between changes no order.
    for path, new in reversed(renames):
        path.rename(new)


def _wandb(folder: Path, void: int) -> Logger:
    """Return wandb's logger. The entity and WANDB_MODE=offline come from wandb's own variables."""
    from pytorch_lightning.loggers import WandbLogger

    # The id is the signature, so that an attempt that resumes goes on in the same run of wandb.
    project = environment.wandb_project()
    return WandbLogger(
        name=folder.name, id=folder.name, project=project, save_dir=str(folder), resume="allow"
    )


# {name: makes the logger of (folder of the experiment, first void step)}, see `lightning_loggers`
LOGGERS: dict[str, Callable[[Path, int], Logger]] = {"tensorboard": _tensorboard, "wandb": _wandb}
CSV = "csv"  # ours, and no logger of Lightning's


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that cannot be had.

    Raises:
        UserError: a name is unknown, or a logger is not installed.
    """
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
    """Return Lightning's loggers among `names`.

    Args:
        void: the optimizer step from which on the entries that an earlier attempt logged are void,
            see `Resume.first_void_step`.
    """
    return [LOGGERS[name](folder, void) for name in names if name in LOGGERS]


def log_values(logger: Logger, config: Mapping[str, Any]) -> None:
    """Log the values of an experiment as its hyper-parameters.

    They are in TensorBoard's HPARAMS tab, and in wandb's config.
    """
    values = dict(flatten(config))
    for key, value in values.items():
        if not isinstance(value, (bool, int, float, str)):
            values[key] = str(value)
    # Lightning's own way also writes placeholders for metrics. The tab finds the metrics itself.
    if isinstance(logger, TensorBoardLogger):
        _, start, _ = hparams(values, {})
        logger.experiment.file_writer.add_summary(start)
    else:
        logger.log_hyperparams(values)


class LogHistory(Checkpoint):
    """Gives each new entry of the history to Lightning's loggers and to metrics.csv."""

    def __init__(self, experiment: Experiment, history: History, with_csv: bool, room: Room):
        self.experiment, self.history, self.room = experiment, history, room
        self.csv = CsvFile(experiment.metrics_csv) if with_csv else None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        # It may have entries that are in no checkpoint, or half a line.
        if self.csv:
            self.csv.rewrite(self.history.entries)
        birth = self.experiment.birth()
        for logger in trainer.loggers:
            log_values(logger, birth.config if birth else {})
            self._catch_up(trainer, logger)

    def _catch_up(self, trainer: Trainer, logger: Logger) -> None:
        """Log the entries that wandb does not have yet. If it is offline, these are all of them.

        wandb 0.31 keeps up to 32 KB in memory, some hundred epochs, and loses them at a SIGKILL.
        Each attempt has an offline folder of its own, which is synced by itself.
        """
        # A row is an entry, so the number of rows says where wandb is. TensorBoard has no such
        # number.
        got = getattr(getattr(logger, "experiment", None), "starting_step", None)
        if not isinstance(got, int):
            return
        steps = math.ceil((batches_of(trainer) or 1) / trainer.accumulate_grad_batches)
        for number, entry in enumerate(self.history.entries[got:], got + 1):
            step = entry.get("step", number * steps)
            epoch = math.ceil(step / steps)
            logger.log_metrics({**flat(entry), "epoch": epoch}, step=step)

    def on_entry(self, trainer: Trainer, module: LightningModule) -> None:
        # A logger that has failed once writes nothing any more.
        self.room.ensure()
        metrics = flat(self.history.entries[-1])
        rates = learning_rates(trainer)
        for logger in trainer.loggers:
            logger.log_metrics(
                {**metrics, **rates, "epoch": self.history.epoch}, step=trainer.global_step
            )
            # At once: a run that is killed must not lose what it logged.
            logger.save()
        if self.csv:
            self.csv.append(self.history.entries)


def learning_rates(trainer: Trainer) -> dict[str, float]:
    """Return {"lr": ..., "lr/1": ...}: the rate of each group of parameters of all optimizers."""
    rates: dict[str, float] = {}
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            name = f"lr/{len(rates)}" if rates else "lr"
            rates[name] = group["lr"]
    return rates


def flat(entry: Entry) -> dict[str, float]:
    """Return {"train": {"loss": 1}} as {"train/loss": 1}."""
    found = {}
    for split, metrics in metrics_of(entry).items():
        for metric, value in metrics.items():
            found[f"{split}/{metric}"] = value
    return found


class CsvFile:
    """`metrics.csv`: one line per entry of the history, one column per metric.

    The first column is the epoch, or the step if the entries have steps. A line that a killed run
    wrote in part is gone at the next start, because the file is then written anew.
    """

    def __init__(self, path: Path):
        self.path = path
        self.columns: list[str] = []

    def rewrite(self, entries: Sequence[Entry]) -> None:
        """Write all entries anew."""
        rows = [self._row(number, entry) for number, entry in enumerate(entries, 1)]
        # A dict keeps the order of its keys, and each key once.
        columns: dict[str, None] = {}
        for row in rows:
            columns |= dict.fromkeys(row)
        self.columns = list(columns) or ["epoch"]
        with (
            written_aside(self.path) as aside,
            open(aside, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add the last entry. If it has a new metric, all entries are written anew."""
        row = self._row(len(entries), entries[-1])
        # The header is written once, so a new column needs a new file.
        if not set(row) <= set(self.columns) or not self.path.exists():
            self.rewrite(entries)
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    @staticmethod
    def _row(number: int, entry: Entry) -> dict[str, Any]:
        if "step" in entry:
            return {"step": entry["step"], **flat(entry)}
        return {"epoch": number, **flat(entry)}
