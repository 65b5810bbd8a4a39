"""The rows of a table for rich. board.py decides which rows and columns there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from . import layout
from .columns import Column, Part

if TYPE_CHECKING:
    from .board import Board

INDENT = 4  # columns before the text below a row


def rows(
    board: Board, columns: Sequence[Column], chosen: Sequence[int], width: int
) -> Iterator[RenderableType]:
    """Yield the titles and the rows, with a heading above each part of the table.

    Args:
        columns: those that fit.
        chosen: the rows that are shown.
        width: of the screen.
    """
    widths = board.widths(columns, chosen, width)
    total = min(width, sum(widths.values()) + layout.GAP * (len(columns) - 1))
    yield _table(board, columns, widths, [])
    for group, of_group in _by_heading(board, chosen):
        if group in board.parts:
            yield from _heading(board.parts[group], total)
        if not board.below:
            yield _table(board, columns, widths, of_group)
            continue
        for at in of_group:
            yield _table(board, columns, widths, [at])
            below = Column(board.below, "").cell(board.lines[at].values)
            if below:
                yield Padding(Text(below, style="dim"), (0, 0, 0, INDENT), expand=False)


def _by_heading(board: Board, chosen: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """Each group that has a heading, with its rows. Without headings, all rows."""
    found: dict[str, list[int]] = {}
    for at in chosen:
        group = board.lines[at].group if board.parts else ""
        found.setdefault(group, []).append(at)
    yield from found.items()


def _heading(part: Part, width: int) -> Iterator[RenderableType]:
    """An empty line, and `── mnist ─────`, with what all of its rows share below it."""
    line = f"── {part.name} "
    yield Text()
    yield one_line(line + "─" * max(2, width - cell_len(line)), "bold")
    if part.base:
        yield Text(f"all: {part.base}", style="dim")


def _table(
    board: Board,
    columns: Sequence[Column],
    widths: dict[Column, int],
    chosen: Sequence[int],
) -> Table:
    """Some rows. Without any, the titles alone: both stand at the side where they meet."""
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, layout.GAP, 0, 0),
        show_header=not chosen,
        header_style="bold",
        row_styles=list(board.styles),
    )
    for column in columns:
        # as much room as a mark takes, so that each line of the title ends above the numbers
        gap = board.mark(column)
        table.add_column(
            column.title.replace("\n", f"{gap}\n") + gap,
            justify="right" if column.right else "left",
            vertical="top" if chosen else "bottom",
            width=widths[column],
            # if the widths are still too many, rich shortens the columns that may wrap
            no_wrap=column.path not in layout.SHRINKABLE,
        )
    for at in chosen:
        table.add_row(*[_cell(board, column, at) for column in columns])
    return table


def _cell(board: Board, column: Column, at: int) -> Text:
    """A cell with its mark and its style."""
    text = board.cell(column, board.lines[at]) + board.mark(column, at)
    style = board.style(column, at)
    if column.path in layout.FOLDED:
        return Text(text, style=style, overflow="fold")
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def one_line(text: str, style: str) -> Text:
    """A text that is cut at the edge of the screen."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def folded(text: str, width: int) -> list[str]:
    """The lines that a text takes in a column of this width, as rich breaks it."""
    return [line.plain for line in Text(text).wrap(Console(width=width), width, overflow="fold")]


def widest(texts: Iterable[str]) -> int:
    """The width of the widest text on a terminal. Some characters take two columns."""
    return max(map(cell_len, texts), default=0)
