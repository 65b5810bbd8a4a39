"""Experiments as a table on a terminal: states in colour, the best value of a column marked, no
wider than the screen.

Light: the table of a grid (table.py), which knows Dora's explorers, and the report, which does not,
are drawn here.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from ..experiment.records import RunState, State
from .best import Better
from .status import Status, duration

STYLES = {
    State.RUNNING: "green",
    State.FAILED: "red",
    State.TIMED_OUT: "red",
    State.INTERRUPTED: "yellow",
    State.CANCELLED: "yellow",
    State.WAITING: "dim",
    State.NEW: "dim",
}
PIPE_WIDTH = 10_000  # columns: a pipe has no width, so nothing is cut
GAP = 2  # columns between two of the table
# how narrow, in this order
SHRINKABLE: dict[tuple[str, ...], int] = {("Meta", "state"): 11, ("Meta", "name"): 18}
# The first columns to go if even that does not do.
SPARE = [("Meta", name) for name in ("code", "speed", "left", "sid")]
LAST_SPARE = [("Meta", name) for name in ("mark", "interval", "behind")]  # after metrics


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
        """Not a metric; left out where nobody fills it."""
        return self.path[0] == "Meta"

    def stacked(self) -> "Column":
        """With a line for each word of its title: often half as wide."""
        return replace(self, title=self.title.replace(" ", "\n"))

    def value(self, values: Mapping[str, Any]) -> Any:
        found: Any = values
        for key in self.path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def cell(self, values: Mapping[str, Any]) -> str:
        value = self.value(values)
        if value is None:
            return self.missing
        try:
            return format(value, self.format)
        except (TypeError, ValueError):  # text where the explorer expects a number
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
    """One row: what columns pick their values from, in nested dicts; ours are under `Meta`, as in
    Dora."""

    status: Status
    values: Mapping[str, Any]
    broken: bool = False  # the explorer failed on it: its cells say "?"


@dataclass
class Board:
    """A table with its heading, for rich to print; it takes the width that it finds."""

    header: str
    base: str  # what all experiments share
    columns: Sequence[Column]
    lines: Sequence[Line]
    better: Better = field(default_factory=Better)
    styles: Sequence[str] = ()  # for the rows, in turn
    most: int | None = None  # lines of the screen; None: there is no end
    final: bool = False  # only what is finished can be the best
    note: str = ""  # a line under the header
    _best: dict[tuple[str, ...], set[int]] = field(default_factory=dict)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        yield Text(self.header, style="bold")
        if self.note:
            yield Text(self.note)
        if self.base:
            yield _one_line(f"all: {self.base}", "dim")
        chosen = self.chosen()
        columns, hidden = self.fitting(options.max_width, chosen)
        yield self._table(columns, chosen, options.max_width)
        if len(chosen) < len(self.lines):
            left = set(range(len(self.lines))) - set(chosen)
            yield _one_line(
                f"and {counted([self.lines[index].status for index in sorted(left)], ' · ')}", "dim"
            )
        if hidden:
            names = (" ".join(column.title.split()) for column in hidden)
            yield _one_line(f"too narrow for: {', '.join(names)}", "dim")

    # --- which rows ---

    def chosen(self) -> list[int]:
        """The rows that the screen has room for, in their order: what moves, what failed, then the
        best."""
        # two lines of heading, note, base, two of titles, and two remarks below
        around = 7 + bool(self.note)
        room = None if self.most is None else max(3, self.most - around)
        if room is None or len(self.lines) <= room:
            return list(range(len(self.lines)))
        groups = [
            self._in_state(State.RUNNING),
            self._in_state(State.FAILED, State.TIMED_OUT, State.INTERRUPTED),
        ]
        taken: list[int] = []
        for group, share in zip(groups, (0.5, 0.25)):
            taken += group[: max(1, int(room * share))]
        rest = dict.fromkeys([*self._by_rank(), *groups[0], *groups[1], *range(len(self.lines))])
        taken += [index for index in rest if index not in taken]
        return sorted(taken[:room])

    def _in_state(self, *states: State) -> list[int]:
        return [index for index, line in enumerate(self.lines) if line.status.state in states]

    def _by_rank(self) -> list[int]:
        """Finished ones, the best first: by the last column that has a best value."""
        done = self._in_state(State.COMPLETED, State.STOPPED)
        column = self._compared()
        if column is None or not self.better.mode(_metric(column)):
            return done
        return sorted(
            done,
            key=lambda at: self.better.key(_metric(column), column.value(self.lines[at].values)),
        )

    def _compared(self) -> Column | None:
        """What experiments are compared by: the last column that has a best value, else the last
        metric."""
        metrics = [column for column in self.columns if not column.ours]
        found = [column for column in metrics if self.better.mode(_metric(column))] or metrics
        return found[-1] if found else None

    # --- which columns ---

    def fitting(self, width: int, chosen: Sequence[int]) -> tuple[list[Column], list[Column]]:
        """The columns that fit into `width`, and those that do not.

        Titles are stacked first, then names and states cut; of the metrics, the one to compare by
        stays to the end.
        """
        columns = self.filled()
        if sum(self._widest(column, chosen) + GAP for column in columns) - GAP > width:
            columns = [column.stacked() for column in columns]
        narrowest = {
            column: min(self._widest(column, chosen), SHRINKABLE.get(column.path, PIPE_WIDTH))
            for column in columns
        }
        spare = [column for path in SPARE for column in columns if column.path == path]
        compared = self._compared()
        metrics = [
            column
            for column in columns
            if not column.ours and compared and column.path != compared.path
        ]
        spare += sorted(metrics, key=lambda column: column.path[0] != "train")
        spare += [column for path in LAST_SPARE for column in columns if column.path == path]
        hidden: list[Column] = []
        while spare and sum(narrowest[column] + GAP for column in columns) - GAP > width:
            hidden.append(spare.pop(0))
            columns.remove(hidden[-1])
        return columns, hidden

    def filled(self) -> list[Column]:
        """Without those of ours that nobody has a value for."""
        return [
            column
            for column in self.columns
            if not column.ours or any(column.cell(line.values) for line in self.lines)
        ]

    def _widths(
        self, columns: Sequence[Column], chosen: Sequence[int], width: int
    ) -> dict[Column, int]:
        """How wide each may be: the state gives way before the name."""
        widths = {column: self._widest(column, chosen) for column in columns}
        for path, least in SHRINKABLE.items():
            for column in columns:
                if column.path == path:
                    over = sum(widths.values()) + GAP * (len(columns) - 1) - width
                    widths[column] -= max(0, min(over, widths[column] - least))
        return widths

    def _widest(self, column: Column, chosen: Sequence[int]) -> int:
        cells = [*column.title.splitlines(), *(self.cell(column, self.lines[at]) for at in chosen)]
        return max(map(cell_len, cells), default=0) + bool(self.best(column))

    # --- the cells ---

    def _table(self, columns: Sequence[Column], chosen: Sequence[int], width: int) -> Table:
        table = Table(
            box=None,
            pad_edge=False,
            padding=(0, GAP, 0, 0),
            header_style="bold",
            row_styles=list(self.styles),
        )
        best = {column: self.best(column) for column in columns}
        widths = self._widths(columns, chosen, width)
        for column in columns:  # where even that does not do, rich shortens those that may wrap
            title = "\n".join(line + " " * bool(best[column]) for line in column.title.splitlines())
            table.add_column(
                title,
                justify="right" if column.right else "left",
                vertical="bottom",
                max_width=widths[column],
                no_wrap=column.path not in SHRINKABLE,
            )
        for at in chosen:
            table.add_row(
                *[self._text(column, self.lines[at], at, best[column]) for column in columns]
            )
        return table

    def _text(self, column: Column, line: Line, at: int, best: set[int]) -> Text:
        style = (
            STYLES.get(line.status.state, "")
            if column.path == ("Meta", "state")
            else "bold"
            if at in best
            else ""
        )
        mark = "*" if at in best else " " * bool(best)
        return Text(self.cell(column, line) + mark, no_wrap=True, overflow="ellipsis", style=style)

    def cell(self, column: Column, line: Line) -> str:
        return "?" if line.broken and not column.ours else column.cell(line.values)

    def best(self, column: Column) -> set[int]:
        """The rows that hold the best value of a column."""
        # asked for several times a drawing, of every row that there is
        if column.path not in self._best:
            self._best[column.path] = self._find_best(column)
        return self._best[column.path]

    def _find_best(self, column: Column) -> set[int]:
        values = [
            None
            if line.broken or (self.final and line.status.state != State.COMPLETED)
            else column.value(line.values)
            for line in self.lines
        ]
        return set() if column.ours else self.better.best(_metric(column), values)


def _metric(column: Column) -> str:
    return ".".join(column.path)


def _one_line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def heading(name: str, statuses: Sequence[Status]) -> str:
    """`mysweep   16 XPs   1 waiting   4 running   10 completed   1 failed   14:02:31`."""
    noun = "XP" if len(statuses) == 1 else "XPs"
    return "   ".join(
        filter(
            None, [name, f"{len(statuses)} {noun}", counted(statuses), time.strftime("%H:%M:%S")]
        )
    )


def counted(statuses: Sequence[Status], gap: str = "   ") -> str:
    """How many there are of each state."""
    counts = Counter(status.state for status in statuses)
    return gap.join(f"{counts[state]} {state}" for state in State if counts[state])


def meta(run: RunState, status: Status, known: int) -> dict[str, str]:
    """What every table says of a run's progress, as it is shown.

    Args:
        known: the epochs in its history.
    """
    live = status.state == State.RUNNING
    return {
        "state": str(status),
        "epoch": epochs(run, known),
        "speed": f"{run.speed:.3g}" if live and run.speed else "",
        "left": duration(seconds_left(run)) if live else "",
        "code": f"{run.codes} codes" if run.codes > 1 else "",
    }


def console() -> Console:
    """rich's, as wide as the terminal; in a pipe as wide as need be, and without colours."""
    terminal = sys.stdout.isatty()
    return Console(
        file=sys.stdout,
        width=None if terminal else PIPE_WIDTH,
        color_system="auto" if terminal else None,
        force_terminal=None if terminal else False,
        highlight=False,
        markup=False,
        emoji=False,
    )


def in_place(screen: Console) -> bool:
    """Whether a table can be drawn over the one before."""
    return screen.is_terminal and not screen.is_dumb_terminal


def epochs(run: RunState, known: int) -> str:
    """`12/30`; `step 120/300` of a run that ends by its steps; empty before the first one."""
    done = max(run.epoch, known)
    if not done and not run.started:
        return ""
    if run.epochs and run.epochs > 0:
        return f"{done}/{run.epochs}"
    return f"step {run.step}/{run.steps}" if run.steps else str(done)


def seconds_left(run: RunState) -> float | None:
    """At the present speed, validation left out; None where there is no telling."""
    if not (run.speed and run.batches):
        return None
    done = run.epoch * run.batches + run.batch
    if run.epochs and run.epochs > 0:
        return max(0.0, (run.epochs * run.batches - done) / run.speed)
    if run.steps and run.step:
        return max(0.0, (run.steps - run.step) * done / run.step / run.speed)
    return None


def number(value: Any, digits: int = 4) -> str:
    """A value in a cell: `0.9312`, `12`, `1.2e-05`."""
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
