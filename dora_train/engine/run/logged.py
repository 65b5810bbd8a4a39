"""What a module gives to `self.log`, and what its torchmetrics objects hold: for the history, and
for a checkpoint within an epoch.

Lightning 2.6.6 keeps both in memory alone. A run that is killed within an epoch would average its
rest only. history.py is the one user.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torchmetrics import Metric

from ..upstream.torchmetrics import add_states, states_of, was_updated

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
}
_NAMED = re.compile(rf"({'|'.join(SPLITS)})[/_.](.+)", re.DOTALL)


def split_and_name(name: str, stage: str, loader: int | None = None) -> tuple[str, str]:
    """`val/acc`, `val_acc` and `valid.acc` are ("valid", "acc"); other names are of the stage.

    Args:
        stage: "train", "valid" or "test": what the trainer does.
        loader: its number, if there are several.
    """
    found = _NAMED.fullmatch(name)
    split = stage
    # Only a test gives numbers of the test set: no epoch has any.
    if found and (SPLITS[found[1]] == "test") == (stage == "test"):
        split, name = SPLITS[found[1]], found[2]
    return split, name if loader is None else f"{name}/dataloader_idx_{loader}"


# --- the states of metrics ---


def metric_states(module: LightningModule, without: Collection[int] = ()) -> dict[str, Any]:
    """{its place in the module: what it has gathered}, of each metric that has gathered something.

    Args:
        without: ids of metrics that Lightning is about to reset.
    """
    found = {}
    for place, metric in _metrics(module):
        if id(metric) not in without and was_updated(metric):
            found[place] = states_of(metric)
    return found


def load_metric_states(module: LightningModule, of_ranks: Sequence[Mapping[str, Any]]) -> None:
    """Put back what `metric_states` gave; a metric that is not named is reset.

    Args:
        of_ranks: of this rank; on the first one also of ranks that are no more.
    """
    for place, metric in _metrics(module):
        if was_updated(metric):
            metric.reset()
        for states in of_ranks:
            if place in states:
                add_states(metric, states[place])


def _metrics(module: LightningModule) -> list[tuple[str, Metric]]:
    return [(place, part) for place, part in module.named_modules() if isinstance(part, Metric)]


def of_each_rank(own: Any, world_size: int) -> list[Any]:
    """What each rank has; all must call it together."""
    if world_size == 1:
        return [own]
    every: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(every, _on_cpu(own))
    return every


def _on_cpu(content: Any) -> Any:
    if isinstance(content, torch.Tensor):
        return content.cpu()
    if isinstance(content, Mapping):
        return {key: _on_cpu(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_on_cpu(part) for part in content]
    return content
