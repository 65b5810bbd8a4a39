"""The best epoch so far, by a metric of the history. Its direction is given, never guessed.

The schedule cuts the learning rate by it, and the engine ends runs by it. Standard library only.
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
    """One value for each entry of a history. Larger is better.

    Args:
        history: entries as history.json has them.
        metric: e.g. "valid.acc".
        mode: "max" or "min". With "min", the values change their sign.
        measured_only: leave out the entries that do not have the metric. Else they give NaN.
    """
    split, _, name = metric.partition(".")
    sign = 1.0 if mode == "max" else -1.0
    found = []
    for entry in history:
        value = entry.get(split, {}).get(name)
        if value is not None:
            found.append(sign * value)
        elif not measured_only:
            found.append(math.nan)
    return found


def metrics_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """{split: its metrics} of an entry of history.json.

    An entry that was made within an epoch also has a step, which is left out.
    """
    return {split: metrics for split, metrics in entry.items() if split != "step"}


def epochs_in(history: Sequence[Mapping[str, Any]]) -> int:
    """The number of epochs in a history. 0 if its entries were made within epochs, at steps."""
    for entry in history:
        if "step" in entry:
            return 0
    return len(history)


def since_best(metric: Sequence[float]) -> int:
    """The number of values since the best one. 0 if there are no values."""
    each = since_best_each(metric)
    return each[-1] if each else 0


def since_best_each(metric: Sequence[float]) -> list[int]:
    """After each value, the number of values since the best one so far.

    The first of equal values is the best one. NaN is never the best, and before the first finite
    value nothing is counted.
    """
    best, since, found = -math.inf, 0, []
    for value in metric:
        if value > best:
            best, since = value, 0
        elif best > -math.inf:
            since += 1
        found.append(since)
    return found
