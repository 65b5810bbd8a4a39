"""The table that is shown, and that of runs. `ranking_sheet.py` makes the table of settings.

How a table is written is up to `formats.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..engine.watch.best import Better, is_number
from ..engine.watch.board import Board, Column, Line, heading, meta
from ..engine.watch.status import Status
from .parameters import differing, shared, text, titles
from .runs import Run
from .settings import Setting

# What a person compares by. The other metrics are in CSV and JSON, or named by --metrics.
FIRST = ("best.", "test.")


@dataclass
class Sheet:
    """Columns and lines, and what is said above and below them."""

    title: str
    base: str
    columns: list[Column]
    lines: list[Line]
    better: Better
    conclusion: str = ""  # one sentence
    notes: list[str] = field(default_factory=list)  # how to read it, and what is left out
    additions: list[str] = field(default_factory=list)  # lines for a grid file, with a heading
    statuses: Sequence[Status] = ()
    final: bool = False  # only what is finished can be the best

    def board(self) -> Board:
        header = heading(self.title, self.statuses)
        return Board(header, self.base, self.columns, self.lines, self.better, final=self.final)


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """All that any of them has, in the order of the epochs: train, valid, best, test."""
    return list(dict.fromkeys(name for run in runs for name in run.metrics))


def for_people(metrics: Sequence[str]) -> list[str]:
    return [name for name in metrics if name.startswith(FIRST)] or list(metrics)


def sheet_of_runs(title: str, runs: Sequence[Run], metrics: Sequence[str], better: Better) -> Sheet:
    """One line a run. Only a finished run can hold the best value of a column."""
    parameters = differing(runs)
    names = titles(parameters)
    columns = [
        own("sig", left=True),
        *(parameter(key, names[key], runs) for key in parameters),
        own("state", left=True),
        own("epoch"),
        *(
            Column(("metrics", name), name.replace(".", " "), _format(values_of(runs, name)))
            for name in metrics
        ),
    ]
    lines = [
        Line(
            run.status,
            {
                "Meta": {
                    "sig": run.sig,
                    **meta(run.state, run.status, run.epochs),
                    **texts(run, parameters),
                },
                "metrics": run.metrics,
            },
        )
        for run in runs
    ]
    return Sheet(
        title,
        base_of(runs),
        columns,
        lines,
        better,
        statuses=[run.status for run in runs],
        final=True,
    )


# --- the pieces of a line ---


def own(name: str, left: bool = False) -> Column:
    return Column(("Meta", name), name, right=not left)


def parameter(key: str, title: str, runs: Sequence[Run]) -> Column:
    numeric = all(is_number(run.value(key)) or run.value(key) is None for run in runs)
    return Column(("Meta", f"={key}"), title, right=numeric)


def texts(one: Run | Setting, parameters: Sequence[str]) -> dict[str, str]:
    return {f"={key}": text(one.value(key)) for key in parameters}


def base_of(runs: Sequence[Run], over: Sequence[str] = ()) -> str:
    return " ".join(
        f"{key}={text(value)}" for key, value in shared(runs).items() if key not in over
    )


def values_of(runs: Sequence[Run], metric: str) -> list[float]:
    return [run.metrics[metric] for run in runs if metric in run.metrics]


def style_of(runs: Sequence[Run], metric: str) -> str:
    return _format(values_of(runs, metric))


def _format(values: Sequence[float]) -> str:
    """One for the whole column, so that its points stand in a line."""
    if all(isinstance(value, int) for value in values):
        return ""
    plain = all(value == 0 or 1e-3 <= abs(value) < 1e4 for value in values if math.isfinite(value))
    return ".4f" if plain else ".3e"
