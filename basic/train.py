"""The whole pipeline in vanilla PyTorch:

`python -m basic.train --lr 0.1 --epochs 30 --model mobilenet_v2`.

To be read top to bottom, in ten minutes: the arguments and the name they give, the files, the
training, and the main that holds it together. `pl_hydra/` does the same with Lightning and Hydra,
`dora_train/` with Dora as well; all three take data, model and optimizer from `dora_train`, and get
the same numbers.
"""

import argparse
import ast
import difflib
import json
import logging
import os
import re
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.nn import functional as F

from dora_train.best_so_far import monitored
from dora_train.counters import seed_all
from dora_train.data import Data, check_data, load_data
from dora_train.data.batches import Batches
from dora_train.data.image_list import NEWEST_RULES, OLDEST_RULES
from dora_train.data_error import DataError
from dora_train.model import WithAuxiliary, build_model, check_model, prepare_model
from dora_train.optim import SCHEDULES, Schedule, build_optimizer, check_training

log = logging.getLogger("basic")
Metrics = dict[str, float]  # {"loss": ..., "acc": ...}
# As conf/config.yaml has it: what is not to change a result does not name it.
NOT_IN_NAME = ("threads", "data_args.folder", "data_args.num_workers", "data_args.max_gb")
# what a restart removes
FILES = ("args.json", "last.ckpt", "best.ckpt", "history.json", "result.json")


# --- 1. arguments: every choice has a name, a type, a default and a line of help ---


class Parser(argparse.ArgumentParser):
    """argparse's, with a mistake told in one line: what was given, and what is near."""

    def error(self, message: str) -> NoReturn:
        near: list[str] = []
        if message.startswith("unrecognized"):
            options = re.findall(r"--[\w-]+", self.format_help())
            near = difflib.get_close_matches(message.split()[2].partition("=")[0], options, n=1)
        self.exit(2, message + (f": did you mean {near[0]}?" if near else "") + "\n")


def experiment_parser() -> Parser:
    """What makes an experiment. The defaults are those of conf/, and a test compares them."""
    # No abbreviations: `--w 3` would change its meaning the day a second flag begins with w.
    parser = Parser(
        description="Train a classifier.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--seed", type=int, default=0, help="same seed, same numbers")
    add("--tag", help="a free word, for a run that is to be another one")
    add(
        "--model",
        default="small",
        help="small, or any torchvision classifier: resnet18, mobilenet_v2 ...",
    )
    add(
        "--model-args",
        nargs="*",
        type=key_value,
        default={},
        action=AsDict,
        metavar="KEY=VALUE",
        help="keywords of the model, e.g. width=64 for small",
    )
    add("--data", default="digits", help="digits, cifar10, mnist, fashion_mnist or image_folder")
    add(
        "--data-args",
        nargs="*",
        type=key_value,
        default={},
        action=AsDict,
        metavar="KEY=VALUE",
        help="keys of its file in conf/data, e.g. crop=0",
    )
    add("--batch-size", type=int, default=64, help="samples of a batch")
    add(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="another draw for a sample each epoch",
    )
    add("--optim", choices=["sgd", "adam", "adamw"], default="sgd", help="optimizer")
    add("--lr", type=float, default=0.05, help="peak learning rate")
    add("--momentum", type=float, default=0.9, help="sgd only")
    add("--weight-decay", type=float, default=5e-4, help="L2 for sgd and adam, decoupled for adamw")
    add("--schedule", choices=SCHEDULES, default="cosine", help="of the learning rate")
    add("--warmup-epochs", type=float, default=1.0, help="epochs from 0 up to --lr, fractions too")
    add(
        "--patience",
        type=int,
        default=5,
        help="plateau: epochs without a better valid accuracy before a cut",
    )
    add(
        "--factor",
        type=float,
        default=0.1,
        help="plateau: what a cut multiplies the learning rate by",
    )
    add(
        "--label-smoothing",
        type=float,
        default=0.0,
        help="share of the target that all classes divide; in training",
    )
    add("--epochs", type=int, default=20, help="epochs")
    add(
        "--accelerator",
        choices=["auto", "cpu", "gpu", "mps"],
        default="auto",
        help="what to train on",
    )
    add(
        "--threads",
        type=int,
        default=1,
        help="CPU threads; frozen when an experiment is made: it changes sums",
    )
    return parser


def key_value(text: str) -> tuple[str, Any]:
    """`width=64` -> ("width", 64); what Python does not read as a value is text."""
    key, equals, value = text.partition("=")
    if not key.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f'"{text}" is not KEY=VALUE, e.g. width=64')
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


class AsDict(argparse.Action):
    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, dict(values))


def parse(parser: Parser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments that can be trained with.

    What can be wrong is found here, before anything is on disk.
    """
    args = parser.parse_args(argv)
    if args.epochs < 1 or args.threads < 1:
        parser.error("--epochs and --threads take 1 or more")
    try:
        check_data(**data_of(args))
        check_training(
            optim_of(args),
            schedule_of(args),
            {"max_epochs": args.epochs, "max_steps": -1},
            {"label_smoothing": args.label_smoothing},
        )
        check_model(args.model, **args.model_args)
        device_of(args.accelerator)
    except ValueError as error:
        parser.error(str(error).splitlines()[0])
    return args


def data_of(args: argparse.Namespace) -> dict[str, Any]:
    own = dict(args.data_args)
    if args.data != "digits":  # which come with scikit-learn; all others are in files
        own.setdefault("folder", os.environ.get("DORA_TRAIN_DATA"))
    return {"name": args.data, "batch_size": args.batch_size, "augment": args.augment, **own}


def optim_of(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "name": args.optim,
        "lr": args.lr,
        "momentum": args.momentum,
        "weight_decay": args.weight_decay,
    }


def schedule_of(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "name": args.schedule,
        "warmup_epochs": args.warmup_epochs,
        "patience": args.patience,
        "factor": args.factor,
    }


def device_of(accelerator: str) -> torch.device:
    """Raises: ValueError where what was asked for is not there: nothing trains on the CPU in
    silence."""
    there = {
        "gpu": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    chosen = (
        next(name for name, is_there in there.items() if is_there)
        if accelerator == "auto"
        else accelerator
    )
    if not there[chosen]:
        raise ValueError(f"--accelerator {accelerator}: torch sees no such device here")
    return torch.device("cuda" if chosen == "gpu" else chosen)


# --- 2. the name: the same arguments always lead to the same folder, hence to the same experiment
# ---


def name_of(args: argparse.Namespace) -> str:
    """The arguments that differ from their defaults:

    `lr=0.1,epochs=30`. Two experiments never share a name.
    """
    defaults = dict(flat(vars(experiment_parser().parse_args([])))).items()
    parts = [
        f"{key}={quote(str(value), safe='')}"  # a slash or a comma of a tag becomes %2F, %2C
        for key, value in flat(vars(args))
        if key not in NOT_IN_NAME and (key, value) not in defaults
    ]
    name = ",".join(parts) or "default"
    # File systems end a name at 255 bytes; the hash tells long names apart.
    return name if len(name) <= 200 else f"{name[:190]}~{zlib.crc32(name.encode()):08x}"


def flat(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"model_args": {"width": 64}} as ("model_args.width", 64), for the arguments of an
    experiment."""
    for key in vars(experiment_parser().parse_args([])):
        if isinstance(values[key], dict):
            yield from ((f"{key}.{inner}", values[key][inner]) for inner in sorted(values[key]))
        else:
            yield key, values[key]


def folder_of(args: argparse.Namespace) -> Path:
    return root() / name_of(args)


def root() -> Path:
    return Path(os.environ.get("DORA_DIR") or "outputs") / "basic"


# --- 3. files: a reader, or the next attempt after a kill, sees the old file or the new one, and
# always a whole one ---


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path to write to. Renaming is atomic; without the fsync, a power cut could leave a new name
    on no content."""
    aside = path.with_name(f".{path.name}.tmp")
    yield aside
    with open(aside, "rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)


def write_json(path: Path, content: Any) -> None:
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content) + "\n", encoding="utf-8")


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Tensors and plain Python only, so that `torch.load(weights_only=True)` takes it: unpickling
    more runs code."""
    with written_aside(path) as aside:
        torch.save(content, aside)


def read_json(path: Path) -> Any:
    """None where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


# --- 4. training ---


class Means:
    """Means over an epoch, every sample counting once: batches differ in size.

    The sums stay on the device: reading one (`item()`) makes the CPU wait for the GPU, once an
        epoch is enough.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(
            2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device
        )
        self.count = 0

    def add(self, loss: Tensor, correct: Tensor, samples: int) -> None:
        """Take in a batch's summed loss and its number of correct answers."""
        self.sums += torch.stack([loss, correct]).detach()
        self.count += samples

    def metrics(self) -> Metrics:
        loss, correct = self.sums.tolist()
        return {"loss": loss / self.count, "acc": correct / self.count}


def train_epoch(
    model: nn.Module,
    data: Data,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    history: list[dict[str, Metrics]],
    args: argparse.Namespace,
    device: torch.device,
) -> Metrics:
    """One pass over the training set."""
    epoch, metric = len(history), monitored(history, "valid.acc", "max")
    model.train()  # dropout on, batch norm takes its statistics from the batch
    means, said = Means(device), time.monotonic()
    for index, (images, labels) in enumerate(data.train.epoch(epoch)):
        # Randomness is a function of where the training is, never of what the process drew before.
        # So a run that was killed goes on with the same numbers, and no generator's state has to be
        # saved.
        seed_all("step", args.seed, epoch, index, 0)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * schedule(epoch * len(data.train) + index, metric)
        outputs = model(images)
        logits = outputs.logits if isinstance(outputs, WithAuxiliary) else outputs
        loss = losses_of(outputs, labels, args.label_smoothing).mean()
        optimizer.zero_grad()  # backward adds to the gradients that are there
        loss.backward()
        optimizer.step()
        means.add(
            loss.to(means.sums.dtype) * len(labels), (logits.argmax(1) == labels).sum(), len(labels)
        )
        if time.monotonic() - said > 5:
            said = time.monotonic()
            log.info("epoch %d, batch %d of %d", epoch + 1, index + 1, len(data.train))
    return means.metrics()


def losses_of(outputs: Tensor | WithAuxiliary, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """[B] float32: the loss of each sample.

    In training, googlenet and inception_v3 give further outputs.
    """
    if isinstance(outputs, WithAuxiliary):
        others = [losses_of(logits, labels, smoothing) for logits in outputs.others]
        return losses_of(outputs.logits, labels, smoothing) + outputs.weight * sum(others)
    return F.cross_entropy(outputs, labels, reduction="none", label_smoothing=smoothing)


@torch.inference_mode()  # no graph is kept for gradients: less memory, more speed
def evaluate(model: nn.Module, batches: Batches, device: torch.device) -> Metrics:
    # dropout off, batch norm with its running statistics: a sample's answer depends on it alone
    model.eval()
    means = Means(device)
    for images, labels in batches.epoch():
        logits = model(images)
        losses = losses_of(logits, labels)
        means.add(
            losses.to(means.sums.dtype).sum(), (logits.argmax(1) == labels).sum(), len(labels)
        )
    return means.metrics()


def best_of(history: list[dict[str, Metrics]]) -> dict[str, Any]:
    """The first epoch (from 1) with the best validation accuracy."""
    epoch, entry = max(enumerate(history, 1), key=lambda item: item[1]["valid"]["acc"])
    return {"epoch": epoch, **entry["valid"], "value": entry["valid"]["acc"]}


def resume(
    folder: Path, weights: nn.Module, optimizer: torch.optim.Optimizer
) -> list[dict[str, Metrics]]:
    """Take up what the last attempt left, and return its history; an epoch that was cut short is
    done again.

    This is all that the past has to say to the future: weights, the optimizer's momenta, and the
        metrics so far.
    """
    if not (folder / "last.ckpt").exists():
        return []
    checkpoint = torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)
    weights.load_state_dict(checkpoint["state_dict"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    history = checkpoint["history"]
    # it may be an entry behind: see the order in `save`
    write_json(folder / "history.json", history)
    log.info("resumed at epoch %d", len(history) + 1)
    return history


def save(
    folder: Path,
    weights: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: list[dict[str, Metrics]],
) -> None:
    """Write down an epoch.

    A kill between two of these writes leaves files that the next attempt mends, because of their
        order: last.ckpt is
    what it goes on from; what is written before that is made again as it was, what is written after
    follows from it.
    """
    if best_of(history)["epoch"] == len(history):
        write_checkpoint(
            folder / "best.ckpt", {"state_dict": weights.state_dict(), "epoch": len(history)}
        )
    write_checkpoint(
        folder / "last.ckpt",
        {
            "state_dict": weights.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": history,
        },
    )
    write_json(folder / "history.json", history)


def train(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train from where the last attempt stopped to the end; then measure the best epoch on the test
    set, once."""
    device = device_of(args.accelerator)
    torch.set_num_threads(args.threads)  # the order of a sum, hence its last bits, depends on it
    seed_all("weights", args.seed)
    data = load_data(**data_of(args), seed=args.seed).to(device)
    model = build_model(args.model, data.num_classes, data.image_size, **args.model_args).to(device)
    prepare_model(model, data.train)
    data.train.check(model)
    optimizer = build_optimizer(model.parameters(), **optim_of(args))
    steps = len(data.train)
    schedule = Schedule(**schedule_of(args), steps_per_epoch=steps, total_steps=args.epochs * steps)
    size = sum(parameter.numel() for parameter in model.parameters())
    log.info(
        "%s (%s parameters) on %s · %s, %d threads",
        args.model,
        f"{size:,}",
        data,
        device,
        args.threads,
    )

    # in files the weights are called model.*, as Lightning calls them
    weights = nn.ModuleDict({"model": model})
    history = resume(folder, weights, optimizer)
    for epoch in range(len(history), args.epochs):
        began = time.monotonic()
        history.append(
            {
                "train": train_epoch(model, data, optimizer, schedule, history, args, device),
                "valid": evaluate(model, data.valid, device),
            }
        )
        save(folder, weights, optimizer, history)
        log.info(
            "epoch %d/%d  %s  %.1f s",
            epoch + 1,
            args.epochs,
            shown(history[-1]),
            time.monotonic() - began,
        )

    # The test set is looked at once, with the epoch that the validation set chose: choosing by the
    # test set would make its number a better one than new data will give.
    weights.load_state_dict(
        torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    )
    result = {
        "best": best_of(history),
        "test": evaluate(model, data.test, device),
        "epochs": len(history),
        "steps": len(history) * steps,
        "reason": "max_epochs",
    }
    # the last act: where this file is, there is nothing left to do
    write_json(folder / "result.json", result)
    return result


def shown(entry: dict[str, Metrics]) -> str:
    return " │ ".join(
        f"{split} loss {of['loss']:.3f} acc {of['acc']:.3f}" for split, of in entry.items()
    )


# --- 5. main: one experiment, once ---


def main(argv: Sequence[str] | None = None) -> None:
    parser = experiment_parser()
    parser.add_argument(
        "--restart", action="store_true", help="forget what this experiment has computed so far"
    )
    args = parse(parser, argv)
    start(args, folder_of(args), args.restart)


def start(args: argparse.Namespace, folder: Path, restart: bool = False) -> None:
    """Enter the experiment, and leave it with a code that tells how it went."""
    folder.mkdir(parents=True, exist_ok=True)
    log_to(folder / "train.log")
    try:
        # Two processes that write the same files would ruin both. The kernel frees the lock when
        # its holder dies.
        with FileLock(folder / ".lock", timeout=1):
            if restart:
                for name in FILES:
                    (folder / name).unlink(missing_ok=True)
            run(args, folder)
    except Timeout:
        sys.exit(f"{folder} is being trained by another process: see {folder / 'train.log'}")
    except KeyboardInterrupt:
        log.info(
            "interrupted · the same command goes on from epoch %d",
            len(read_json(folder / "history.json") or []),
        )
        sys.exit(130)  # what a shell expects of Ctrl-C: 128 + the signal's number
    except DataError as error:  # files that are missing or broken: the message says what to do
        log.error("%s", error)
        sys.exit(1)
    except Exception:
        log.exception("failed")  # on the terminal, and in the log, where it still is tomorrow
        sys.exit(1)


def log_to(path: Path) -> None:
    """To the terminal and to a file: the one is gone when something went wrong, the other is not
    looked at."""
    # a terminal of another encoding shows ? for the letters that it lacks
    sys.stdout.reconfigure(errors="replace")
    handlers: list[logging.Handler] = [
        logging.StreamHandler(sys.stdout),
        logging.FileHandler(path, encoding="utf-8"),
    ]
    handlers[1].setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=handlers, format="%(message)s", force=True)


def run(args: argparse.Namespace, folder: Path) -> None:
    """Train, unless it is done; refuse where the name means something else by now."""
    freeze(args, folder / "args.json")
    result = read_json(folder / "result.json")
    if result:
        log.info(
            "%s  finished · best valid acc %.3f · nothing to do · to run anew: --restart",
            folder,
            result["best"]["acc"],
        )
        return
    log.info("%s  %s", folder, "resumes" if (folder / "last.ckpt").exists() else "new")
    result = train(args, folder)
    log.info(
        "finished · best valid acc %.3f @%d · test acc %.3f",
        result["best"]["acc"],
        result["best"]["epoch"],
        result["test"]["acc"],
    )


def freeze(args: argparse.Namespace, path: Path) -> None:
    """Keep the arguments that an experiment was made with; a default that was edited since makes it
    another one."""
    given = dict(flat(vars(args)))
    frozen = read_json(path)
    if frozen is None:
        write_json(path, {"data_args.rules": NEWEST_RULES, **given})
        return
    args.threads = frozen["threads"]
    if args.data == "image_folder":  # other rules would hold out other images
        args.data_args.setdefault("rules", frozen.get("data_args.rules", OLDEST_RULES))
    changed = [key for key in given if key not in NOT_IN_NAME and frozen.get(key) != given[key]]
    if changed:
        key = changed[0]
        sys.exit(
            f"{path.parent} was made with {key}={frozen.get(key)}; it is {given[key]} now: --restart, or a --tag"
        )


if __name__ == "__main__":
    main()
