"""Makes the pictures of the README again: `python docs/pictures/make.py`, from the project's folder.

A run and a grid of small experiments in a temporary folder. Their lines become SVG with rich. For
the page of the report, which becomes a PNG, chromium must be installed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WIDTH = 124  # columns
GRID = "mysweep"
QUICK = ["trainer.max_epochs=5", "threads=1"]


def said(command: list[str], folder: Path, code: int = 0) -> str:
    """What a command prints into a pipe: no bar that moves.

    Raises:
        SystemExit: it ended with another code.
    """
    env = os.environ | {
        "DORA_DIR": str(folder / "outputs"),
        "DORA_QUEUE": str(folder / "queue"),
        "DORA_CLUSTER": "local",
        "DORA_YES": "1",
        "COLUMNS": str(WIDTH),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode != code:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout.replace(f"{folder}/", "")


def draw(command: str, output: str, path: Path) -> None:
    """Write what a terminal shows of a command."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))
    console.print(f"[bold]$ {command}[/bold]", highlight=False)
    console.print(output.rstrip(), highlight=False, markup=False)
    svg = console.export_svg(title="dora_train", unique_id=path.stem)
    path.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.M), encoding="utf-8")
    print(path.relative_to(ROOT))


def photograph(page: Path, path: Path) -> None:
    """A picture of the top of a page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print(f"{path.relative_to(ROOT)} is left as it is: there is no chromium")
        return
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1100,900"]
    subprocess.run(
        [chromium, *options, f"--screenshot={path}", page.as_uri()], check=True, capture_output=True
    )
    print(path.relative_to(ROOT))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = ["dora", "run", "optim.lr=0.1"]
        draw(" ".join(run), said([*run, *QUICK], folder), HERE / "run.svg")
        said(["dora", "grid", GRID, "--no_monitoring"], folder)
        said(["dora", "grid", GRID], folder)
        table = said(["dora", "grid", GRID, "--no_monitoring"], folder)
        draw(f"dora grid {GRID}", table, HERE / "grid.svg")
        report = [
            sys.executable,
            "-m",
            "dora_train.report",
            GRID,
            "--html",
            str(folder / "page.html"),
        ]
        said(report, folder)
        photograph(folder / "page.html", HERE / "report.png")


if __name__ == "__main__":
    main()
