"""The table of a grid: each experiment with its state, its progress and the explorer's metrics.

Columns come from Dora's Explorer API: `get_grid_metrics`, `process_sheep` or `process_history`,
`get_grid_meta` and `get_colors`. If an explorer raises an error, the table is still shown: the
cells say `?`, and the error is printed once.
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
from .names import names
from .sheep import Sheep

DIFFERS = "differs"  # in the column `code`: from today's


@dataclass
class Row:
    """The content of one row of the table."""

    name: str
    status: Status
    run: RunState
    epochs: int  # in its history
    metrics: Mapping[str, Any] | None = field(default_factory=dict)  # None: the explorer failed
    index: int = 0
    sig: str = ""
    job_id: str = ""
    other_code: bool = False  # it is finished, and ran other code than today's

    def line(self, group: str = "", mark: str = "") -> Line:
        """The values that the columns of a row are taken from, in Dora's form.

        Our values are under `Meta`. The explorer's metrics stand beside it.

        Args:
            group: equal for experiments that can be compared.
            mark: whether its setting is the best, or worse.
        """
        own = {
            "index": self.index,
            "sig": self.sig,
            "name": self.name,
            "sid": self.job_id,
            "mark": mark,
            **meta(self.run, self.status, self.epochs),
        }
        if self.other_code:
            own["code"] = f"{own['code']}, {DIFFERS}".removeprefix(", ")
        values = {**(self.metrics or {}), "Meta": own}
        return Line(self.status, values, broken=self.metrics is None, group=group)


class GridTable:
    """The table of one grid, which is drawn again and again. A finished run is read once.

    Args:
        note: a line that is shown below the table.
    """

    def __init__(
        self,
        name: str,
        explorer: Explorer,
        main: Experiments,
        sheep: Sequence[Sheep],
        note: str = "",
    ):
        self.name, self.explorer, self.main = name, explorer, main
        self.sheep, self.note = sheep, note
        self.names: list[str] = []
        self.base_name = ""  # the overrides that all experiments share
        if sheep:
            self.names, self.base_name = names(main, [one.xp for one in sheep])
        self._set_main_metric()
        directions = getattr(explorer, "better", None)  # by column: {"valid.best": "max"}
        self.better = Better.of((one.experiment.birth() for one in sheep), directions)
        self._reported: set[str] = set()  # the kinds of errors that were printed
        # rows of finished runs by signature, each with the length that its history was cut to
        self._finished: dict[str, tuple[int | None, Row]] = {}
        self._drawn: tuple[list[Row], int | None, Board] | None = None

    def _set_main_metric(self) -> None:
        """Give the metric that chooses the best epoch to an explorer that shows one.

        Such an explorer has the attributes `metric` and `mode`.
        """
        if not hasattr(self.explorer, "metric") or not hasattr(self.explorer, "mode"):
            return
        for sheep in self.sheep:
            birth = sheep.experiment.birth()
            metric, mode = main_metric(birth.config if birth else {})
            if metric and mode:
                self.explorer.metric, self.explorer.mode = metric, mode
                return

    def rows(self, trim: int | None = None, trim_last: bool = False) -> list[Row]:
        """A row for each experiment.

        Args:
            trim: cut all histories to the length of the history of this row.
            trim_last: cut all histories to the length of the shortest.
        """
        length = None
        if trim is not None and self.sheep:
            length = len(self.sheep[trim].experiment.history())
        elif trim_last and self.sheep:
            length = min(len(sheep.experiment.history()) for sheep in self.sheep)
        rows: list[Row] = []
        for sheep, name in zip(self.sheep, self.names, strict=True):
            rows.append(self._row(len(rows), sheep, name, length))
        return rows

    def _row(self, index: int, sheep: Sheep, name: str, length: int | None) -> Row:
        sig = sheep.xp.sig
        before, finished = self._finished.get(sig, (None, None))
        if finished is not None and finished.status == sheep.status and before == length:
            return finished
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
            sheep.other_code,
        )
        # An explorer's own `process_sheep` may read more than the history, which can change later.
        own = type(self.explorer).process_sheep is not Explorer.process_sheep
        if sheep.status.state == State.COMPLETED and not own:
            self._finished[sig] = length, row
        return row

    def _metrics(self, sheep: Sheep, history: list[dict]) -> Mapping[str, Any] | None:
        """The explorer's metrics of an experiment. None: it raised an error."""
        try:
            try:
                found = self.explorer.process_sheep(sheep, history)
            except NotImplementedError:  # Dora's rule: then the explorer needs the history alone
                found = self.explorer.process_history(history)
            return found if isinstance(found, Mapping) else {}
        except Exception as error:  # an explorer is the user's code: it can raise anything
            self._report(error, f" on {sheep.xp.sig}")
            return None

    def columns(self) -> list[Column]:
        """Our columns, or those of the explorer's own `get_grid_meta`. Then those of its metrics."""
        columns = list(META)
        if type(self.explorer).get_grid_meta is not Explorer.get_grid_meta:
            columns = list(_columns(self.explorer.get_grid_meta(), ("Meta",), ""))
        try:
            return columns + list(_columns(self.explorer.get_grid_metrics(), (), ""))
        except Exception as error:
            self._report(error)
            return columns

    def draw(self, rows: Sequence[Row], most: int | None = None) -> Board:
        """The header line, the overrides that all experiments share, and the table.

        Args:
            most: the number of lines that the screen has. None: there is no limit.
        """
        header = heading(self.name, [row.status for row in rows])
        if self._drawn is None or self._drawn[:2] != (list(rows), most):
            self._drawn = list(rows), most, self._draw(header, rows, most)
        board = self._drawn[2]
        board.header = header  # the time in it goes on
        return board

    def _draw(self, header: str, rows: Sequence[Row], most: int | None) -> Board:
        marks = self.main.marks(self.sheep)
        lines = [row.line(*marks.get(row.sig, ("", ""))) for row in rows]
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
        """Styles of rich that the rows take in turn: the ANSI colours of the explorer."""
        styles = []
        for code in self.explorer.get_colors() or []:
            spans = Text.from_ansi(f"\x1b[{code}mx\x1b[0m").spans
            styles.append(str(spans[0].style) if spans else "")
        return styles

    def _report(self, error: Exception, where: str = "") -> None:
        """Print an error of the explorer, once for each kind."""
        if type(error).__name__ not in self._reported:
            self._reported.add(type(error).__name__)
            print(
                f"the explorer of {self.name} fails{where}: {type(error).__name__}: {error}",
                file=sys.stderr,
            )


def _columns(nodes: Iterable[Any], path: tuple[str, ...], title: str) -> Iterator[Column]:
    """The leaves of treetable's groups as columns.

    A leaf `acc` in a group `valid` is the column `valid acc`.

    Args:
        nodes: groups and leaves of treetable.
        path: the keys of the groups around them.
        title: the titles of these groups.
    """
    for node in nodes:
        name = f"{title} {node.display}".strip()
        if node.groups is not None:
            yield from _columns(node.groups, (*path, node.key), name)
        else:
            yield Column(
                (*path, node.key), name, node.format or "", node.align != "<", node.missing or ""
            )
