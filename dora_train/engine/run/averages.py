"""Means over an epoch of what its steps give, over all ranks; every sample counts once.

history.py keeps one of these for each split. Each name has its own count of samples: a step may
leave a metric out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..errors import UserError

Key = tuple[str, tuple[str, ...]]  # how values are reduced, and the names that come together


class Group:
    """Names that came together so far, hence with one count. On the device: reading waits for it.

    Attributes:
        sums: [names] float64 (float32 on MPS, which has no float64).
    """

    def __init__(self, sums: torch.Tensor | None = None, count: int = 0):
        self.sums, self.count = sums, count

    def add(self, values: torch.Tensor, samples: int, operation: str) -> None:
        if self.sums is None:
            self.sums = values
        elif operation == "min":
            self.sums = torch.minimum(self.sums, values)
        elif operation == "max":
            self.sums = torch.maximum(self.sums, values)
        else:
            self.sums = self.sums + values
        self.count += samples


class Averages:
    """Collects the values of an epoch's steps."""

    def __init__(self) -> None:
        self.groups: dict[Key, Group] = {}

    def add(
        self, outputs: Any, samples: int, operation: str = "mean", step: str = "a step"
    ) -> None:
        """Take in the outputs of a step.

        Args:
            outputs: {name: value}; a single value is the loss. A number or scalar is the mean over
                the batch. A tensor has one value a sample. A name without a value is left out.
            samples: of the batch, on this rank.
            operation: how steps are reduced: mean, sum, min or max.
            step: what to call it in an error.

        Raises:
            UserError: a value is neither.
        """
        if outputs is None:
            return
        if not isinstance(outputs, Mapping):
            outputs = {"loss": outputs}
        names = sorted((name for name in outputs if _is_number(outputs[name])), key=loss_first)
        if not names:
            return
        for name in names:
            check_value(name, outputs[name], samples, step)
        if operation == "mean":
            values = [_sum(outputs[name], samples) for name in names]
        else:
            values = [_sum(outputs[name], 1) for name in names]
        group = self.groups.setdefault((operation, tuple(names)), Group())
        group.add(torch.stack(values), samples, operation)

    def means(self, world_size: int) -> dict[str, float]:
        """{name: mean}; all ranks must call it together, and get the same."""
        parts: dict[str, list[tuple[str, float, float]]] = {}
        for (operation, names), sums, count in self._of_all_ranks(world_size):
            for name, value in zip(names, sums):
                parts.setdefault(name, []).append((operation, value, count))
        return {name: _reduced(parts[name]) for name in sorted(parts, key=loss_first)}

    def state(self, world_size: int) -> dict[str, Any]:
        """Plain Python, as checkpoints take it: the sums of all ranks together."""
        groups = []
        for (operation, names), sums, count in self._of_all_ranks(world_size):
            group: dict[str, Any] = {"names": list(names), "sums": sums, "count": int(count)}
            if operation != "mean":
                group["operation"] = operation
            groups.append(group)
        if not groups:
            return {"names": [], "sums": [], "count": 0}
        first, *others = groups
        return first | {"more": others} if others else first

    def load(self, state: Mapping[str, Any], device: torch.device, first: bool) -> None:
        """Go on from `state`; the first rank takes the sums of all, the others begin at zero."""
        self.groups = {}
        dtype = _dtype(device)
        for group in (state, *state.get("more", [])):
            operation = group.get("operation", "mean")
            begins_at_zero = not first and operation in ("mean", "sum")
            sums = torch.tensor(group["sums"], dtype=dtype, device=device)
            if begins_at_zero:
                sums = torch.zeros_like(sums)
            if group["names"]:
                count = 0 if begins_at_zero else group["count"]
                self.groups[operation, tuple(group["names"])] = Group(sums, count)

    def _of_all_ranks(self, world_size: int) -> list[tuple[Key, list[float], float]]:
        """(key, sums, count) of each group; a rank may have seen a name that no other has."""
        if world_size == 1:
            return [
                (key, group.sums.tolist(), group.count)
                for key, group in self.groups.items()
                if group.sums is not None
            ]
        return [(key, *self._summed(key, device)) for key, device in self._keys(world_size)]

    def _keys(self, world_size: int) -> Iterable[tuple[Key, str]]:
        """The keys of all ranks, in the order of the first rank that has them."""
        own = {key: str(group.sums.device.type) for key, group in self.groups.items()}  # type: ignore[union-attr]
        every: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(every, own)
        found: dict[Key, str] = {}
        for keys in every:
            for key, device in keys.items():
                found.setdefault(key, device)
        return found.items()

    def _summed(self, key: Key, device: str) -> tuple[list[float], float]:
        operation, names = key
        group = self.groups.get(key) or Group(_neutral(operation, len(names), device))
        assert group.sums is not None
        count = group.sums.new_full((1,), float(group.count))
        if operation in ("min", "max"):
            total = group.sums.clone()
            of = torch.distributed.ReduceOp
            torch.distributed.all_reduce(total, op=of.MIN if operation == "min" else of.MAX)
            return total.tolist(), float(group.count or 1)
        total = torch.cat([group.sums, count])
        torch.distributed.all_reduce(total)
        *sums, number = total.tolist()
        return sums, number


def _neutral(operation: str, size: int, device: str) -> torch.Tensor:
    value = {"min": float("inf"), "max": -float("inf")}.get(operation, 0.0)
    return torch.full((size,), value, dtype=_dtype(torch.device(device)), device=device)


def _reduced(parts: list[tuple[str, float, float]]) -> float:
    """One number of what a name's groups have: it may have come with others, or alone."""
    operation = parts[0][0]
    values = [value for _, value, _ in parts]
    if operation == "min":
        return min(values)
    if operation == "max":
        return max(values)
    total = sum(values)
    if operation == "sum":
        return total
    count = sum(count for _, _, count in parts)
    return total / count if count else float("nan")


def check_value(name: str, value: Any, samples: int, step: str) -> None:
    """Raises: UserError if it is neither one number nor one number a sample."""
    if not isinstance(value, torch.Tensor) or value.ndim == 0:
        return
    is_measure = value.is_floating_point() or value.dtype == torch.bool
    if is_measure and value.shape[0] == value.numel() == samples:
        return
    if not is_measure:
        what = f"{str(value.dtype).removeprefix('torch.')} values: labels or predictions?"
    else:
        what = f"a tensor of shape {list(value.shape)}, for a batch of {samples}."
    raise UserError(
        f'{step} returned "{name}": {what}',
        "return one number, or one float per sample, under each name; keep anything else in the "
        "module (self.NAME = ...)",
    )


def loss_first(name: str) -> tuple[bool, str]:
    """To sort names by: the loss, then the others."""
    return name != "loss", name


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, torch.Tensor))


def _dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _sum(value: Any, samples: int) -> torch.Tensor:
    value = torch.as_tensor(value).detach()
    value = value.to(_dtype(value.device))
    return value * samples if value.ndim == 0 else value.sum()
