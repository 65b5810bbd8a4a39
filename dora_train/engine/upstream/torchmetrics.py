"""What a torchmetrics object has gathered so far, also if its states are not persistent.

Its own `state_dict` leaves out states that are not persistent, and how often it was updated. Tried
with torchmetrics 1.9.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torchmetrics import Metric


def was_updated(metric: Metric) -> bool:
    return metric._update_count > 0


def states_of(metric: Metric) -> dict[str, Any]:
    """{"update_count": int, "states": {name: tensor, or list of tensors}}."""
    states = {name: _copied(getattr(metric, name)) for name in metric._defaults}
    return {"update_count": metric._update_count, "states": states}


def add_states(metric: Metric, kept: Mapping[str, Any]) -> None:
    """Let a metric gather on from `states_of`; several add up as those of ranks do."""
    for name, value in kept["states"].items():
        value = _copied(value, metric.device)
        if was_updated(metric):
            value = _joined(getattr(metric, name), value, metric._reductions[name])
        setattr(metric, name, value)
    metric._update_count += kept["update_count"]
    metric._computed = None


def _joined(one: Any, other: Any, reduction: Any) -> Any:
    """The states of two ranks as one, as torchmetrics would reduce them."""
    if isinstance(one, list):
        return one + other
    return one if reduction is None else reduction(torch.stack([one, other]))


def _copied(value: Any, device: torch.device | None = None) -> Any:
    if isinstance(value, list):
        return [_copied(part, device) for part in value]
    return value.detach().to(device or value.device).clone()
