"""What a search varies: the keys of the configuration, and the values that each may take.

Values are rounded, so that overrides and names stay readable.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, TypeVar

from ..errors import UserError

DIGITS = 3  # significant digits on a logarithmic scale
PLACES = 2  # decimal places below the order of magnitude of the width, on a linear scale

Value = None | bool | int | float | str
T = TypeVar("T")


class Dimension(Protocol[T]):
    """The values of one key."""

    def at(self, share: float) -> T:
        """The value at a share (0..1) of the range."""

    def rounded(self, value: T) -> T:
        """The value to run, for a value that an optimizer suggested."""

    def holds(self, value: object) -> bool:
        """Whether the value lies in the range."""


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

    def rounded(self, value: float) -> float:
        if self.log:
            value = float(f"{value:.{DIGITS}g}")
        else:
            value = round(float(value), PLACES - math.floor(math.log10(self.high - self.low)))
        return min(max(value, self.low), self.high)

    def holds(self, value: object) -> bool:
        return _is_number(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class Whole:
    """A whole number between two others, both included."""

    low: int
    high: int

    def at(self, share: float) -> int:
        return min(self.low + int(share * (self.high - self.low + 1)), self.high)

    def rounded(self, value: int) -> int:
        return min(max(round(value), self.low), self.high)

    def holds(self, value: object) -> bool:
        return _is_number(value) and value == int(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class OneOf:
    """One of several values that have no order."""

    options: tuple[Value, ...]

    def at(self, share: float) -> Value:
        return self.options[min(int(share * len(self.options)), len(self.options) - 1)]

    def rounded(self, value: Value) -> Value:
        return value

    def holds(self, value: object) -> bool:
        # The types must be equal as well, because 1 == True == 1.0.
        return any(type(value) is type(option) and value == option for option in self.options)


Space = Mapping[str, Dimension[Any]]


def log(low: float, high: float) -> Real:
    """A number from `low` to `high` whose order of magnitude matters, e.g. a learning rate.

    Raises:
        UserError: the bounds are not two numbers above 0, the smaller first.
    """
    if not (_is_number(low) and _is_number(high) and 0 < low < high < math.inf):
        raise UserError(f"log({low}, {high}): it takes two numbers above 0, the smaller first.")
    return Real(float(low), float(high), log=True)


def uniform(low: float, high: float) -> Real:
    """A number from `low` to `high`.

    Raises:
        UserError: the bounds are not two numbers, the smaller first.
    """
    if not (_is_number(low) and _is_number(high) and -math.inf < low < high < math.inf):
        raise UserError(f"uniform({low}, {high}): it takes two numbers, the smaller first.")
    return Real(float(low), float(high))


def integer(low: int, high: int) -> Whole:
    """A whole number from `low` to `high`, both included.

    Raises:
        UserError: the bounds are not two whole numbers, the smaller first.
    """
    if not (isinstance(low, int) and isinstance(high, int) and low < high):
        raise UserError(f"integer({low}, {high}): it takes two whole numbers, the smaller first.")
    return Whole(low, high)


def choice(*options: Value) -> OneOf:
    """One of these values: text, a number, True, False or None (null).

    Raises:
        UserError: there are fewer than two, or one is of another type.
    """
    are_plain = all(isinstance(option, (str, int, float, type(None))) for option in options)
    if len(options) < 2 or not are_plain:
        raise UserError(
            f"choice({', '.join(map(repr, options))}): it takes two or more plain values."
        )
    return OneOf(options)


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is an int or a float. A bool is no number here, although Python makes it an int."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
