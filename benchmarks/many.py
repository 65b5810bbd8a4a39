"""Thousands of finished experiments: their plan, their report, and both on a slow disk.

    python benchmarks/many.py [EXPERIMENTS] [ROUNDS]

The experiments are made by `store.py` from a real run of three epochs. "Slow" is a disk on which
each call takes 0.5 ms: a library (tests/engine/slow_disk.c) waits before each. Each figure is the
median of some commands, Python's own start included. Seconds of CPU are those of all threads.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import report_speed
from planning import DORA, ROOT, command, copied
from store import fill, overrides, template

LIBRARY = ROOT / "tests" / "engine" / "slow_disk.c"


def slow_disk(folder: Path, out: Path, microseconds: int) -> dict[str, str]:
    """The environment in which each call below `out` is slow, and is counted."""
    library = folder / "slow_disk.so"
    made = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(LIBRARY), "-ldl"]
    subprocess.run(made, check=True)
    return {
        "LD_PRELOAD": str(library),
        "SLOW_BELOW": str(out),
        "SLOW_US": str(microseconds),
        "SLOW_COUNT": str(folder / "count"),
    }


def row(name: str, words: list[str], root: Path, env: dict[str, str], rounds: int) -> None:
    figures = [command(words, root, env) for _ in range(rounds)]
    wall, cpu, memory = map(statistics.median, zip(*figures))
    print(f"| {name} | {wall:.2f} | {cpu:.2f} | {memory:.0f} |", flush=True)


def main() -> None:
    count, rounds = (int(word) for word in (sys.argv[1:] + ["10000", "3"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out, root = folder / "outputs", copied(folder)
        where = {"DORA_QUEUE": f"{folder}/queue", "DORA_CLUSTER": "local"}
        env = os.environ | where | {"DORA_DIR": str(out), "BIG": str(count)}
        empty = env | {"DORA_DIR": f"{folder}/empty", "BIG": "1"}
        os.environ |= where | {"DORA_DIR": str(out)}  # read when `main` is imported
        os.chdir(ROOT)
        made = template(folder / "template")
        fill(out, made, map(overrides, range(count)), "big")
        plan = [DORA, "grid", "big", "--dry_run", "--no_monitoring"]
        report = [sys.executable, "-m", "dora_train.report"]
        page = [*report, "big", "--html", f"{folder}/page.html"]
        print(f"{count:,} finished experiments, load {os.getloadavg()[0]:.1f}\n")
        print("| command | wall s | CPU s | peak MB |\n| --- | --- | --- | --- |")
        row("`dora grid --dry_run` of one, which is new", plan, root, empty, rounds)
        row("`dora grid --dry_run` of all, for the first time", plan, root, env, 1)
        row("`dora grid --dry_run` of all, again", plan, root, env, rounds)
        row("`python -m dora_train.report`", report, root, env, rounds)
        row("`python -m dora_train.report big`", [*report, "big"], root, env, rounds)
        one = env | {"DORA_DIR": str(made.parents[1])}
        row("`python -m dora_train.report SIG`", [*report, made.name], root, one, rounds)
        slow = env | slow_disk(folder, out, 500)
        row("`dora grid --dry_run` of all, slow disk", plan, root, slow, rounds)
        row("`python -m dora_train.report big`, slow disk", [*report, "big"], root, slow, rounds)
        row("`python -m dora_train.report big --html`", page, root, env, 1)
        calls = max(map(int, (folder / "count").read_text().split()))
        size = Path(page[-1]).stat().st_size / 1e6
        index = (out / "finished.index").stat().st_size / 1e6
        if not report_speed.browser.missing():
            print(f"\na browser opens the page in {report_speed.opening(Path(page[-1])):.1f} s")
        print(f"\ncalls for each: {calls / count:.2f}; page: {size:.1f} MB; index: {index:.1f} MB")
        print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
