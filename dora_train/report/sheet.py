"""The table that is shown, and how it is made of runs. `ranking_sheet.py` makes that of settings.

`formats.py` writes a table as text, CSV, Markdown, LaTeX or JSON.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..engine.watch.best import Better, is_number
from ..engine.watch.board import Board, Column, Line, heading, meta
from ..engine.watch.status import Status
from .parameters import differing, shared, text, titles
from .runs import Run, statuses_of
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
        final: whether only finished runs can hold the best value of a column.
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

    def board(self) -> Board:
        header = heading(self.title, self.statuses)
        return Board(header, self.base, self.columns, self.lines, self.better, final=self.final)


def for_people(metrics: Sequence[str]) -> list[str]:
    """The metrics that a person compares by: those of the best epoch, or all if there are none."""
    return [name for name in metrics if name.startswith(FIRST)] or list(metrics)


def sheet_of_runs(title: str, runs: Sequence[Run], metrics: Sequence[str], better: Better) -> Sheet:
    """One line for each run. Only a finished run can hold the best value of a column."""
    parameters = differing(runs)
    names = titles(parameters)
    columns = [
        own("sig", left=True),
        *(parameter(key, names[key], runs) for key in parameters),
        own("state", left=True),
        own("epoch"),
        *(metric_column(("metrics", name), name, runs) for name in metrics),
    ]
    return Sheet(
        title,
        base_of(runs),
        columns,
        [_line(run, parameters) for run in runs],
        better,
        statuses=statuses_of(runs),
        final=True,
    )


def _line(run: Run, parameters: Sequence[str]) -> Line:
    own_values = {
        "sig": run.sig,
        **meta(run.state, run.status, run.epochs),
        **cells(run, parameters),
    }
    return Line(run.status, {"Meta": own_values, "metrics": run.metrics})


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


def style_of(runs: Sequence[Run], metric: str) -> str:
    """One format for a whole column, so that its decimal points stand below each other."""
    values = [run.metrics[metric] for run in runs if metric in run.metrics]
    if all(isinstance(value, int) for value in values):
        return ""
    return ".4f" if all(map(_is_plain, values)) else ".3e"


def _is_plain(value: float) -> bool:
    """Whether a number is readable without an exponent. NaN and infinity have none."""
    return not math.isfinite(value) or value == 0 or 1e-3 <= abs(value) < 1e4
