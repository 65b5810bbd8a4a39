"""Runs the lessons again: `python docs/lessons/make.py [NAME ...]`, from the project's folder.

It runs the grid of each lesson with `dora grid`, in a temporary folder. Then it writes into the
page, between its marks: the grid, the time, and the table and verdict of each report that the page
names. The picture shows how far each setting of the first report is behind. For the picture,
chromium and playwright (requirements-dev.txt) must be installed.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "engine"))

import browser  # noqa: E402

COLUMNS = 200  # of the table


def said(command: list[str], folder: Path) -> str:
    """What a command prints. Its results go to `folder`."""
    env = os.environ | {
        "DORA_DIR": str(folder / "outputs"),
        "DORA_QUEUE": str(folder / "queue"),
        "DORA_CLUSTER": "local",
        "DORA_YES": "1",
        "COLUMNS": str(COLUMNS),
    }
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def photograph(page: Path, path: Path) -> None:
    """A picture of how sure the report is of each setting."""
    if trouble := browser.missing():
        print(f"{path.name} is left as it is: {trouble}")
        return
    with browser.opened(900) as tab:
        tab.open(page).locator(".intervals-part").first.screenshot(path=path)


def written(text: str, mark: str, content: str) -> str:
    """The text of a page with other content between `<!-- mark -->` and `<!-- end -->`."""
    pattern = rf"(<!-- {mark} -->\n).*?(<!-- end -->)"
    assert re.search(pattern, text, flags=re.S), f"there is no place for the {mark}"
    return re.sub(pattern, lambda found: f"{found[1]}{content}{found[2]}", text, flags=re.S)


def make(name: str, folder: Path) -> None:
    """Run one lesson, and write what came out into its page."""
    began = time.monotonic()
    said([str(Path(sys.executable).with_name("dora")), "grid", f"lessons.{name}"], folder)
    write(name, folder, (time.monotonic() - began) / 60)


def write(name: str, folder: Path, minutes: float) -> None:
    """Write the grid of a lesson, its time, its tables and verdicts into its page."""
    page = HERE / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    grid = (ROOT / "grids" / "lessons" / f"{name}.py").read_text(encoding="utf-8")
    text = written(text, "grid", f"```python\n{grid}```\n")
    reports = re.findall(rf"^python (-m dora_train.report lessons.{name} .*)$", text, flags=re.M)
    parts = [f"It took {minutes:.1f} minutes on two cores."]
    for words in reports:
        table = said([sys.executable, *words.split(), "--format", "markdown"], folder)
        # what the signs mean, and how to add seeds, is the same in each report
        parts.append(table.partition("Compared by")[0].strip())
    page.write_text(written(text, "result", "\n\n".join(parts) + "\n"), encoding="utf-8")
    html = folder / f"{name}.html"
    said([sys.executable, *reports[0].split(), "--html", str(html)], folder)
    photograph(html, HERE / f"{name}.png")
    print(f"{page.relative_to(ROOT)}: {minutes:.1f} minutes")


def main() -> None:
    names = sys.argv[1:] or sorted(page.stem for page in HERE.glob("*.md"))
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            make(name, Path(folder))


if __name__ == "__main__":
    main()
