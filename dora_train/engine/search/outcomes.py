"""The outcome of a trial: pure functions of its history, so that every call of a search agrees."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...best_so_far import metrics_of
from ..errors import UserError

MIN_TRIALS = 5  # earlier trials that a median needs: of fewer it says little


@dataclass(frozen=True)
class Outcome:
    """What an optimizer is told of a trial that has ended."""

    value: float | None = None  # the objective in its best epoch; None: it failed, or diverged
    # the best value so far after each entry of the history; None before the first value
    steps: tuple[float | None, ...] = ()
    stopped: bool = False  # the search stopped it before its last epoch
    silent: bool = False  # the user cancelled it, which says nothing about its values


@dataclass(frozen=True)
class Objective:
    """What a search optimizes: a metric of history.json, and its direction."""

    metric: str  # "valid.acc"
    mode: str  # "max" or "min"

    def best(self, values: Sequence[float]) -> float:
        return max(values) if self.mode == "max" else min(values)

    def steps(self, history: Sequence[Mapping[str, Any]]) -> tuple[float | None, ...]:
        """The best value so far after each entry of a history. Empty: no entry has a number.

        An entry without a number has the best value of the entries before it.
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
        """Refuse an objective that a finished trial does not have: every other trial would fail too.

        Raises:
            UserError: no entry of the history has this metric.
        """
        metrics: set[str] = set()
        for entry in history:
            for split, values in metrics_of(entry).items():
                metrics.update(f"{split}.{name}" for name in values)
        if metrics and self.metric not in metrics:
            raise UserError(
                f'the objective "{self.metric}" is in no epoch of XP {sig}.',
                f"its history has: {', '.join(sorted(metrics))}.",
            )


def floors(outcomes: Sequence[Outcome]) -> list[float | None]:
    """The median of the best values so far of earlier trials, after each entry of their histories.

    A trial that is worse than the median is stopped. An entry that fewer than five trials have
    reached has no median.
    """
    curves = [outcome.steps for outcome in outcomes if outcome.value is not None]
    medians: list[float | None] = []
    for epoch in range(max(map(len, curves), default=0)):
        reached = [curve[epoch] for curve in curves if len(curve) > epoch]
        values = [value for value in reached if value is not None]
        medians.append(statistics.median(values) if len(values) >= MIN_TRIALS else None)
    return medians
