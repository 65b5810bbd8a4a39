"""Which epoch was the best so far: by a metric of the history, and without a guess of its
direction.

optim.py cuts the learning rate by it, and the engine ends runs by it. Standard library only.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def monitored(
    history: Sequence[Mapping[str, Mapping[str, float]]],
    metric: str,
    mode: str,
    measured_only: bool = False,
) -> list[float]:
    """One value an entry, larger is better; NaN for an entry that did not measure the metric.

    Args:
        history: entries as history.json has them.
        metric: e.g. "valid.acc".
        mode: "max" or "min".
        measured_only: leave out the entries that did not measure it.
    """
    split, _, name = metric.partition(".")
    sign = 1.0 if mode == "max" else -1.0
    values = [entry.get(split, {}).get(name) for entry in history]
    if measured_only:
        return [sign * value for value in values if value is not None]
    return [math.nan if value is None else sign * value for value in values]


def metrics_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """{split: its metrics} of an entry of history.json; an entry within an epoch has a step too."""
    return {split: metrics for split, metrics in entry.items() if split != "step"}


def epochs_in(history: Sequence[Mapping[str, Any]]) -> int:
    """Epochs that a history stands for; 0 if its entries are of steps, which tell no epochs."""
    return 0 if any("step" in entry for entry in history) else len(history)


def since_best(metric: Sequence[float]) -> int:
    """Values since the best one; 0 if there is none."""
    return (since_best_each(metric) or [0])[-1]


def since_best_each(metric: Sequence[float]) -> list[int]:
    """After each value, how many there were since the best one so far.

    The first of equals is the best, and NaN never is.
    """
    best, since, found = -math.inf, 0, []
    for value in metric:
        since = 0 if value > best or best == -math.inf else since + 1
        best = value if value > best else best
        found.append(since)
    return found
