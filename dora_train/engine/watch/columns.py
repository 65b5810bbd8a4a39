"""The columns and the lines that a table is made of.

A grid (grid/table.py) and the report (report/watch.py, report/sheet.py) make them, and board.py
draws them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .best import Better
from .status import Status


@dataclass(frozen=True)
class Column:
    """One column: where its value is in a line's nested dicts, and how it is written."""

    path: tuple[str, ...]
    title: str
    format: str = ""
    right: bool = True
    missing: str = ""

    @property
    def ours(self) -> bool:
        """Whether it tells of the run, and is no metric. It is left out if no line fills it."""
        return self.path[0] == "Meta"

    @property
    def metric(self) -> str:
        """The name of its metric: `valid.acc`."""
        return ".".join(self.path)

    def stacked(self) -> "Column":
        """The same column with one word of its title a line, which is often half as wide."""
        return replace(self, title=self.title.replace(" ", "\n"))

    def value(self, values: Mapping[str, Any]) -> Any:
        """The value of a line in this column. None if the line has none."""
        found: Any = values
        for key in self.path:
            if not isinstance(found, Mapping):
                return None
            found = found.get(key)
        return found

    def cell(self, values: Mapping[str, Any]) -> str:
        """The value of a line as text."""
        value = self.value(values)
        if value is None:
            return self.missing
        try:
            return format(value, self.format)
        except (TypeError, ValueError):  # text in a place where the explorer expects a number
            return str(value)


META = [
    Column(("Meta", "index"), "#"),
    Column(("Meta", "sig"), "sig", right=False),
    Column(("Meta", "name"), "name", right=False),
    Column(("Meta", "state"), "state", right=False),
    Column(("Meta", "epoch"), "epoch"),
    Column(("Meta", "speed"), "it/s"),
    Column(("Meta", "left"), "left"),
    Column(("Meta", "code"), "code", right=False),
    Column(("Meta", "mark"), "verdict", right=False),
]


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    status: Status
    values: Mapping[str, Any]  # nested dicts: ours are under "Meta", as in Dora
    broken: bool = False  # the explorer failed on it: its cells say "?"
    group: str = ""  # equal for rows that can be compared with each other


@dataclass(frozen=True)
class Part:
    """The rows of one group, which stand together below a heading."""

    name: str  # its heading
    base: str  # what all of its rows share
    better: Better  # the directions of its metrics
