"""How long the report takes: one signature, and a grid of many made-up experiments in every form.

    python benchmarks/report_speed.py [EXPERIMENTS] [EPOCHS]

Each figure is the median of five commands, Python's own start included. Where there is a browser,
see `tests/engine/browser.py`, the time as well until it has opened the page, charts and all.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/engine")]

import browser  # noqa: E402
from experiments import sweep  # noqa: E402

ROUNDS = 5


def measured(out: Path, *args: str) -> float:
    """Seconds of one command."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "dora_train.report", *args],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "DORA_DIR": str(out), "DORA_QUEUE": f"{out}/queue"},
    )
    return time.perf_counter() - began


def opening(page: Path) -> float:
    """Seconds until a browser that runs already can say how many rows the page's table has."""
    with browser.opened() as tab:
        began = time.perf_counter()
        tab.page.goto(page.as_uri())
        tab.page.evaluate(
            "new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
        )
        assert tab.page.locator(".runs tbody tr").count()
        return time.perf_counter() - began


def main() -> None:
    count, epochs = (int(word) for word in (sys.argv[1:] + ["500", "100"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        first, *_ = sweep(out, rates=count // 5, seeds=5, epochs=epochs)
        commands = {
            "one signature": [first.sig],
            f"{count} runs": ["sweep"],
            "over seeds": ["sweep", "--over", "seed"],
            "as CSV": ["sweep", "--format", "csv"],
            "as a page": ["sweep", "--html", f"{out}/page.html"],
        }
        print(f"{count} experiments of {epochs} epochs, seconds")
        for name, args in commands.items():
            print(
                f"{name:<16} {statistics.median(measured(out, *args) for _ in range(ROUNDS)):.2f}"
            )
        if trouble := browser.missing():
            print(f"in a browser     not measured: {trouble}")
        else:
            print(
                f"in a browser     {statistics.median(opening(out / 'page.html') for _ in range(ROUNDS)):.2f}"
            )
        print(f"the page: {(out / 'page.html').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
