"""What the report shows of a day's work: 30 made-up runs as text of five widths, and as a page.

    python benchmarks/day_pictures.py FOLDER

The folder gets `text-WIDTH.txt` and `last-WIDTH.txt`, and `page-WIDTH-THEME.png` if there is a
browser (`tests/engine/browser.py`). The runs are those of `tests/engine/day.py`.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/engine")]

import browser  # noqa: E402
from day import day  # noqa: E402

from dora_train.report import formats  # noqa: E402
from dora_train.report.page import page  # noqa: E402
from dora_train.report.report import Report  # noqa: E402

WIDTHS = (60, 80, 110, 140, 200)


def text(report: Report, width: int) -> str:
    formats.console = lambda: Console(width=width, color_system=None, file=io.StringIO())
    return formats.as_text(report)


def photograph(file: Path, folder: Path) -> None:
    """Pictures of the whole page, on a screen and on a phone, in both themes."""
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            with browser.opened(width, scheme) as tab:
                path = folder / f"page-{width}-{scheme}.png"
                tab.open(file).screenshot(path=path, full_page=True)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as outputs:
        day(Path(outputs))
        for width in WIDTHS:
            (folder / f"text-{width}.txt").write_text(text(Report(Path(outputs)), width))
            last = text(Report(Path(outputs), last=10), width)
            (folder / f"last-{width}.txt").write_text(last)
        file = folder / "page.html"
        file.write_text(page(Report(Path(outputs), over=["seed"])), encoding="utf-8")
    if trouble := browser.missing():
        print(f"no pictures of the page: {trouble}")
    else:
        photograph(file, folder)
    print(f"{folder}: {len(list(folder.iterdir()))} files")


if __name__ == "__main__":
    main()
