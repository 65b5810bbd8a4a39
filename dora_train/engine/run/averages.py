"""Means of the values that the steps of an epoch give, over all ranks. Every sample counts once.

`History` keeps one `Averages` for each split. Each name has its own count of samples, because a
step may leave a metric out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..errors import UserError

# How the values of the steps are reduced ("mean", "sum", "min" or "max"), and their names.
Key = tuple[str, tuple[str, ...]]


class Group:
    """The running sums of names that always came together, hence with one count of samples.

    Args:
        sums: [names] float64, on the device of the values. On the CPU for MPS, which has none.
        count: samples so far, on this rank.
    """

    def __init__(self, sums: torch.Tensor, count: int):
        self.sums, self.count = sums, count

    def add(self, values: torch.Tensor, samples: int, operation: str) -> None:
        """Reduce the values of one more step, [names], into the sums."""
        # A step may give a number on the CPU under a name that was a tensor on the GPU before.
        values = values.to(self.sums.device)
        if operation == "min":
            self.sums = torch.minimum(self.sums, values)
        elif operation == "max":
            self.sums = torch.maximum(self.sums, values)
        else:
            self.sums = self.sums + values
        self.count += samples


class Averages:
    """Collects the values of an epoch's steps.

    The sums stay on the device: reading a number would make the CPU wait for the GPU at each step.
    """

    def __init__(self) -> None:
        self.groups: dict[Key, Group] = {}

    def add(
        self, outputs: object, samples: int, operation: str = "mean", step: str = "a step"
    ) -> None:
        """Add the outputs of one step.

        Args:
            outputs: {name: value}, or a single value, which is the loss. A number or a scalar
                tensor is the mean over the batch. Any other tensor has one value per sample. Names
                whose value is neither a number nor a tensor are left out.
            samples: in the batch, on this rank.
            operation: how the values of the steps are reduced: mean, sum, min or max.
            step: the name of the step in an error message.

        Raises:
            UserError: a tensor does not have one float per sample.
        """
        values = {
            name: value
            for name, value in by_name(outputs).items()
            if isinstance(value, (int, float, torch.Tensor))
        }
        if not values:
            return
        names = sorted(values, key=loss_first)
        for name in names:
            check_value(name, values[name], samples, step)
        # A scalar mean of a batch weighs as much as the batch has samples.
        weight = samples if operation == "mean" else 1
        device = _device_of(values.values())
        stacked = torch.stack([_sum(values[name], weight, device) for name in names])
        key = operation, tuple(names)
        if key in self.groups:
            self.groups[key].add(stacked, samples, operation)
        else:
            self.groups[key] = Group(stacked, samples)

    def means(self, world_size: int) -> dict[str, float]:
        """Return {name: mean}, the same on every rank. All ranks must call it together."""
        parts: dict[str, list[tuple[str, float, float]]] = {}
        for (operation, names), sums, count in self._of_all_ranks(world_size):
            for name, value in zip(names, sums):
                parts.setdefault(name, []).append((operation, value, count))
        return {name: _reduced(parts[name]) for name in sorted(parts, key=loss_first)}

    def state(self, world_size: int) -> dict[str, Any]:
        """Return the sums of all ranks in plain Python, for a checkpoint.

        All ranks must call it together.
        """
        groups = []
        for (operation, names), sums, count in self._of_all_ranks(world_size):
            # Over several ranks, the count is a float: it was summed together with the sums.
            group: dict[str, Any] = {"names": list(names), "sums": sums, "count": int(count)}
            if operation != "mean":
                group["operation"] = operation
            groups.append(group)
        if not groups:
            return {"names": [], "sums": [], "count": 0}
        # Older checkpoints have exactly one group, without "more". They can still be read.
        first, *others = groups
        if others:
            first["more"] = others
        return first

    def load(self, state: Mapping[str, Any], device: torch.device, first: bool) -> None:
        """Continue from `state`.

        Args:
            state: what `state` returned.
            device: where the next values will be.
            first: whether this is the first rank. It takes the sums of all ranks, and the other
                ranks begin at zero. Otherwise the sums would be counted once per rank.
        """
        self.groups = {}
        for group in (state, *state.get("more", [])):
            if not group["names"]:
                continue
            operation = group.get("operation", "mean")
            sums = torch.tensor(group["sums"], dtype=torch.float64, device=_home(device))
            count = group["count"]
            # A minimum or maximum may be counted by every rank.
            if not first and operation in ("mean", "sum"):
                sums, count = torch.zeros_like(sums), 0
            self.groups[operation, tuple(group["names"])] = Group(sums, count)

    def _of_all_ranks(self, world_size: int) -> list[tuple[Key, list[float], float]]:
        """Return (key, sums, count) of each group, summed over all ranks."""
        if world_size == 1:
            return [(key, group.sums.tolist(), group.count) for key, group in self.groups.items()]
        return [(key, *self._summed(key, device)) for key, device in self._keys(world_size)]

    def _keys(self, world_size: int) -> Iterable[tuple[Key, str]]:
        """Return (key, type of device) of all ranks' groups, in the same order on every rank.

        A rank may have seen a name that no other rank has.
        """
        own = {key: str(group.sums.device.type) for key, group in self.groups.items()}
        every: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(every, own)
        found: dict[Key, str] = {}
        for keys in every:
            for key, device in keys.items():
                found.setdefault(key, device)
        return found.items()

    def _summed(self, key: Key, device: str) -> tuple[list[float], float]:
        """Return the sums and the count of one group over all ranks."""
        operation, names = key
        group = self.groups.get(key) or Group(_neutral(operation, len(names), device), 0)
        own = _reducible(group.sums)
        if operation in ("min", "max"):
            total = own.clone()
            reduce = torch.distributed.ReduceOp
            operations = {"min": reduce.MIN, "max": reduce.MAX}
            torch.distributed.all_reduce(total, op=operations[operation])
            return total.tolist(), float(group.count or 1)
        # One message for the sums and the count.
        count = own.new_full((1,), float(group.count))
        total = torch.cat([own, count])
        torch.distributed.all_reduce(total)
        *sums, number = total.tolist()
        return sums, number


def _reducible(sums: torch.Tensor) -> torch.Tensor:
    """The sums where the ranks can add them: NCCL takes tensors on GPUs only."""
    is_initialized = torch.distributed.is_initialized()
    if is_initialized and torch.distributed.get_backend() == "nccl":
        return sums.cuda()
    return sums


def by_name(outputs: object) -> Mapping[str, object]:
    """Return what a step gave as {name: value}. A single value is the loss."""
    if outputs is None:
        return {}
    if isinstance(outputs, Mapping):
        return outputs
    return {"loss": outputs}


def means_of(state: Mapping[str, Any]) -> dict[str, float]:
    """Return the {name: mean} that a state of `Averages.state` stands for."""
    means = {}
    for group in (state, *state.get("more", [])):
        count = group["count"]
        # Sums, minima and maxima are not divided.
        if group.get("operation", "mean") != "mean":
            count = 1
        for name, value in zip(group["names"], group["sums"]):
            means[name] = value / count
    return means


def check_value(name: str, value: object, samples: int, step: str) -> None:
    """Refuse a value that is neither one number nor one float per sample.

    Raises:
        UserError: the value is neither.
    """
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
    """Return a sorting key: the loss comes first, then the other names by the alphabet."""
    return name != "loss", name


def _neutral(operation: str, size: int, device: str) -> torch.Tensor:
    """Return [size] values that change nothing in a reduction with other ranks' values."""
    value = {"min": float("inf"), "max": -float("inf")}.get(operation, 0.0)
    return torch.full((size,), value, dtype=torch.float64, device=device)


def _reduced(parts: list[tuple[str, float, float]]) -> float:
    """Return one number from (operation, sum, count) of all groups that have a name.

    A name is in several groups if it came with different other names.
    """
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


def _home(device: torch.device) -> torch.device:
    """Where the sums of values on a device are. MPS has no float64.

    In float32, a long epoch would round away its last samples.
    """
    return torch.device("cpu") if device.type == "mps" else device


def _device_of(values: Iterable[object]) -> torch.device:
    """Where the sums of values are that come together: on a GPU if one of them is."""
    for value in values:
        if isinstance(value, torch.Tensor) and value.device.type != "cpu":
            return _home(value.device)
    return torch.device("cpu")


def _sum(value: float | torch.Tensor, weight: int, device: torch.device) -> torch.Tensor:
    """Return the sum over the samples: a scalar times its weight, or the sum of a tensor."""
    if not isinstance(value, torch.Tensor):
        # Made on the device: to move a number there would wait for the GPU.
        value = torch.full((), value, dtype=torch.as_tensor(value).dtype, device=device)
    value = value.detach().to(device, non_blocking=device.type == "cuda")
    # Before it is summed: float16 and bfloat16 would round away the later samples.
    value = value.to(torch.float64)
    if value.ndim == 0:
        return value * weight
    return value.sum()
