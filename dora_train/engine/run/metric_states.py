"""What the torchmetrics objects of a module have gathered, for a checkpoint within an epoch.

logged.py is the one user.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import torch
from pytorch_lightning import LightningModule
from torchmetrics import Metric

from ..upstream.torchmetrics import add_states, states_of, was_updated

T = TypeVar("T")


def metric_states(module: LightningModule, without: Collection[int] = ()) -> dict[str, Any]:
    """Return {place in the module: what the metric has gathered}.

    Metrics that have gathered nothing are left out.

    Args:
        without: ids of metrics that Lightning is about to reset, which are left out too.
    """
    found = {}
    for place, metric in _metrics(module):
        if id(metric) not in without and was_updated(metric):
            found[place] = states_of(metric)
    return found


def load_metric_states(module: LightningModule, of_ranks: Sequence[Mapping[str, Any]]) -> None:
    """Put back what `metric_states` returned. A metric that is not in it is reset.

    Args:
        of_ranks: the states of this rank. On the first rank they are followed by the states of
            ranks that do not exist any more.
    """
    for place, metric in _metrics(module):
        # The module's own `on_train_start` may have updated it.
        if was_updated(metric):
            metric.reset()
        for states in of_ranks:
            if place in states:
                add_states(metric, states[place])


def _metrics(module: LightningModule) -> list[tuple[str, Metric]]:
    return [(place, part) for place, part in module.named_modules() if isinstance(part, Metric)]


def of_each_rank(own: T, world_size: int) -> list[T]:
    """Return what each rank passed as `own`, by rank. All ranks must call it together."""
    if world_size == 1:
        return [own]
    every: list[Any] = [None] * world_size
    # torch unpickles a GPU's tensors on the sender's device, which other ranks must not use.
    torch.distributed.all_gather_object(every, _on_cpu(own))
    return every


def _on_cpu(content: object) -> object:
    if isinstance(content, torch.Tensor):
        return content.cpu()
    if isinstance(content, Mapping):
        return {key: _on_cpu(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_on_cpu(part) for part in content]
    return content
