"""The values of the engine's own keys that a configuration lacks.

A clone may keep its old configuration when it takes a later engine. Here a run finds each key. The
values are those of `conf/engine.yaml`, but for `best`: its metric depends on the task, and every
task has a loss. `experiment/xp.py` calls this.
"""

from collections.abc import Mapping
from typing import Any

DEFAULTS: Mapping[str, Any] = {
    "seed": 0,
    "continue_from": "",
    "ema": {"decay": None},
    "early_stopping": {"patience": None},
    "best": {"metric": "valid.loss", "mode": "min"},
    "stop_on_nan": True,
    "callbacks": [],
    "compile": False,
    "channels_last": False,
    "matmul_precision": "highest",
    "trainer": {"accelerator": "auto", "max_epochs": 20},
    "threads": 1,  # as `entering.enter` takes it for older experiments
    "deterministic": True,  # of new experiments; older ones have theirs in `Birth`
    "checkpoint": {"every_epochs": 1, "every_minutes": 10.0, "keep": "all"},
    "logger": ["tensorboard", "csv"],
    "cluster": "auto",
    "local": {"jobs": None},
    "notify": None,
    "profile": False,
    "code": "snapshot",
    "retry": {"oom": 0, "gpu": None},
    "job": {"nodes": 1, "tasks_per_node": None, "pack": 1, "at_once": 1},
    "sbatch": {},
    "slurm": {"gpus": 0},
    "data": {},
}

# What an experiment did that is older than the key.
OLDER: Mapping[str, Any] = {"matmul_precision": "highest"}


def with_defaults(
    values: Mapping[str, Any], defaults: Mapping[str, Any] = DEFAULTS
) -> dict[str, Any]:
    """`values`, and the default of each key that they lack, also within sections."""
    filled = dict(values)
    for key, default in defaults.items():
        if key not in filled:
            filled[key] = default
        elif isinstance(default, Mapping) and isinstance(filled[key], Mapping):
            filled[key] = with_defaults(filled[key], default)
    return filled
