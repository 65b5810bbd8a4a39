"""Experiments as a table on a terminal: states in colour, the best value of a column marked, no
wider than the screen.

The table of a grid (grid/table.py) and those of the report are drawn here. A grid knows Dora's
explorers and the report does not, so this file asks neither of them anything.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from ..experiment.records import RunState, State
from . import drawing, layout
from .best import Better
from .columns import META as META  # grid/table.py and the report take it from here
from .columns import Column, Line, Part
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
HEADING = 3  # lines of the heading of a part
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
    parts: Mapping[str, Part] = field(default_factory=dict)  # headings, by the group of a line
    below: tuple[str, ...] = ()  # path of a text that stands below each row
    # answers about all rows, kept because a board is drawn again until an experiment changes
    _best: dict[tuple[str, ...], set[int]] = field(default_factory=dict)  # by a column's path
    _chosen: dict[int, list[int]] = field(default_factory=dict)  # by the width
    _fitting: dict[tuple[int, ...], tuple[list[Column], list[Column]]] = field(default_factory=dict)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        yield Text(self.header, style="bold")
        yield from map(Text, filter(None, [self.note]))
        if self.base:
            yield drawing.one_line(f"all: {self.base}", "dim")
        width = options.max_width
        chosen = self.chosen(width)
        columns, hidden = self.fitting(width, chosen)
        yield from drawing.rows(self, columns, chosen, width)
        shown = set(chosen)
        left = [line.status for at, line in enumerate(self.lines) if at not in shown]
        if left:
            yield drawing.one_line(f"and {counted(left, ' · ')}", "dim")
        if hidden:
            yield drawing.one_line(f"too narrow for: {layout.named(hidden)}", "dim")

    # --- which rows ---

    def chosen(self, width: int) -> list[int]:
        """The rows that the screen has room for, in their order.

        Runs that move get up to a half of the room, and failures up to a quarter. The best finished
        runs get the rest.

        Args:
            width: of the screen. On a narrow one, a row with a long name takes several lines.
        """
        if width not in self._chosen:
            self._chosen[width] = self._choose(width)
        return self._chosen[width]

    def _choose(self, width: int) -> list[int]:
        room = self._room()
        ranked = list(range(len(self.lines)))
        if len(ranked) > room:
            running, failed = self._in_state(State.RUNNING), self._in_state(*FAILURES)
            first = running[: max(1, room // 2)] + failed[: max(1, room // 4)]
            ranked = list(dict.fromkeys([*first, *self._by_rank(), *running, *failed, *ranked]))
        del ranked[room:]
        if self.most is not None:
            heights = self._heights(sorted(ranked), width)
            while len(ranked) > 1 and sum(map(heights.__getitem__, ranked)) > room:
                ranked.pop()
        return sorted(ranked)

    def _heights(self, chosen: Sequence[int], width: int) -> dict[int, int]:
        """How many lines each of these rows takes."""
        columns, _ = self.fitting(width, chosen)
        widths = self.widths(columns, chosen, width)
        folded = [column for column in columns if column.path in layout.FOLDED]
        heights = dict.fromkeys(chosen, 1)
        for column in folded:
            for at in chosen:
                lines = drawing.folded(self.cell(column, self.lines[at]), widths[column])
                heights[at] = max(heights[at], len(lines))
        return heights

    def _room(self) -> int:
        """The number of rows that the screen has room for."""
        if self.most is None:
            return len(self.lines)
        around = AROUND + HEADING * len(self.parts)
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
        ranked = sorted(
            done,
            key=lambda at: self.better.key(column.metric, column.value(self.lines[at].values)),
        )
        # the best of each group, then the second of each
        places: Counter[str] = Counter()
        place: dict[int, int] = {}
        for at in ranked:
            group = self.lines[at].group
            place[at] = places[group]
            places[group] += 1
        return sorted(ranked, key=lambda at: place[at])

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
        key = width, *chosen
        if key not in self._fitting:
            self._fitting[key] = layout.fitting(
                self.filled(), self._compared(), lambda column: self.widest(column, chosen), width
            )
        return self._fitting[key]

    def widths(
        self, columns: Sequence[Column], chosen: Sequence[int], width: int
    ) -> dict[Column, int]:
        """How wide each column is drawn."""
        return layout.widths(columns, lambda column: self.widest(column, chosen), width)

    def filled(self) -> list[Column]:
        """The columns without those of ours that are empty in every line."""
        return list(filter(self._is_filled, self.columns))

    def _is_filled(self, column: Column) -> bool:
        return not column.ours or any(column.cell(line.values) for line in self.lines)

    def widest(self, column: Column, chosen: Sequence[int]) -> int:
        """The width that a column needs to be shown whole."""
        cells = [self.cell(column, self.lines[at]) for at in chosen]
        return drawing.widest([*column.title.splitlines(), *cells]) + len(self.mark(column))

    # --- the cells ---

    def style(self, column: Column, at: int) -> str:
        """The style of a cell, for rich."""
        if column.path == ("Meta", "state"):
            return STYLES.get(self.lines[at].status.state, "")
        return "bold" if at in self.best(column) else ""

    def mark(self, column: Column, at: int | None = None) -> str:
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
        """The rows that hold the best value of a column, in each group of rows."""
        if column.path not in self._best:
            self._best[column.path] = self._find_best(column)
        return self._best[column.path]

    def _find_best(self, column: Column) -> set[int]:
        if column.ours:
            return set()
        groups: dict[str, list[int]] = {}
        for at, line in enumerate(self.lines):
            groups.setdefault(line.group, []).append(at)
        found = set()
        for name, places in groups.items():
            better = self.parts[name].better if name in self.parts else self.better
            values = [self._compared_value(column, self.lines[at]) for at in places]
            found |= {places[index] for index in better.best(column.metric, values)}
        return found

    def _compared_value(self, column: Column, line: Line) -> object:
        """The value of a line. None if it cannot be the best."""
        if line.broken or (self.final and line.status.state != State.COMPLETED):
            return None
        return column.value(line.values)


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
