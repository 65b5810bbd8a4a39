"""The table of a grid: who, in which state, how far, and the explorer's own metrics.

Columns come from Dora's Explorer API (`get_grid_metrics`, `process_sheep` or `process_history`, `get_grid_meta`,
`get_colors`), drawn with rich. A mistake in an explorer never costs the table: its cells say `?`, and it is said once.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dora.explore import Explorer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..store import RunState, State
from .sheep import Sheep
from .status import duration

STYLES = {State.RUNNING: "green", State.FAILED: "red", State.TIMED_OUT: "red", State.INTERRUPTED: "yellow",
          State.CANCELLED: "yellow", State.WAITING: "dim", State.NEW: "dim"}
PIPE_WIDTH = 10_000  # columns: a pipe has no width, so nothing is cut


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
        """Not the explorer's; left out where nobody fills it."""
        return self.path[0] == "Meta"

    @property
    def shrinks(self) -> bool:
        return self.path in (("Meta", "name"), ("Meta", "state"))

    def cell(self, line: Mapping[str, Any]) -> str:
        value: Any = line
        for key in self.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            return self.missing
        try:
            return format(value, self.format)
        except (TypeError, ValueError):  # text where the explorer expects a number
            return str(value)


@dataclass
class Row:
    """All that is shown of one experiment."""

    sheep: Sheep
    name: str
    run: RunState
    history: list[dict]
    metrics: Mapping[str, Any] | None = field(default_factory=dict)  # None: the explorer failed on its history
    index: int = 0

    def line(self) -> dict[str, Any]:
        """What columns pick their values from: ours under `Meta`, as in Dora, and the explorer's beside it."""
        status = self.sheep.status
        live = status.state == State.RUNNING
        meta = {"index": self.index, "sig": self.sheep.xp.sig, "name": self.name, "state": str(status),
                "sid": self.sheep.current_job_id or "", "epoch": epochs(self.run, len(self.history)),
                "speed": f"{self.run.speed:.3g}" if live and self.run.speed else "",
                "left": duration(seconds_left(self.run)) if live else ""}
        return {**(self.metrics or {}), "Meta": meta}


class GridTable:
    """Draws the sheep of one grid, again and again; remembers what it complained about."""

    def __init__(self, name: str, explorer: Explorer, main: Any, sheep: Sequence[Sheep]):
        self.name, self.explorer, self.main, self.sheep = name, explorer, main, sheep
        self.names, self.base_name = main.get_names([one.xp for one in sheep]) if sheep else ([], "")
        self._said: set[str] = set()

    def rows(self, trim: int | None = None, trim_last: bool = False) -> list[Row]:
        """Each experiment with its metrics; histories cut to that of row `trim`, or to the shortest."""
        default = "" if self.base_name else "(defaults)"
        rows = [Row(sheep, name or default, sheep.experiment.state(), sheep.experiment.history(), index=index)
                for index, (sheep, name) in enumerate(zip(self.sheep, self.names, strict=True))]
        length = None
        if trim is not None and rows:
            length = len(rows[trim].history)
        elif trim_last and rows:
            length = min(len(row.history) for row in rows)
        for row in rows:
            row.history = row.history[:length]
            row.metrics = self._metrics(row)
        return rows

    def _metrics(self, row: Row) -> Mapping[str, Any] | None:
        try:
            try:
                found = self.explorer.process_sheep(row.sheep, row.history)
            except NotImplementedError:
                found = self.explorer.process_history(row.history)
            return found if isinstance(found, Mapping) else {}
        except Exception as error:
            self._say(error, f" on {row.sheep.xp.sig}")
            return None

    def columns(self) -> list[Column]:
        """Ours, or what the explorer's own `get_grid_meta` names; then its metrics."""
        own = type(self.explorer).get_grid_meta is not Explorer.get_grid_meta
        meta = list(_columns(self.explorer.get_grid_meta(), ("Meta",), "")) if own else META
        try:
            return meta + list(_columns(self.explorer.get_grid_metrics(), (), ""))
        except Exception as error:
            self._say(error)
            return list(meta)

    def draw(self, rows: Sequence[Row]) -> Group:
        """The header line, the base name, and the table."""
        parts: list[Any] = [Text(self.header(rows), style="bold", no_wrap=True, overflow="ellipsis")]
        if self.base_name:
            parts.append(Text(f"all: {self.base_name}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts, self._table(rows))

    def header(self, rows: Sequence[Row]) -> str:
        """`mysweep   16 XPs   1 waiting   4 running   10 completed   1 failed   14:02:31`."""
        counts = Counter(row.sheep.status.state for row in rows)
        states = [f"{counts[state]} {state}" for state in State if counts[state]]
        noun = "XP" if len(rows) == 1 else "XPs"
        return "   ".join([self.name, f"{len(rows)} {noun}", *states, time.strftime("%H:%M:%S")])

    def _table(self, rows: Sequence[Row]) -> Table:
        columns = self.columns()
        lines = [row.line() for row in rows]
        columns = [column for column in columns if not column.ours or any(column.cell(line) for line in lines)]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold",
                      row_styles=self._row_styles())
        for column in columns:  # where the width does not do, rich shortens those that may wrap
            table.add_column(column.title, justify="right" if column.right else "left", no_wrap=not column.shrinks)
        for row, line in zip(rows, lines, strict=True):
            style = STYLES.get(row.sheep.status.state, "")
            table.add_row(*[
                Text("?" if row.metrics is None and not column.ours else column.cell(line), no_wrap=True,
                     overflow="ellipsis", style=style if column.path == ("Meta", "state") else "")
                for column in columns])
        return table

    def _row_styles(self) -> list[str]:
        """The explorer's ANSI colours, which Dora takes in turn for the rows, as rich's styles."""
        styles = []
        for code in self.explorer.get_colors() or []:
            spans = Text.from_ansi(f"\x1b[{code}mx\x1b[0m").spans
            styles.append(str(spans[0].style) if spans else "")
        return styles

    def _say(self, error: Exception, where: str = "") -> None:
        """One line for each kind of mistake."""
        if type(error).__name__ not in self._said:
            self._said.add(type(error).__name__)
            print(f"the explorer of {self.name} fails{where}: {type(error).__name__}: {error}", file=sys.stderr)


META = [Column(("Meta", "index"), "#"), Column(("Meta", "sig"), "sig", right=False),
        Column(("Meta", "name"), "name", right=False), Column(("Meta", "state"), "state", right=False),
        Column(("Meta", "epoch"), "epoch"), Column(("Meta", "speed"), "it/s"), Column(("Meta", "left"), "left")]


def _columns(nodes: Iterable[Any], path: tuple[str, ...], title: str) -> Iterator[Column]:
    """treetable's groups and leaves, flattened: a leaf `acc` in a group `valid` is the column `valid acc`."""
    for node in nodes:
        name = f"{title} {node.display}".strip()
        if node.groups is not None:
            yield from _columns(node.groups, (*path, node.key), name)
        else:
            yield Column((*path, node.key), name, node.format or "", node.align != "<", node.missing or "")


def console() -> Console:
    """rich's, as wide as the terminal; in a pipe as wide as need be, and without colours."""
    terminal = sys.stdout.isatty()
    return Console(file=sys.stdout, width=None if terminal else PIPE_WIDTH, no_color=None if terminal else True,
                   force_terminal=None if terminal else False, highlight=False, markup=False, emoji=False)


def epochs(run: RunState, known: int) -> str:
    """`12/30`; empty before the first one."""
    done = max(run.epoch, known)
    if not done and not run.started:
        return ""
    return f"{done}/{run.epochs}" if run.epochs and run.epochs > 0 else str(done)


def seconds_left(run: RunState) -> float | None:
    """At the present speed, validation left out; None where there is no telling."""
    if not (run.speed and run.epochs and run.epochs > 0 and run.batches):
        return None
    return max(0.0, ((run.epochs - run.epoch) * run.batches - run.batch) / run.speed)
