"""What a search varies: a key, and the values it may take.

Rounded, so that overrides and names can be read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import UserError

DIGITS = 3  # significant ones, of what is searched on a logarithmic scale
# decimal places below the order of magnitude of the width, of what is searched on a linear scale
STEPS = 2


class Dimension(Protocol):
    """The values of one key."""

    def at(self, share: float) -> Any:
        """The value at a share (0..1) of the way through."""

    def rounded(self, value: Any) -> Any:
        """The value to run, for one that an optimizer came up with."""

    def holds(self, value: Any) -> bool:
        """Whether the value lies within."""


@dataclass(frozen=True)
class Real:
    """A number between two others, searched on a linear or a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        if self.log:
            return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        return self.low + share * (self.high - self.low)

    def rounded(self, value: Any) -> float:
        if self.log:
            value = float(f"{value:.{DIGITS}g}")
        else:
            value = round(float(value), STEPS - math.floor(math.log10(self.high - self.low)))
        return min(max(value, self.low), self.high)

    def holds(self, value: Any) -> bool:
        return _is_number(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class Whole:
    """A whole number between two others, both included."""

    low: int
    high: int

    def at(self, share: float) -> int:
        return min(self.low + int(share * (self.high - self.low + 1)), self.high)

    def rounded(self, value: Any) -> int:
        return min(max(round(value), self.low), self.high)

    def holds(self, value: Any) -> bool:
        return _is_number(value) and value == int(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class OneOf:
    """One of several values, in no order."""

    options: tuple[Any, ...]

    def at(self, share: float) -> Any:
        return self.options[min(int(share * len(self.options)), len(self.options) - 1)]

    def rounded(self, value: Any) -> Any:
        return value

    def holds(self, value: Any) -> bool:
        return any(type(value) is type(option) and value == option for option in self.options)


Space = Mapping[str, Dimension]


def log(low: float, high: float) -> Real:
    """A number from `low` to `high` whose order of magnitude matters: a learning rate."""
    if not (_is_number(low) and _is_number(high) and 0 < low < high < math.inf):
        raise UserError(f"log({low}, {high}): it takes two numbers above 0, the smaller first.")
    return Real(float(low), float(high), log=True)


def uniform(low: float, high: float) -> Real:
    """A number from `low` to `high`."""
    if not (_is_number(low) and _is_number(high) and -math.inf < low < high < math.inf):
        raise UserError(f"uniform({low}, {high}): it takes two numbers, the smaller first.")
    return Real(float(low), float(high))


def integer(low: int, high: int) -> Whole:
    """A whole number from `low` to `high`, both included."""
    if not (isinstance(low, int) and isinstance(high, int) and low < high):
        raise UserError(f"integer({low}, {high}): it takes two whole numbers, the smaller first.")
    return Whole(low, high)


def choice(*options: Any) -> OneOf:
    """One of these: text, numbers, true or false, or null (None)."""
    if len(options) < 2 or not all(
        isinstance(option, (str, int, float, type(None))) for option in options
    ):
        raise UserError(
            f"choice({', '.join(map(repr, options))}): it takes two or more plain values."
        )
    return OneOf(options)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
