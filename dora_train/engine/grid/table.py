"""The table of a grid: who, in which state, how far, and the explorer's own metrics.

Columns come from Dora's Explorer API (`get_grid_metrics`, `process_sheep` or `process_history`,
`get_grid_meta`, `get_colors`), drawn with rich. A mistake in an explorer never costs the table: its
cells say `?`, and it is said once.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dora.explore import Explorer
from rich.text import Text

from ...best_so_far import epochs_in
from ..experiment.records import RunState, State
from ..experiments import Experiments
from ..watch.best import Better
from ..watch.board import META, Board, Column, Line, heading, meta
from ..watch.status import Status
from ..words import main_metric
from .sheep import Sheep


@dataclass
class Row:
    """All that is shown of one experiment."""

    name: str
    status: Status
    run: RunState
    epochs: int  # in its history
    # None: the explorer failed on its history
    metrics: Mapping[str, Any] | None = field(default_factory=dict)
    index: int = 0
    sig: str = ""
    job_id: str = ""

    def line(self, mark: str = "") -> Line:
        """What columns pick their values from: ours under `Meta`, as in Dora, and the explorer's
        beside it.

        Args:
            mark: the verdict on its setting: best or worse.
        """
        ours = {
            "index": self.index,
            "sig": self.sig,
            "name": self.name,
            "sid": self.job_id,
            "mark": mark,
            **meta(self.run, self.status, self.epochs),
        }
        return Line(
            self.status, {**(self.metrics or {}), "Meta": ours}, broken=self.metrics is None
        )


class GridTable:
    """Draws the sheep of one grid, again and again; a finished run is read once."""

    def __init__(
        self,
        name: str,
        explorer: Explorer,
        main: Experiments,
        sheep: Sequence[Sheep],
        note: str = "",
    ):
        self.name, self.explorer, self.main, self.sheep, self.note = (
            name,
            explorer,
            main,
            sheep,
            note,
        )
        self.names, self.base_name = (
            main.get_names([one.xp for one in sheep]) if sheep else ([], "")
        )
        self._tell_main_metric()
        told = getattr(explorer, "better", None)  # by a column's path: {"valid.best": "max"}
        self.better = Better.of((one.experiment.birth() for one in sheep), told)
        self._said: set[str] = set()  # what it complained about
        # of finished runs, and how far their history was to go
        self._kept: dict[str, tuple[int | None, Row]] = {}

    def _tell_main_metric(self) -> None:
        """An explorer that has a `metric` and a `mode` shows what the experiments are chosen by."""
        births = filter(None, (one.experiment.birth() for one in self.sheep))
        found = next(filter(all, (main_metric(birth.config) for birth in births)), None)
        if found and hasattr(self.explorer, "metric") and hasattr(self.explorer, "mode"):
            self.explorer.metric, self.explorer.mode = found

    def rows(self, trim: int | None = None, trim_last: bool = False) -> list[Row]:
        """Each experiment with its metrics; histories cut to that of row `trim`, or to the
        shortest."""
        length = None
        if trim is not None and self.sheep:
            length = len(self.sheep[trim].experiment.history())
        elif trim_last and self.sheep:
            length = min(len(sheep.experiment.history()) for sheep in self.sheep)
        return [
            self._row(index, sheep, name, length)
            for index, (sheep, name) in enumerate(zip(self.sheep, self.names, strict=True))
        ]

    def _row(self, index: int, sheep: Sheep, name: str, length: int | None) -> Row:
        sig = sheep.xp.sig
        before, kept = self._kept.get(sig, (None, None))
        if kept is not None and kept.status == sheep.status and before == length:
            return kept
        history = sheep.experiment.history()[:length]
        row = Row(
            name or ("" if self.base_name else "(defaults)"),
            sheep.status,
            sheep.experiment.state(),
            epochs_in(history),
            self._metrics(sheep, history),
            index,
            sig,
            sheep.current_job_id or "",
        )
        # it may look at anything, at any time
        own = type(self.explorer).process_sheep is not Explorer.process_sheep
        if sheep.status.state == State.COMPLETED and not own:
            self._kept[sig] = length, row
        return row

    def _metrics(self, sheep: Sheep, history: list[dict]) -> Mapping[str, Any] | None:
        try:
            try:
                found = self.explorer.process_sheep(sheep, history)
            except NotImplementedError:
                found = self.explorer.process_history(history)
            return found if isinstance(found, Mapping) else {}
        except Exception as error:
            self._say(error, f" on {sheep.xp.sig}")
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
        header = heading(self.name, [row.status for row in rows])
        marks = self.main.marks(self.sheep)
        lines = [row.line(marks.get(row.sig, "")) for row in rows]
        return Board(
            header,
            self.base_name,
            self.columns(),
            lines,
            self.better,
            self._row_styles(),
            most,
            note=self.note,
        )

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
            print(
                f"the explorer of {self.name} fails{where}: {type(error).__name__}: {error}",
                file=sys.stderr,
            )


def _columns(nodes: Iterable[Any], path: tuple[str, ...], title: str) -> Iterator[Column]:
    """treetable's groups and leaves, flattened: a leaf `acc` in a group `valid` is the column
    `valid acc`."""
    for node in nodes:
        name = f"{title} {node.display}".strip()
        if node.groups is not None:
            yield from _columns(node.groups, (*path, node.key), name)
        else:
            yield Column(
                (*path, node.key), name, node.format or "", node.align != "<", node.missing or ""
            )
