"""The curves on the page: each metric of each setting over the epochs.

Called by page.py. assets/charts.js draws them.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from ..best_so_far import metrics_of
from .runs import Run, keys_of, numbers
from .settings import Setting

# Numbers of all curves together, some 5 MB. If there are more, only every n-th epoch is drawn.
MOST_NUMBERS = 600_000

# The metrics of one run, one dict for each entry of its history.
History = list[dict[str, float]]


def curves_of(settings: Sequence[Setting]) -> tuple[dict[str, list[Any]], int]:
    """({metric: one curve for each setting}, stride): every stride-th epoch is drawn.

    A setting that does not have the metric has None in the place of its curve.
    """
    histories = [list(map(_history, one.runs)) for one in settings]
    metrics = keys_of(chain.from_iterable(chain.from_iterable(histories)))
    count = sum(map(_numbers_of_a_metric, histories)) * len(metrics)
    stride = max(1, math.ceil(count / MOST_NUMBERS))
    curves: dict[str, list[Any]] = {}
    for name in metrics:
        curves[name] = [_curve(of_setting, name, stride) for of_setting in histories]
    return curves, stride


def _history(run: Run) -> History:
    return [dict(numbers(metrics_of(entry))) for entry in run.history]


def _length(histories: Sequence[History]) -> int:
    return max(map(len, histories), default=0)


def _numbers_of_a_metric(histories: Sequence[History]) -> int:
    """How many numbers `_curve` gives if it draws each epoch."""
    if len(histories) < 2:
        return _length(histories)
    return 4 * _length(histories)


def _curve(histories: Sequence[History], name: str, stride: int) -> dict[str, list] | None:
    """The mean of the runs in each epoch. If there are several: lowest, highest and number, too.

    None if no run has the metric.
    """
    curve: dict[str, list] = {"mean": [], "low": [], "high": [], "n": []}
    is_measured = False
    for epoch in range(0, _length(histories), stride):
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
