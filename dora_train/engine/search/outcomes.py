"""What came of a trial: pure functions of its history, so that every call of a search sees the
same."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...best_so_far import metrics_of
from ..errors import UserError

FIRST = 5  # trials that are never compared with others: before these, a median says little


@dataclass(frozen=True)
class Outcome:
    """What an optimizer is told of a trial that has ended."""

    value: float | None = None  # the objective in its best epoch; None: it failed, or diverged
    # the best so far, after each entry of the history; None before the first
    steps: tuple[float | None, ...] = ()
    stopped: bool = False  # before its last epoch, as hopeless
    silent: bool = False  # cancelled: that says nothing of its values


@dataclass(frozen=True)
class Objective:
    """What a search is after: a metric of history.json, and whether more of it is better."""

    metric: str  # "valid.acc"
    mode: str  # "max" or "min"

    def best(self, values: Sequence[float]) -> float:
        return max(values) if self.mode == "max" else min(values)

    def is_worse(self, value: float, other: float) -> bool:
        return value < other if self.mode == "max" else value > other

    def steps(self, history: Sequence[Mapping[str, Any]]) -> tuple[float | None, ...]:
        """The best so far after each entry of a history; empty if none has a number.

        An entry without the metric, or without a number, has that of before: None at first.
        """
        split, _, name = self.metric.partition(".")
        best: float | None = None
        steps: list[float | None] = []
        for entry in history:
            value = entry.get(split, {}).get(name)
            if isinstance(value, (int, float)) and math.isfinite(value):
                best = value if best is None else self.best([best, value])
            steps.append(best)
        return tuple(steps) if best is not None else ()

    def refuse_missing(self, sig: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Raises: UserError where a finished trial has no such metric: every other would fail
        alike."""
        there = {
            f"{split}.{name}"
            for entry in history
            for split, metrics in metrics_of(entry).items()
            for name in metrics
        }
        if there and self.metric not in there:
            raise UserError(
                f'the objective "{self.metric}" is in no epoch of XP {sig}.',
                f"its history has: {', '.join(sorted(there))}.",
            )


def floors(outcomes: Sequence[Outcome]) -> list[float | None]:
    """After each entry, the median of the best so far of earlier trials: what is worse than that is
    hopeless.

    An entry that fewer than five of them have reached has none.
    """
    curves = [outcome.steps for outcome in outcomes if outcome.value is not None]
    reached = [
        _numbers(curve[epoch] for curve in curves if len(curve) > epoch)
        for epoch in range(max(map(len, curves), default=0))
    ]
    return [statistics.median(values) if len(values) >= FIRST else None for values in reached]


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
