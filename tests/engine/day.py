"""A day's work, made up: 30 runs of four networks on three data sets, with a run in each state.

For tests and pictures of what is shown of many different runs. No training: the folders have the
files that runs leave. `python tests/engine/day.py FOLDER` makes them, e.g. to look at by hand.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from experiments import sig_of  # noqa: E402

from dora_train.engine.experiment.folder import XPS, Experiment  # noqa: E402
from dora_train.engine.experiment.records import Birth, RunState, State  # noqa: E402

MINUTE, HOUR = 60.0, 3600.0
PHOTOS = "/data/photos/cifar10"
# the defaults of conf/
CONFIG: dict[str, Any] = {
    "continue_from": "",
    "ema": {"decay": None},
    "early_stopping": {"patience": None},
    "stop_on_nan": True,
    "callbacks": [],
    "compile": False,
    "channels_last": False,
    "trainer": {
        "accelerator": "auto",
        "precision": "32-true",
        "max_epochs": 20,
        "max_steps": -1,
        "max_time": None,
        "limit_train_batches": None,
        "limit_val_batches": None,
        "limit_test_batches": None,
        "overfit_batches": None,
        "accumulate_grad_batches": 1,
        "gradient_clip_val": None,
    },
    "task": "images",
    "model": "small",
    "model_args": {},
    "optim": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
    "schedule": {"name": "cosine", "warmup_epochs": 1.0, "patience": 5, "factor": 0.1},
    "loss": {"label_smoothing": 0.0},
    "best": {"metric": "valid.acc", "mode": "max"},
    "seed": 0,
    "tag": None,
}
AUGMENTED = {"augment": True, "flip": False, "cutout": 0}
DATA: dict[str, dict[str, Any]] = {
    "digits": {"name": "digits", "batch_size": 64, **AUGMENTED, "crop": 1},
    "mnist": {"name": "mnist", "batch_size": 128, **AUGMENTED, "crop": 2, "valid": 0.1},
    "image_folder": {
        "name": "image_folder",
        "root": None,
        "image_size": 64,
        "batch_size": 64,
        **AUGMENTED,
        "crop": 8,
        "flip": True,
        "valid": 0.1,
        "rules": 2,
    },
}
FILES = {
    "digits": {"train": ["train", 1199, "9ca70903"], "valid": ["valid", 299, "5be5a3c5"]},
    "mnist": {"train": ["train", 54000, "11111111"], "test": ["test", 10000, "22222222"]},
    "image_folder": {"train/cat/1.jpg": ["train", 900, "33333333"]},
}


def configured(changes: dict[str, Any]) -> dict[str, Any]:
    """The configuration with these values. `data` chooses a data set."""
    config = copy.deepcopy(CONFIG)
    config["data"] = copy.deepcopy(DATA[changes.get("data", "digits")])
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        if key != "data":
            section[name] = value
    return config


def run(
    out: Path,
    changes: dict[str, Any],
    acc: float = 0.9,
    state: State = State.COMPLETED,
    began: float = 0.0,
    took: float = 60.0,
    cause: str = "max_epochs",
    files: dict[str, Any] | None = None,
    attempts: tuple[float, ...] = (),
) -> Experiment:
    """One experiment.

    Args:
        changes: dotted keys that differ from the defaults.
        acc: its best validation accuracy. The one on the test set is a little lower.
        began: seconds since the epoch.
        took: seconds of its last attempt.
        files: of its data, as `data.json.gz` has them. None: those of its data set.
        attempts: when it was started again, seconds since the epoch.
    """
    argv = [f"{key}={value}" for key, value in changes.items()]
    made = Experiment(out / XPS / sig_of(" ".join(argv)))
    config = configured(changes)
    data = changes.get("data", "digits")
    made.write_birth(
        Birth(
            made.sig,
            argv,
            [list(pair) for pair in changes.items()],
            config,
            rule=2,
            threads=2,
            code={"commit": "0123456789abcdef", "dirty": []},
            versions={"torch": "2.14.1"},
            born=began,
            groups={"data": data, "task": "images", "experiment": None},
        )
    )
    if state == State.NEW:
        return made
    starts = (began, *attempts)
    made.attempts.mkdir(exist_ok=True)
    for number, since in enumerate(starts, 1):
        claim = {"attempt": number, "host": "node7", "boot_id": "gone", "namespace": "", "pid": 1}
        text = json.dumps({**claim, "started": since, "since": since})
        (made.attempts / f"{number}.json").write_text(text)
    made.write_contents(FILES[data] if files is None else files)
    total = config["trainer"]["max_epochs"]
    if total < 1:  # its steps end it
        total = 20
    epochs = total if state == State.COMPLETED else max(1, total // 3)
    history = []
    for epoch in range(1, epochs + 1):
        reached = acc * (1 - math.exp(-3 * epoch / total)) / (1 - math.exp(-3))
        history.append(
            {
                "train": {"loss": 2.3 * (1 - 0.9 * reached), "acc": 0.98 * reached},
                "valid": {"loss": 2.3 * (1 - 0.95 * reached), "acc": reached},
            }
        )
    made.write_history(history)
    best = {"epoch": epochs, **history[-1]["valid"], "value": history[-1]["valid"]["acc"]}
    ended = starts[-1] + took
    made.write_state(
        RunState(
            state,
            cause,
            len(starts),
            epochs,
            total,
            best=best,
            started=starts[-1],
            updated=ended,
            ended=None if state == State.RUNNING else ended,
        )
    )
    if state == State.COMPLETED:
        test = {"loss": 0.3, "acc": acc - 0.0072}
        made.write_result({"best": best, "test": test, "epochs": epochs, "reason": "max_epochs"})
    return made


def day(out: Path, now: float | None = None) -> list[Experiment]:
    """The 30 runs, the oldest first. The last one began an hour before `now`."""
    now = time.time() if now is None else now
    mnist: dict[str, Any] = {"data": "mnist"}
    photos: dict[str, Any] = {"data": "image_folder", "data.root": PHOTOS, "data.image_size": 32}
    wide: dict[str, Any] = {**photos, "model_args.width": 64, "optim.lr": 0.2}
    fast: dict[str, Any] = {"trainer.precision": "bf16-mixed", "channels_last": True}
    made: list[tuple[dict[str, Any], float, State, float, str]] = []

    def add(
        changes: dict[str, Any],
        acc: float,
        took: float = 60.0,
        state: State = State.COMPLETED,
        cause: str = "max_epochs",
    ) -> None:
        made.append((changes, acc, state, took, cause))

    for lr, level in [(0.05, 0.955), (0.1, 0.973), (0.3, 0.941)]:
        for seed in (0, 32519, 24748):
            add({"optim.lr": lr, "seed": seed, "trainer.max_epochs": 40}, level + 1e-7 * seed, 52)
    add({"model": "resnet18", "seed": 32519}, 0.981, 9 * MINUTE)
    add({"model": "mobilenet_v2", "optim.name": "adamw", "optim.lr": 0.001}, 0.934, 5 * MINUTE)
    add({"trainer.max_steps": 12345, "trainer.max_epochs": -1}, 0.9, 80, State.CANCELLED, "")
    for batch, level in [(128, 0.967), (256, 0.9712), (512, 0.9644)]:
        add({**mnist, "data.batch_size": batch, "trainer.max_epochs": 4}, level, 94)
    add({**mnist, "optim.lr": 0.1, "data.batch_size": 256, **fast}, 0.976, 94)
    add({**mnist, "model": "resnet18", **fast}, 0.99, 14 * MINUTE)
    add({**mnist, "model": "resnet18", "optim.lr": 3.0}, 0.1, 20, State.FAILED, "diverged")
    add({**mnist, "model": "mobilenet_v2", "data.cutout": 6, "seed": 24748}, 0.985, 11 * MINUTE)
    add({**photos, "data.crop": 4}, 0.44, 7 * MINUTE)
    add({**wide, "data.crop": 4}, 0.385, 68)
    add({**wide, "data.batch_size": 256, **fast}, 0.3814, 62)
    smooth = {"loss.label_smoothing": 0.1, "ema.decay": 0.99, "data.batch_size": 256}
    add({**wide, **fast, **smooth}, 0.535, 4 * MINUTE, State.INTERRUPTED, "preempted")
    add({**wide, **smooth}, 0.561, 3.4 * HOUR)
    add({**photos, "model": "resnet18", "optim.lr": 0.1}, 0.63, 41 * MINUTE)
    add({**photos, "model": "resnet18", "optim.name": "adamw", "optim.lr": 0.0003}, 0.655, 2460)
    oom = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.5 GiB"
    add({**photos, "model": "resnet18", "data.batch_size": 4096}, 0.1, 9, State.FAILED, oom)
    add({"trainer.max_epochs": 2, "seed": 9007199254740993}, 0.749, 14)
    add({"trainer.max_epochs": 2}, 0.7512, 14)
    add({"tag": "queued"}, 0, 0, State.NEW)
    began = [now - HOUR - 50 * MINUTE * (len(made) - 1 - at) for at in range(len(made))]
    return [
        run(out, changes, acc, state, start, took, cause)
        for (changes, acc, state, took, cause), start in zip(made, began)
    ]


if __name__ == "__main__":
    for one in day(Path(sys.argv[1])):
        print(one.folder)
