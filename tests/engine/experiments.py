"""Experiments without training: folders with the files that a run leaves, for tests of what only
reads them."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

from dora_train.engine.experiment.folder import GRIDS, XPS, Experiment
from dora_train.engine.experiment.records import Birth, RunState, State

DEFAULTS: dict[str, Any] = {
    "data": {"name": "digits", "batch_size": 64},
    "seed": 0,
    "tag": None,
    "model": "small",
    "optim": {"name": "sgd", "lr": 0.05},
    "best": {"metric": "valid.acc", "mode": "max"},
    "trainer": {"max_epochs": 5},
}


def sig_of(words: str) -> str:
    return hashlib.sha1(words.encode()).hexdigest()[:8]


def experiment(
    out: Path,
    changes: dict[str, Any],
    acc: float = 0.9,
    state: State = State.COMPLETED,
    epochs: int = 5,
    grid: str = "",
    cause: str = "",
    total: int = 5,
    more: dict[str, Any] | None = None,
) -> Experiment:
    """An experiment that differs from the defaults in `changes` (dotted keys), with test accuracy
    `acc`.

    Args:
        more: values that differ without being in the delta, as those do that a choice brings along.
    """
    argv = [f"{key}={value}" for key, value in changes.items()]
    made = Experiment(out / XPS / sig_of(" ".join(argv)))
    config = _config({**changes, **(more or {})})
    made.write_birth(
        Birth(
            made.sig,
            argv,
            [list(pair) for pair in changes.items()],
            config,
            1,
            2,
            {"commit": "0123456789abcdef", "dirty": []},
            {"torch": "2.15.0"},
            1.0,
        )
    )
    history = [
        {
            "train": {"loss": 1 / epoch, "acc": acc - 0.2 / epoch},
            "valid": {"loss": 1.1 / epoch, "acc": acc - 0.1 / epoch},
        }
        for epoch in range(1, epochs + 1)
    ]
    made.write_history(history)
    best = (
        {"epoch": epochs, **history[-1]["valid"], "value": history[-1]["valid"]["acc"]}
        if history
        else {}
    )
    made.write_state(
        RunState(state, cause, 1, epochs, total, best=best, started=1.0, updated=2.0, ended=3.0)
    )
    if state == State.COMPLETED:
        made.write_result(
            {
                "best": best,
                "test": {"loss": 1 - acc, "acc": acc},
                "epochs": epochs,
                "steps": 9,
                "reason": "max_epochs",
            }
        )
    if grid:
        link = out / GRIDS / grid / made.sig
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.join("..", "..", XPS, made.sig))
    return made


def _config(changes: dict[str, Any]) -> dict[str, Any]:
    config = {
        key: dict(value) if isinstance(value, dict) else value for key, value in DEFAULTS.items()
    }
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        if section and section in config:
            config[section][name] = value
        elif key in config and not isinstance(config[key], dict):
            config[key] = value
    return config


def sweep(
    out: Path, rates: int = 3, seeds: int = 3, grid: str = "sweep", epochs: int = 5
) -> list[Experiment]:
    """Learning rates by seeds: the second rate is the best, and the spread of a seed is 0.01."""
    return [
        experiment(
            out,
            {"optim.lr": round(0.01 * (1 + rate), 4), "seed": seed},
            epochs=epochs,
            total=epochs,
            acc=0.9 - 0.05 * abs(rate - 1) + 0.01 * math.sin(seed + rate),
            grid=grid,
        )
        for rate in range(rates)
        for seed in range(seeds)
    ]
