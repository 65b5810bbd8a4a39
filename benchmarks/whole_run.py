"""Images/s of a whole run beside a bare PyTorch loop and stock Lightning:

`python benchmarks/whole_run.py`.

All four train one network, in one process, on the same ready batches, in turns: what differs is
what each does around a step. Ours is the trainer of `dora run` with all its callbacks, checkpoints,
history, TensorBoard, CSV and the bar of a terminal; stock Lightning logs loss and accuracy by
`self.log` at each step and epoch to TensorBoard, with its bar and its checkpoint. The loop alone is
Lightning's as `dora run` has it, with no callback, no logger and no metric: what is there in any
case. The clock runs from the tenth batch until `fit` returns, the epoch's checkpoint included. With
`--gpu`, network and batches are on a GPU, and the clock waits until it has done what it was given.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from pytorch_lightning.loggers import TensorBoardLogger  # noqa: E402
from rich.console import Console  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from dora_train.data import load_data  # noqa: E402
from dora_train.data.batches import Batch  # noqa: E402
from dora_train.engine.experiment.folder import Experiment  # noqa: E402
from dora_train.engine.experiment.records import RunState  # noqa: E402
from dora_train.engine.run import session as sessions  # noqa: E402
from dora_train.engine.run.history import History  # noqa: E402
from dora_train.engine.run.loaders import TrainLoader  # noqa: E402
from dora_train.engine.run.profile import Unasked  # noqa: E402
from dora_train.engine.run.ranks import Ranks  # noqa: E402
from dora_train.engine.run.signals import Signals  # noqa: E402
from dora_train.engine.run.trainer import build_trainer  # noqa: E402
from dora_train.model import build_model  # noqa: E402
from dora_train.module import Classifier  # noqa: E402
from dora_train.train import main as train_main  # noqa: E402

WARM = 10  # batches before the clock starts
DEVICES = {"cpu": "cpu", "gpu": "cuda"}  # of an accelerator of Lightning


class Ready:
    """Batches that are in memory, `steps` of them. `began` is the time of the first that counts."""

    def __init__(self, batches: list[Batch], steps: int):
        self.batches, self.steps, self.began = batches, steps, 0.0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.steps):
            if step == WARM:
                self.began = now()
            yield self.batches[step % len(self.batches)]

    def epoch(self, *_: int) -> Iterator[Batch]:
        return iter(self)

    def size_of(self, index: int) -> int:
        return len(self.batches[index % len(self.batches)][1])


def now() -> float:
    """The time in seconds, once a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def accelerator(network: torch.nn.Module) -> str:
    """Lightning's name for the device that has the network."""
    kind = next(network.parameters()).device.type
    return next(name for name, device in DEVICES.items() if device == kind)


class Plain(pl.LightningModule):
    """A module that does as little as a module can."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_of(self.network)


class Stock(Plain):
    """A module as in Lightning's documentation."""

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        logits = self.network(batch[0])
        loss = F.cross_entropy(logits, batch[1])
        acc = (logits.argmax(1) == batch[1]).float().mean()
        self.log_dict({"loss": loss, "acc": acc}, on_step=True, on_epoch=True, prog_bar=True)
        return loss


def optimizer_of(network: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True
    )


def bare(network: torch.nn.Module, ready: Ready, folder: Path) -> None:
    """The vanilla loop, without anything."""
    optimizer = optimizer_of(network)
    for images, labels in ready:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()


def ours(network: torch.nn.Module, ready: Ready, folder: Path) -> None:
    device = f"trainer.accelerator={accelerator(network)}"
    cfg = train_main.get_xp(["trainer.max_epochs=1", "trainer.limit_val_batches=0", device]).cfg
    experiment = Experiment(folder / "00000000")
    experiment.folder.mkdir(parents=True)
    console = Console(file=open(os.devnull, "w"), force_terminal=True)
    session = sessions.Session(
        experiment, Ranks(), Signals(), RunState(), RunState(), console, train_main.find
    )
    module = Classifier(network, cfg.optim, cfg.schedule, cfg.loss)
    trainer = build_trainer(cfg, session, module, History("valid.acc", "max", 0, 1), 1)
    trainer.fit(module, TrainLoader(ready, Ranks(), trainer))


def alone(network: torch.nn.Module, ready: Ready, folder: Path) -> None:
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator=accelerator(network),
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
    )
    module, trainer.profiler = Plain(network), Unasked()  # type: ignore[assignment]
    trainer.fit(module, ready)


def stock(network: torch.nn.Module, ready: Ready, folder: Path) -> None:
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator=accelerator(network),
        devices=1,
        logger=TensorBoardLogger(str(folder)),
        enable_model_summary=False,
        default_root_dir=str(folder),
    )
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        trainer.fit(Stock(network), ready)


def keep_memory() -> None:
    """Else glibc gives large blocks back to the system, or not, by its heap's history: up to 4 ms
    of page faults."""
    libc = ctypes.CDLL(None)
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 1 << 26)):
        if hasattr(libc, "mallopt"):  # not on macOS
            libc.mallopt(option, value)


def seconds_a_step(way: Callable, network: torch.nn.Module, ready: Ready) -> float:
    with tempfile.TemporaryDirectory() as folder:
        network.train()
        way(network, ready, Path(folder))
        return (now() - ready.began) / (len(ready) - WARM)


def measure(width: int, steps: int, rounds: int, batches: list[Batch]) -> str:
    """A row of the table: medians of the rounds. The four take turns in each round."""
    network = build_model("small", 10, 8, width=width).to(batches[0][0].device)
    ways = (bare, ours, alone, stock)
    found = []
    for number in range(rounds + 1):  # the first round warms up
        order = ways if number % 2 else ways[::-1]
        times = {way: 1000 * seconds_a_step(way, network, Ready(batches, steps)) for way in order}
        found.append([times[way] for way in ways])
    plain, *others = zip(*found[1:])
    ratio = [one / other for one, other in zip(plain, others[0])]
    added = [differences(way, plain) for way in others]
    share = statistics.median(added[0]) / statistics.median(added[-1])
    return (
        f"| {width} | {statistics.median(plain):.2f} | {spread(ratio, '.3f')} | "
        f"{' | '.join(spread(way, '+.2f') for way in added)} | {share:.2f} |"
    )


def differences(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(ones, others)]


def spread(values: list[float], style: str) -> str:
    return f"{statistics.median(values):{style}} ({min(values):{style}} .. {max(values):{style}})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 24, 112])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="of an epoch, about")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args()
    keep_memory()
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    data = load_data("digits", 64).train.to("cuda" if given.gpu else "cpu")
    batches = list(data.epoch())[:-1]
    where = torch.cuda.get_device_name() if given.gpu else f"{given.threads} thread(s)"
    print(
        f"batches of 64 digits, {where}, {given.rounds} rounds; torch {torch.__version__}, "
        f"Lightning {pl.__version__}\n"
    )
    print(
        "| width | bare, ms a step | images/s, ours / bare | ours adds, ms | the loop alone, ms | stock adds, ms | "
        f"ours / stock |\n|{' --- |' * 7}"
    )
    for width in given.widths:
        network = build_model("small", 10, 8, width=width).to(batches[0][0].device)
        probe = seconds_a_step(bare, network, Ready(batches, 40))
        print(
            measure(width, max(100, int(given.seconds / probe)), given.rounds, batches), flush=True
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    main()
