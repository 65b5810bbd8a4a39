"""Which value of a metric is the best one, if its direction is known.

An experiment stores `best.metric` and `best.mode` with its values: they hold for the same metric of
every split. Of a loss, less is better. Of any other metric no value is the best, whatever its name.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..experiment.records import Birth
from ..words import directions, main_metric

MAX, MIN = "max", "min"


class Better:
    """What is better, max or min, by metric.

    Args:
        told: by the metric's name, or by its whole path: `{"acc": "max", "valid.best": "min"}`.
    """

    def __init__(self, told: Mapping[str, str] | None = None):
        self.told = dict(told or {})

    @classmethod
    def of(cls, births: Iterable[Birth | None], more: Mapping[str, str] | None = None) -> "Better":
        """As these experiments were told; where they contradict each other, nothing is known.

        Args:
            more: what else is known, e.g. by an explorer of its own columns.
        """
        told: dict[str, str] = {}
        for birth in births:
            metric, mode = main_metric(birth.config if birth else {})
            name = metric.rpartition(".")[2]
            if name:
                told[name] = mode if told.get(name, mode) == mode else ""
        return cls({**told, **(more or {})})

    def mode(self, metric: str) -> str:
        """`max`, `min`, or empty if the direction is not known.

        >>> Better({"acc": "max"}).mode("valid.acc"), Better().mode("train.loss")
        ('max', 'min')
        """
        name = re.split(r"[./\s]", metric)[-1]
        known = self.told.get(metric, self.told.get(name))
        if known is not None:
            return known
        possible = directions(name)
        return possible[0] if len(possible) == 1 else ""

    def best(self, metric: str, values: Sequence[Any]) -> set[int]:
        """Where the best of `values` stands; nowhere, where there are not two that differ."""
        numbers = {index: value for index, value in enumerate(values) if is_number(value)}
        mode = self.mode(metric)
        if not mode or len(set(numbers.values())) < 2:
            return set()
        best = (max if mode == MAX else min)(numbers.values())
        return {index for index, value in numbers.items() if value == best}

    def key(self, metric: str, value: Any) -> tuple[bool, float]:
        """To sort by: the best first (small ones where there is no telling), what is no number
        last."""
        if not is_number(value):
            return True, 0.0
        return False, -value if self.mode(metric) == MAX else value


def is_number(value: Any) -> bool:
    """Whether it can be compared with others: NaN cannot."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
