"""How a table is written: for a terminal, as CSV, Markdown, LaTeX (booktabs) or JSON."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..engine.watch.board import console
from . import parameters
from .records import finite, flattened
from .sheet import Sheet

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
Records = Sequence[dict[str, Any]]


def as_text(sheet: Sheet, records: Records) -> str:
    """As wide as the terminal, in its colours; in a pipe as wide as need be, without."""
    screen = console()
    with screen.capture() as captured:
        screen.print(sheet.board())
        if sheet.conclusion:
            screen.print(f"\n{sheet.conclusion}", style="bold")
        for note in sheet.notes:
            screen.print(note, style="dim")
        for line in ["", *sheet.additions] if sheet.additions else []:
            screen.print(line, soft_wrap=True)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def as_csv(sheet: Sheet, records: Records) -> str:
    """Every digit, parameters by their whole keys."""
    rows = [
        {key: parameters.text(value) for key, value in row.items()} for row in flattened(records)
    ]
    file = io.StringIO()
    writer = csv.DictWriter(
        file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_json(sheet: Sheet, records: Records) -> str:
    return json.dumps(finite(list(records)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_markdown(sheet: Sheet, records: Records) -> str:
    """GitHub's table; the best of each column in bold."""
    titles, sides, rows = _cells(sheet, _in_markdown, "**{}**")
    lines = [titles, [":--" if side == "l" else "--:" for side in sides], *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    said = [f"**{_in_markdown(sheet.conclusion)}**"] if sheet.conclusion else []
    said += [_in_markdown(note) for note in sheet.notes]
    if sheet.additions:
        heading, *code = sheet.additions
        said.append(_in_markdown(heading))
        said += ["\n".join(["```python", *code, "```"])] if code else []
    return table + "".join(f"\n{part}\n" for part in said)


def as_latex(sheet: Sheet, records: Records) -> str:
    """A tabular for the package booktabs; the best of each column in bold, the rest as comments."""
    titles, sides, rows = _cells(sheet, _in_latex, r"\textbf{{{}}}")
    said = [sheet.conclusion] if sheet.conclusion else []
    lines = [
        *(f"% {line}" for line in [*said, *sheet.notes, *sheet.additions]),
        rf"\begin{{tabular}}{{{''.join(sides)}}}",
        r"  \toprule",
        rf"  {' & '.join(titles)} \\",
        r"  \midrule",
        *(rf"  {' & '.join(row)} \\" for row in rows),
        r"  \bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _cells(
    sheet: Sheet, escaped: Callable[[str], str], bold: str
) -> tuple[list[str], list[str], list[list[str]]]:
    """(titles, "l" or "r" for each column, rows), all escaped."""
    board = sheet.board()
    columns = board.filled()
    best = [board.best(column) for column in columns]
    rows = [
        [
            bold.format(cell) if at in marked and cell else cell
            for column, marked in zip(columns, best)
            for cell in [escaped(board.cell(column, line))]
        ]
        for at, line in enumerate(sheet.lines)
    ]
    return (
        [escaped(column.title) for column in columns],
        ["r" if column.right else "l" for column in columns],
        rows,
    )


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(text.split()))


def _in_latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))


FORMATS: dict[str, Callable[[Sheet, Records], str]] = {
    "text": as_text,
    "csv": as_csv,
    "markdown": as_markdown,
    "latex": as_latex,
    "json": as_json,
}
