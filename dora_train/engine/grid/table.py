"""The table of a grid: who, in which state, how far, and the explorer's own metrics.

Columns come from Dora's Explorer API (`get_grid_metrics`, `process_sheep` or `process_history`, `get_grid_meta`,
`get_colors`), drawn with rich. A mistake in an explorer never costs the table: its cells say `?`, and it is said once.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dora.explore import Explorer
from rich.text import Text

from ..store import RunState
from .best import Better
from .board import META, Board, Column, Line, heading, meta
from .sheep import Sheep


@dataclass
class Row:
    """All that is shown of one experiment."""

    sheep: Sheep
    name: str
    run: RunState
    history: list[dict]
    metrics: Mapping[str, Any] | None = field(default_factory=dict)  # None: the explorer failed on its history
    index: int = 0

    def line(self) -> Line:
        """What columns pick their values from: ours under `Meta`, as in Dora, and the explorer's beside it."""
        ours = {"index": self.index, "sig": self.sheep.xp.sig, "name": self.name,
                "sid": self.sheep.current_job_id or "", **meta(self.run, self.sheep.status, len(self.history))}
        return Line(self.sheep.status, {**(self.metrics or {}), "Meta": ours}, broken=self.metrics is None)


class GridTable:
    """Draws the sheep of one grid, again and again; remembers what it complained about."""

    def __init__(self, name: str, explorer: Explorer, main: Any, sheep: Sequence[Sheep], note: str = ""):
        self.name, self.explorer, self.main, self.sheep, self.note = name, explorer, main, sheep, note
        self.names, self.base_name = main.get_names([one.xp for one in sheep]) if sheep else ([], "")
        self.better = Better.of(one.experiment.birth() for one in sheep)
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

    def draw(self, rows: Sequence[Row], most: int | None = None) -> Board:
        """The header line, what all share, and the table.

        Args:
            most: lines of the screen; None: there is no end.
        """
        header = heading(self.name, [row.sheep.status for row in rows])
        return Board(header, self.base_name, self.columns(), [row.line() for row in rows], self.better,
                     self._row_styles(), most, note=self.note)

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


def _columns(nodes: Iterable[Any], path: tuple[str, ...], title: str) -> Iterator[Column]:
    """treetable's groups and leaves, flattened: a leaf `acc` in a group `valid` is the column `valid acc`."""
    for node in nodes:
        name = f"{title} {node.display}".strip()
        if node.groups is not None:
            yield from _columns(node.groups, (*path, node.key), name)
        else:
            yield Column((*path, node.key), name, node.format or "", node.align != "<", node.missing or "")
