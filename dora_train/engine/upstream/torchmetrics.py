"""The sums that a torchmetrics object has so far, to be stored in a checkpoint.

Its own `state_dict` leaves out the states that are not persistent, and the number of updates. Tried
with torchmetrics 1.9.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torchmetrics import Metric

State = torch.Tensor | list[torch.Tensor]


def was_updated(metric: Metric) -> bool:
    return metric._update_count > 0


def states_of(metric: Metric) -> dict[str, Any]:
    """{"update_count": int, "states": {name: tensor, or list of tensors}}."""
    states = {name: _copied(getattr(metric, name)) for name in metric._defaults}
    return {"update_count": metric._update_count, "states": states}


def add_states(metric: Metric, kept: Mapping[str, Any]) -> None:
    """Add the states of `states_of` to a metric, as torchmetrics adds those of two ranks."""
    for name, value in kept["states"].items():
        value = _copied(value, metric.device)
        if was_updated(metric):
            value = _joined(metric, name, value)
        setattr(metric, name, value)
    metric._update_count += kept["update_count"]
    metric._computed = None


def _joined(metric: Metric, name: str, other: State) -> State:
    """A state of a metric with that of another rank, as torchmetrics would reduce them."""
    one, reduction = getattr(metric, name), metric._reductions[name]
    if isinstance(one, list) or isinstance(other, list):
        return [*one, *other]
    if reduction is None:
        return one
    assert callable(reduction)  # torchmetrics replaces the name of a reduction by its function
    return reduction(torch.stack([one, other]))


def _copied(value: State, device: torch.device | None = None) -> State:
    if isinstance(value, list):
        return [_copied_tensor(part, device) for part in value]
    return _copied_tensor(value, device)


def _copied_tensor(value: torch.Tensor, device: torch.device | None) -> torch.Tensor:
    return value.detach().to(device or value.device).clone()
