"""Which columns of a table of runs fit into a width, in the order of their importance.

The columns of a run come first: its signature, its state, its main metrics, its times. They are
never left out and never cut. Then come the parameters that tell the most runs apart. The rest goes
into one text, `lr=0.1 model=resnet18`, which is folded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..engine.watch.board import Board, Column
from ..engine.watch.layout import GAP

WHAT = Column(("Meta", "what"), "what", right=False)
NARROWEST = 24  # the least width of the column of the rest. It is below each row if there is less
# a column with the same in fewer characters
SHORTER: dict[tuple[str, ...], tuple[str, ...]] = {("Meta", "when"): ("Meta", "day")}

Widest = Callable[[Column], int]  # the width that a column needs to be shown whole


@dataclass
class Fitted:
    """What a table shows in a width.

    Attributes:
        columns: from left to right.
        rest: the parameters that have no column.
        below: whether the text of the rest stands below each row.
        hidden: the other columns that have no room.
    """

    columns: list[Column]
    rest: list[Column] = field(default_factory=list)
    below: bool = False
    hidden: list[Column] = field(default_factory=list)


def fitted(
    own: Sequence[Column],
    parameters: Sequence[Column],
    others: Sequence[Column],
    widest: Widest,
    width: int,
    listed: bool,
) -> Fitted:
    """The columns that fit.

    Args:
        own: the columns that are always shown.
        parameters: the most important ones first.
        others: more metrics. They are shown if all parameters have a column.
        width: of the screen.
        listed: whether no parameter gets a column: all of them are in the text.
    """
    columns = narrowed(own, widest, width)
    if not listed and _total([*columns, *parameters], widest) <= width:
        shown, hidden = _first(others, width - _total([*columns, *parameters], widest), widest)
        return Fitted([*columns, *parameters, *shown], hidden=hidden)
    hidden = [] if listed else list(others)
    room = width - _total(columns, widest) - GAP
    if room < NARROWEST:
        return Fitted(columns, list(parameters), below=True, hidden=hidden)
    shown, rest = [], list(parameters)
    if not listed:
        shown, rest = _first(parameters, room - NARROWEST - GAP, widest)
    return Fitted([*columns, *shown, WHAT], rest, hidden=hidden)


def narrowed(columns: Sequence[Column], widest: Widest, width: int) -> list[Column]:
    """The columns, with titles of one word a line and shorter times if they are too wide."""
    found = list(columns)
    if _total(found, widest) > width:
        found = [column.stacked() for column in found]
    if _total(found, widest) > width:
        found = [replace(one, path=SHORTER.get(one.path, one.path)) for one in found]
    return found


def fit(columns: Sequence[Column], board: Board, width: int) -> bool:
    """Whether columns fit into a width, if their titles have one word a line."""
    rows = range(len(board.lines))
    return _total(columns, lambda column: board.widest(column.stacked(), rows)) <= width


def _first(
    columns: Sequence[Column], room: int, widest: Widest
) -> tuple[list[Column], list[Column]]:
    """The columns that fit into the room, up to the first that does not, and the others."""
    for count, column in enumerate(columns):
        room -= widest(column) + GAP
        if room < 0:
            return list(columns[:count]), list(columns[count:])
    return list(columns), []


def _total(columns: Sequence[Column], widest: Widest) -> int:
    return sum(map(widest, columns)) + GAP * (len(columns) - 1)
