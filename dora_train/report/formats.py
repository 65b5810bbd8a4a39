"""How a table is written: for a terminal, as CSV, Markdown, LaTeX (booktabs) or JSON."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence

from rich.console import Console

from ..engine.watch.board import console, heading
from .parameters import texts
from .records import finite, flattened
from .report import Report
from .runs import keys_of, statuses_of
from .sheet import Sheet

RULE = 80  # characters of the line between two tables
LATEX = str.maketrans(
    {
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
)


def as_text(report: Report) -> str:
    """The tables in colours and as wide as the terminal, or plain and of any width in a pipe.

    Of one experiment that is named by its signature, it is the card of `dora info`.
    """
    if experiment := report.single():
        from ..engine.watch.info import lines  # a table needs none of it

        return "\n".join(lines(experiment, report.outputs, report.executor)) + "\n"
    screen = console()
    shown = report.for_a_person()
    with screen.capture() as captured:
        sheets = shown.sheets(screen.width)
        if len(sheets) > 1:
            screen.print(heading(shown.title, statuses_of(shown.runs)), style="bold")
        for sheet in sheets:
            if len(sheets) > 1:
                screen.print(f"\n{'─' * min(screen.width, RULE)}")
            _print_sheet(screen, sheet)
    return "\n".join(map(str.rstrip, captured.get().splitlines())) + "\n"


def _print_sheet(screen: Console, sheet: Sheet) -> None:
    screen.print(sheet.board())
    if sheet.conclusion:
        screen.print(f"\n{sheet.conclusion}", style="bold")
    for note in sheet.notes:
        screen.print(note, style="dim")
    if sheet.additions:
        screen.print()
    for line in sheet.additions:
        # These are lines of Python. A break in the middle would make them invalid.
        screen.print(line, soft_wrap=True)


def as_csv(report: Report) -> str:
    """Numbers with all their digits, parameters by their whole keys."""
    rows = flattened(report.records())
    file = io.StringIO()
    writer = csv.DictWriter(file, keys_of(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(texts, rows))
    return file.getvalue()


def as_json(report: Report) -> str:
    return (
        json.dumps(finite(report.records()), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def as_markdown(report: Report) -> str:
    """A table for GitHub, with the best of each column in bold."""
    return "\n".join(map(_sheet_in_markdown, report.sheets()))


def _sheet_in_markdown(sheet: Sheet) -> str:
    titles, sides, rows = _cells(sheet, _in_markdown, "**{}**")
    rules = {"l": ":--", "r": "--:"}
    lines = [titles, [rules[side] for side in sides]]
    headings = sheet.headings()
    for at, row in enumerate(rows):
        if at in headings:
            name = f"**{_in_markdown(headings[at])}**"
            lines.append([name, *[""] * (len(titles) - 1)])
        lines.append(row)
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    if sheet.is_section:
        table = f"### {_in_markdown(sheet.title)}\n\n{table}"
    return table + "".join(f"\n{part}\n" for part in _below_in_markdown(sheet))


def _below_in_markdown(sheet: Sheet) -> list[str]:
    """The paragraphs below the table."""
    found = []
    if sheet.conclusion:
        found.append(f"**{_in_markdown(sheet.conclusion)}**")
    found += map(_in_markdown, sheet.notes)
    if sheet.additions:
        heading, *code = sheet.additions
        found.append(_in_markdown(heading))
        if code:
            found.append("\n".join(["```python", *code, "```"]))
    return found


def as_latex(report: Report) -> str:
    """A tabular for the package booktabs, with the best in bold and the other texts as comments."""
    return "\n".join(map(_sheet_in_latex, report.sheets()))


def _sheet_in_latex(sheet: Sheet) -> str:
    titles, sides, rows = _cells(sheet, _in_latex, r"\textbf{{{}}}")
    comments = [*sheet.notes, *sheet.additions]
    if sheet.conclusion:
        comments.insert(0, sheet.conclusion)
    if sheet.is_section:
        comments.insert(0, sheet.title)
    lines = [
        *(f"% {line}" for line in comments),
        rf"\begin{{tabular}}{{{''.join(sides)}}}",
        r"  \toprule",
        rf"  {' & '.join(titles)} \\",
        r"  \midrule",
        *_rows_in_latex(sheet, rows),
        r"  \bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _rows_in_latex(sheet: Sheet, rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows, with a line and a heading above each part but the first, which has a heading."""
    headings = sheet.headings()
    lines = []
    for at, row in enumerate(rows):
        if at in headings:
            if at:
                lines.append(r"  \midrule")
            name = _in_latex(headings[at])
            lines.append(rf"  \multicolumn{{{len(row)}}}{{l}}{{\emph{{{name}}}}} \\")
        lines.append(rf"  {' & '.join(row)} \\")
    return lines


def _cells(
    sheet: Sheet, escaped: Callable[[str], str], bold: str
) -> tuple[list[str], list[str], list[list[str]]]:
    """(titles, "l" or "r" for each column, rows), all escaped.

    Args:
        bold: a format for the best cells of a column.
    """
    board = sheet.board()
    columns = board.filled()
    best = list(map(board.best, columns))
    titles, sides = [], []
    for column in columns:
        titles.append(escaped(column.title))
        sides.append("r" if column.right else "l")
    rows = []
    for at, line in enumerate(sheet.lines):
        row = []
        for column, marked in zip(columns, best):
            cell = escaped(board.cell(column, line))
            row.append(bold.format(cell) if cell and at in marked else cell)
        rows.append(row)
    return titles, sides, rows


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(text.split()))


def _in_latex(text: str) -> str:
    return " ".join(text.split()).translate(LATEX)


FORMATS: dict[str, Callable[[Report], str]] = {
    "text": as_text,
    "csv": as_csv,
    "markdown": as_markdown,
    "latex": as_latex,
    "json": as_json,
}
