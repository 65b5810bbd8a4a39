"""The curves on the page: each metric of each setting over the epochs.

Called by page.py. assets/charts.js draws them.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from ..best_so_far import metrics_of
from .runs import keys_of, numbers
from .settings import Setting

# Numbers of all curves together, some 5 MB. If there are more, only every n-th epoch is drawn.
MOST_NUMBERS = 600_000

# The metrics of one run, one dict for each entry of its history.
History = list[dict[str, float]]


def curves_of(
    settings: Sequence[Setting], most: int | None = None
) -> tuple[dict[str, list[Any]], int]:
    """({metric: one curve for each setting}, stride): one value for each stride epochs is drawn.

    A setting that does not have the metric has None in the place of its curve.

    Args:
        most: numbers of all curves together. None: `MOST_NUMBERS`.
    """
    entries = [[run.history for run in one.runs] for one in settings]
    names = keys_of(map(_names, chain.from_iterable(entries)))
    count = sum(map(_numbers_of_a_metric, entries)) * len(names)
    stride = max(1, math.ceil(count / (most or MOST_NUMBERS)))
    histories = []
    for of_setting in entries:
        histories.append([_drawn(history, stride) for history in of_setting])
    curves: dict[str, list[Any]] = {}
    for name in keys_of(chain.from_iterable(chain.from_iterable(histories))):
        curves[name] = [_curve(of_setting, name) for of_setting in histories]
    return curves, stride


def _names(history: Sequence[dict]) -> list[str]:
    """The metrics of a history. Not each of its numbers is looked at: that takes long."""
    parts: dict[str, Any] = {}
    for entry in history:
        for part, values in entry.items():
            known = parts.setdefault(part, values)
            if isinstance(values, dict) and isinstance(known, dict):
                if not values.keys() <= known.keys():
                    parts[part] = {**known, **values}
    return list(dict(numbers(metrics_of(parts))))


def _drawn(history: Sequence[dict], stride: int) -> History:
    """The metrics at every stride-th entry. If one is not there, the next value before the
    following one counts: a run need not validate after each epoch."""
    if stride == 1:
        return [dict(numbers(metrics_of(entry))) for entry in history]
    names = _names(history)
    found = []
    for start in range(0, len(history), stride):
        values: dict[str, float] = {}
        for entry in history[start : start + stride]:
            values = dict(numbers(metrics_of(entry))) | values
            if len(values) >= len(names):
                break
        found.append(values)
    return found


def _length(histories: Sequence[Sequence[dict]]) -> int:
    return max(map(len, histories), default=0)


def _numbers_of_a_metric(histories: Sequence[Sequence[dict]]) -> int:
    """How many numbers `_curve` gives if it draws each epoch."""
    if len(histories) < 2:
        return _length(histories)
    return 4 * _length(histories)


def _curve(histories: Sequence[History], name: str) -> dict[str, list] | None:
    """The mean of the runs in each epoch. If there are several: lowest, highest and number, too.

    None if no run has the metric.
    """
    curve: dict[str, list] = {"mean": [], "low": [], "high": [], "n": []}
    is_measured = False
    for epoch in range(_length(histories)):
        values = _values_at(histories, epoch, name)
        is_measured = is_measured or bool(values)
        known = list(filter(math.isfinite, values))
        curve["mean"].append(_mean(known))
        curve["low"].append(_short(min(known, default=None)))
        curve["high"].append(_short(max(known, default=None)))
        curve["n"].append(len(known))
    if not is_measured:
        return None
    if len(histories) < 2:
        return {"mean": curve["mean"]}
    return curve


def _values_at(histories: Sequence[History], epoch: int, name: str) -> list[float]:
    found = []
    for history in histories:
        if epoch < len(history) and name in history[epoch]:
            found.append(history[epoch][name])
    return found


def _mean(values: Sequence[float]) -> float | None:
    if not values:
        return None
    return _short(sum(values) / len(values))


def _short(value: float | None) -> float | None:
    """The value with five digits: more than a screen shows, and a third of the bytes."""
    if value is None:
        return None
    return float(f"{value:.5g}")
