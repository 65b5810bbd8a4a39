"""Experiments as a table on a terminal: states in colour, the best value of a column marked, no
wider than the screen.

The table of a grid (grid/table.py) and those of the report are drawn here. A grid knows Dora's
explorers and the report does not, so this file asks neither of them anything.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from ..experiment.records import RunState, State
from . import layout
from .best import Better
from .columns import META as META  # grid/table.py and the report take it from here
from .columns import Column, Line
from .progress import duration, epochs, seconds_left
from .status import Status

STYLES = {
    State.RUNNING: "green",
    State.FAILED: "red",
    State.TIMED_OUT: "red",
    State.INTERRUPTED: "yellow",
    State.CANCELLED: "yellow",
    State.WAITING: "dim",
    State.NEW: "dim",
}
FAILURES = (State.FAILED, State.TIMED_OUT, State.INTERRUPTED)
PIPE_WIDTH = 10_000  # columns: a pipe has no width, so nothing is cut
# lines around the rows: two of heading, one of what all share, two of titles, two of remarks
AROUND = 7
FEWEST_ROWS = 3  # shown on a screen of any height


@dataclass
class Board:
    """A table with its heading, for rich to print. It takes the width that it finds."""

    header: str
    base: str  # what all experiments share
    columns: Sequence[Column]
    lines: Sequence[Line]
    better: Better = field(default_factory=Better)
    styles: Sequence[str] = ()  # for the rows, in turn
    most: int | None = None  # lines of the screen; None: there is no end
    final: bool = False  # only what is finished can be the best
    note: str = ""  # a line under the header
    _best: dict[tuple[str, ...], set[int]] = field(default_factory=dict)  # by a column's path

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        yield Text(self.header, style="bold")
        if self.note:
            yield Text(self.note)
        if self.base:
            yield _one_line(f"all: {self.base}", "dim")
        chosen = self.chosen()
        columns, hidden = self.fitting(options.max_width, chosen)
        yield self._table(columns, chosen, options.max_width)
        shown = set(chosen)
        left = [line.status for at, line in enumerate(self.lines) if at not in shown]
        if left:
            yield _one_line(f"and {counted(left, ' · ')}", "dim")
        if hidden:
            names = [" ".join(column.title.split()) for column in hidden]
            yield _one_line(f"too narrow for: {', '.join(names)}", "dim")

    # --- which rows ---

    def chosen(self) -> list[int]:
        """The rows that the screen has room for, in their order.

        Runs that move get up to a half of the room, and failures up to a quarter. The best finished
        runs get the rest.
        """
        room = self._room()
        everything = range(len(self.lines))
        if len(everything) <= room:
            return list(everything)
        running, failed = self._in_state(State.RUNNING), self._in_state(*FAILURES)
        first = running[: max(1, room // 2)] + failed[: max(1, room // 4)]
        ranked = dict.fromkeys([*first, *self._by_rank(), *running, *failed, *everything])
        return sorted(list(ranked)[:room])

    def _room(self) -> int:
        """The number of rows that the screen has room for."""
        if self.most is None:
            return len(self.lines)
        around = AROUND
        if self.note:
            around += 1
        return max(FEWEST_ROWS, self.most - around)

    def _in_state(self, *states: State) -> list[int]:
        return [index for index, line in enumerate(self.lines) if line.status.state in states]

    def _by_rank(self) -> list[int]:
        """The rows of finished runs. The best comes first, by the column they are compared by."""
        done = self._in_state(State.COMPLETED, State.STOPPED)
        column = self._compared()
        if column is None or not self.better.mode(column.metric):
            return done
        return sorted(
            done,
            key=lambda at: self.better.key(column.metric, column.value(self.lines[at].values)),
        )

    def _compared(self) -> Column | None:
        """The column that experiments are compared by: the last one that has a best value, else the
        last metric."""
        last_metric = None
        for column in reversed(self.columns):
            if column.ours:
                continue
            if self.better.mode(column.metric):
                return column
            last_metric = last_metric or column
        return last_metric

    # --- which columns ---

    def fitting(self, width: int, chosen: Sequence[int]) -> tuple[list[Column], list[Column]]:
        """The columns that fit into `width`, and those that do not.

        Args:
            chosen: the rows that are shown.
        """
        return layout.fitting(
            self.filled(), self._compared(), lambda column: self._widest(column, chosen), width
        )

    def filled(self) -> list[Column]:
        """The columns without those of ours that are empty in every line."""
        return list(filter(self._is_filled, self.columns))

    def _is_filled(self, column: Column) -> bool:
        return not column.ours or any(column.cell(line.values) for line in self.lines)

    def _widest(self, column: Column, chosen: Sequence[int]) -> int:
        """The width that a column needs to be shown whole."""
        # not len(): some characters take two columns of a terminal
        cells = [self.cell(column, self.lines[at]) for at in chosen]
        widest = max(map(cell_len, [*column.title.splitlines(), *cells]), default=0)
        return widest + len(self._mark(column))

    # --- the cells ---

    def _table(self, columns: Sequence[Column], chosen: Sequence[int], width: int) -> Table:
        table = Table(
            box=None,
            pad_edge=False,
            padding=(0, layout.GAP, 0, 0),
            header_style="bold",
            row_styles=list(self.styles),
        )
        widths = layout.widths(columns, lambda column: self._widest(column, chosen), width)
        for column in columns:
            # as much room as a mark takes, so that each line of the title ends above the numbers
            gap = self._mark(column)
            table.add_column(
                column.title.replace("\n", f"{gap}\n") + gap,
                justify="right" if column.right else "left",
                vertical="bottom",
                max_width=widths[column],
                # if the widths are still too many, rich shortens the columns that may wrap
                no_wrap=column.path not in layout.SHRINKABLE,
            )
        for at in chosen:
            table.add_row(*[self._text(column, at) for column in columns])
        return table

    def _text(self, column: Column, at: int) -> Text:
        """A cell as it is drawn: with its mark and its style."""
        line, style = self.lines[at], ""
        if column.path == ("Meta", "state"):
            style = STYLES.get(line.status.state, "")
        elif at in self.best(column):
            style = "bold"
        text = self.cell(column, line) + self._mark(column, at)
        return Text(text, no_wrap=True, overflow="ellipsis", style=style)

    def _mark(self, column: Column, at: int | None = None) -> str:
        """`*` after the best value of a column, and a space after its other cells and its title.

        Empty if the column has no best value.
        """
        best = self.best(column)
        if not best:
            return ""
        return "*" if at in best else " "

    def cell(self, column: Column, line: Line) -> str:
        """The text of a cell, without its mark."""
        return "?" if line.broken and not column.ours else column.cell(line.values)

    def best(self, column: Column) -> set[int]:
        """The rows that hold the best value of a column."""
        # kept: a drawing asks several times, and the answer looks at every row
        if column.path not in self._best:
            self._best[column.path] = self._find_best(column)
        return self._best[column.path]

    def _find_best(self, column: Column) -> set[int]:
        if column.ours:
            return set()
        values = [self._compared_value(column, line) for line in self.lines]
        return self.better.best(column.metric, values)

    def _compared_value(self, column: Column, line: Line) -> object:
        """The value of a line. None if it cannot be the best."""
        if line.broken or (self.final and line.status.state != State.COMPLETED):
            return None
        return column.value(line.values)


def _one_line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def heading(name: str, statuses: Sequence[Status]) -> str:
    """`mysweep   16 XPs   1 waiting   4 running   10 completed   1 failed   14:02:31`."""
    noun = "XP" if len(statuses) == 1 else "XPs"
    parts = [name, f"{len(statuses)} {noun}", counted(statuses), time.strftime("%H:%M:%S")]
    return "   ".join(filter(None, parts))


def counted(statuses: Sequence[Status], gap: str = "   ") -> str:
    """The number of experiments in each state: `4 running   1 failed`."""
    counts = Counter(status.state for status in statuses)
    return gap.join(f"{counts[state]} {state}" for state in State if counts[state])


def meta(run: RunState, status: Status, known: int) -> dict[str, str]:
    """The state and the progress of a run as every table shows them, by the names of `META`.

    Args:
        known: the epochs in its history.
    """
    shown = {"state": str(status), "epoch": epochs(run, known), "speed": "", "left": "", "code": ""}
    if status.state == State.RUNNING:
        shown["left"] = duration(seconds_left(run))
        if run.speed:
            shown["speed"] = f"{run.speed:.3g}"
    if run.codes > 1:
        shown["code"] = f"{run.codes} codes"
    return shown


def console() -> Console:
    """rich's console: as wide as the terminal. In a pipe, as wide as needed and without colours."""
    if sys.stdout.isatty():
        return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    return Console(
        file=sys.stdout,
        width=PIPE_WIDTH,
        color_system=None,
        # else FORCE_COLOR in the environment makes it a terminal
        force_terminal=False,
        highlight=False,
        markup=False,
        emoji=False,
    )


def in_place(screen: Console) -> bool:
    """Whether a table can be drawn over the one before."""
    return screen.is_terminal and not screen.is_dumb_terminal
