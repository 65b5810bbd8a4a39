"""The best value of a metric, if the metric's direction is known.

An experiment stores `best.metric` and `best.mode` with its values. They hold for the same metric of
every split. The best loss is the lowest. Any other metric needs a stored direction, whatever its
name is.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

from ..experiment.records import Birth
from ..words import directions, main_metric

MAX, MIN = "max", "min"


class Better:
    """The direction of each metric: max or min.

    Args:
        told: by the metric's name, or by its whole path: `{"acc": "max", "valid.best": "min"}`.
    """

    def __init__(self, told: Mapping[str, str] | None = None):
        self.told = dict(told or {})

    @classmethod
    def of(cls, births: Iterable[Birth | None], more: Mapping[str, str] | None = None) -> "Better":
        """The directions that these experiments have stored.

        If two of them contradict each other, the direction is not known.

        Args:
            more: directions that are known otherwise, e.g. by an explorer of its own columns.
        """
        told: dict[str, str] = {}
        for birth in births:
            if birth is None:
                continue
            metric, mode = main_metric(birth.config)
            name = _without_split(metric)
            if name and told.setdefault(name, mode) != mode:
                told[name] = ""  # they contradict each other
        return cls({**told, **(more or {})})

    def mode(self, metric: str) -> str:
        """`max`, `min`, or empty if the direction is not known.

        >>> Better({"acc": "max"}).mode("valid.acc"), Better().mode("train.loss")
        ('max', 'min')
        """
        # A name may hold "/" or a space itself: `self.log("val/f1/macro")` is `valid.f1/macro`.
        name = _without_split(metric)
        for known in (metric, name, re.split(r"[./\s]", metric)[-1]):
            if known in self.told:
                return self.told[known]
        possible = directions(name)
        if len(possible) > 1:  # a name other than of a loss does not tell
            return ""
        return possible[0]

    def best(self, metric: str, values: Sequence[object]) -> set[int]:
        """The places of the best value among `values`. Empty if no two of them differ."""
        numbers = {index: value for index, value in enumerate(values) if is_number(value)}
        mode = self.mode(metric)
        if not mode or len(set(numbers.values())) < 2:
            return set()
        pick = max if mode == MAX else min
        best = pick(numbers.values())
        return {index for index, value in numbers.items() if value == best}

    def key(self, metric: str, value: object) -> tuple[bool, float]:
        """A key to sort by: the best value first, and last a value that is no number.

        If the direction is not known, small values come first.
        """
        if not is_number(value):
            return True, 0.0
        if self.mode(metric) == MAX:
            value = -value
        return False, value


def _without_split(metric: str) -> str:
    """`acc` of `valid.acc`. A metric without a split stays as it is."""
    return metric.partition(".")[2] or metric


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value can be compared with others. NaN cannot, and a bool is no number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
