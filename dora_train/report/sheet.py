"""A table that is shown: of settings (ranking_sheet.py) or of runs (run_sheet.py).

`formats.py` writes it as text, CSV, Markdown, LaTeX or JSON.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..engine.watch.best import Better, is_number
from ..engine.watch.board import Board, Column, Line, heading
from ..engine.watch.columns import Part
from ..engine.watch.status import Status
from .parameters import shared, text
from .runs import Run
from .settings import Setting

# A table on a terminal has these metrics. CSV and JSON have all, and --metrics names others.
FIRST = ("best.", "test.")


@dataclass
class Sheet:
    """Columns and lines, and the texts above and below them.

    Attributes:
        base: the values that all runs share.
        conclusion: one sentence.
        notes: how to read the table, and which runs are left out.
        additions: lines for a grid file, the first of them is a heading.
        statuses: of all runs, for the heading.
        final: whether only finished runs can hold the best value of a column.
        parts: headings, by the group of a line. Empty: there is one group.
        below: path of a text that stands below each row.
        is_section: whether it is one of several tables, and its title is the name of a group.
    """

    title: str
    base: str
    columns: list[Column]
    lines: list[Line]
    better: Better
    conclusion: str = ""
    notes: list[str] = field(default_factory=list)
    additions: list[str] = field(default_factory=list)
    statuses: Sequence[Status] = ()
    final: bool = False
    parts: Mapping[str, Part] = field(default_factory=dict)
    below: tuple[str, ...] = ()
    is_section: bool = False

    def board(self) -> Board:
        return Board(
            heading(self.title, self.statuses),
            self.base,
            self.columns,
            self.lines,
            self.better,
            final=self.final,
            parts=self.parts,
            below=self.below,
        )

    def headings(self) -> dict[int, str]:
        """The heading above a line, by the place of the line."""
        found: dict[int, str] = {}
        before = None
        for at, line in enumerate(self.lines):
            if line.group != before and line.group in self.parts:
                found[at] = self.parts[line.group].name
            before = line.group
        return found


def for_people(metrics: Sequence[str]) -> list[str]:
    """The metrics that a person compares by: those of the best epoch, or all if there are none."""
    return [name for name in metrics if name.startswith(FIRST)] or list(metrics)


# --- the pieces of a line ---


def own(name: str, left: bool = False) -> Column:
    """A column that is no metric, with its name as the title."""
    return Column(("Meta", name), name, right=not left)


def metric_column(path: tuple[str, ...], name: str, runs: Sequence[Run]) -> Column:
    """Args: path: where the metric is in a line. name: of the metric, e.g. `test.acc`."""
    return Column(path, name.replace(".", " "), style_of(runs, name))


def parameter(key: str, title: str, runs: Sequence[Run]) -> Column:
    numeric = all(is_number(run.value(key)) or run.value(key) is None for run in runs)
    # The sign keeps a parameter named `state` apart from our own column `state`.
    return Column(("Meta", f"={key}"), title, right=numeric)


def cells(one: Run | Setting, parameters: Sequence[str]) -> dict[str, str]:
    """The values of the columns that `parameter` makes."""
    return {f"={key}": text(one.value(key)) for key in parameters}


def base_of(runs: Sequence[Run], over: Sequence[str] = ()) -> str:
    """`optim.name=sgd model=small`: the values that all runs change of the defaults."""
    pairs = shared(runs).items()
    return " ".join(f"{key}={text(value)}" for key, value in pairs if key not in over)


def style_of(runs: Sequence[Run], *metrics: str) -> str:
    """One format for a whole column, so that its decimal points stand below each other."""
    values = []
    for run in runs:
        values += [run.metrics[metric] for metric in metrics if metric in run.metrics]
    if all(isinstance(value, int) for value in values):
        return ""
    return ".4f" if all(map(_is_plain, values)) else ".3e"


def _is_plain(value: float) -> bool:
    """Whether a number is readable without an exponent. NaN and infinity have none."""
    return not math.isfinite(value) or value == 0 or 1e-3 <= abs(value) < 1e4
