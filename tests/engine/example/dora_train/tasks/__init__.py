"""Other tasks than images: one file each, with its data and its module, chosen by `task=`.

A file has `parts(cfg)`, which returns the module and the data that `train` takes. It may have
`predict(module, data, words)`, which returns the text that `python -m dora_train.predict SIG WORDS`
prints. Its keys are in a file of conf/task. To add a task, copy both.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

IMAGES = "images"  # built in train.py itself


def check_task(task: str, data: Mapping[str, Any]) -> None:
    """Check that there is such a task, and that it takes these keys of `data`.

    Raises:
        ValueError: there is none, or it does not take them.
    """
    if find_spec(f"{__name__}.{task}") is None:
        raise ValueError(f"task={task}: there is no file dora_train/tasks/{task}.py.")
    if "name" in data:
        raise ValueError(f"task={task} has its own data: leave out data={data['name']}.")
    size = data.get("batch_size", 1)
    if not (isinstance(size, int) and size > 0):
        raise ValueError(f"data.batch_size={size}: it takes a whole number, 1 or more.")


def load_task(task: str) -> ModuleType:
    """The module of a task's file."""
    return import_module(f"{__name__}.{task}")
