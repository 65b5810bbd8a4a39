"""What signatures and grids of thousands cost, beside stock Dora on our configuration:

`benchmarks/planning.py`.

Planning: CPU of a signature with six overrides, one of them a choice of group. Grid: `dora grid big
--dry_run` of many experiments over `python -c "import dora"`. Table: one refresh of a thousand
experiments of 100 epochs of ten metrics, fifty of which run. Info: `dora info -f`. With --files,
each operation's system calls on one experiment's files, counted by strace.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/engine"), str(ROOT / "benchmarks")]

from experiments import experiment  # noqa: E402
from rich.console import Console  # noqa: E402
from store import overrides  # noqa: E402

DORA = str(Path(sys.executable).with_name("dora"))
GRID = '''"""How many?"""
import os
from ._explorers import ClassifierExplorer


@ClassifierExplorer
def explorer(launcher):
    for index in range(int(os.environ["BIG"])):
        launcher({"optim.lr": 0.001 * (index + 1), "seed": index % 7, "data": "cifar10" if index % 2 else "mnist",
                  "data.batch_size": 16 * (1 + index % 4), "optim.momentum": 0.8, "trainer.max_epochs": 10 + index % 9})
'''
STOCK = """
import importlib.util, sys, time, dora.hydra
dora.hydra.find_spec = lambda name: importlib.util.spec_from_file_location(name, sys.argv[1] + "/dora_train/train.py")
def main(cfg): pass
main.__module__ = "dora_train.stock"
stock = dora.hydra.HydraMain(main, config_name="config", config_path="../conf", version_base="1.3")
for line in sys.stdin:
    began = time.process_time()
    stock.get_xp(line.split())
    print(time.process_time() - began, flush=True)
"""
TRACED = "%file,read,write,readv,writev,pread64,pwrite64,fsync"
KINDS = {
    "read": "read",
    "pread64": "read",
    "readv": "read",
    "write": "write",
    "pwrite64": "write",
    "writev": "write",
    "fsync": "fsync",
}


def few(index: int) -> list[str]:
    """Those of a grid that varies two keys."""
    return [f"optim.lr={0.001 * (index + 1)!r}", f"seed={index % 7}"]


# --- planning ---


def planning(count: int, stock_count: int) -> None:
    from dora_train.train import main

    lines = "".join(" ".join(overrides(index)) + "\n" for index in range(stock_count))
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(ROOT)],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    stock = statistics.median(map(float, done.stdout.split()))
    for name, argv in (("six overrides, a group among them", overrides), ("two", few)):
        began = time.process_time()
        for index in range(count):
            main.get_xp(argv(index))
        ours = (time.process_time() - began) / count
        print(
            f"a signature with {name}, ms of CPU: ours {1000 * ours:.3f} (mean of {count:,}, the first "
            f"included), stock {1000 * stock:.0f} (median of {stock_count}, with six): "
            f"{stock / ours:.0f} times"
        )


# --- commands ---


def command(words: list[str], root: Path, env: dict[str, str]) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, peak MB) of one."""
    began = time.perf_counter()
    process = subprocess.Popen(words, cwd=root, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)} ended with {process.returncode}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def median_of(words: list[str], root: Path, env: dict[str, str], rounds: int) -> tuple[float, ...]:
    figures = [command(words, root, env) for _ in range(rounds)]
    return tuple(map(statistics.median, zip(*figures)))


def copied(folder: Path) -> Path:
    root = folder / "project"
    for name in ("conf", "dora_train", "grids"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "grids" / "big.py").write_text(GRID)
    return root


def commands(folder: Path, counts: list[int], rounds: int) -> None:
    root, out = copied(folder), folder / "outputs"
    env = os.environ | {
        "DORA_DIR": str(out),
        "DORA_QUEUE": f"{folder}/queue",
        "DORA_CLUSTER": "local",
    }
    made = experiment(out, {"optim.lr": 0.3})
    bare = median_of([sys.executable, "-c", "import dora"], root, env, rounds)
    print(
        f"\n| command | wall s | CPU s | peak MB |\n| --- | --- | --- | --- |\n{row('import dora', bare)}"
    )
    info = median_of([DORA, "info", "-f", made.sig], root, env, rounds)
    print(row(f"`dora info -f` ({info[0] / bare[0]:.2f} times `import dora`)", info))
    words = [DORA, "grid", "big", "--dry_run", "--no_monitoring"]
    for count in counts:
        figures = median_of(words, root, env | {"BIG": str(count)}, min(3, rounds))
        print(row(f"`dora grid --dry_run`, experiments: {count:,}", figures), flush=True)
    initialise(root, env, 1000)
    print(
        row(
            "the second call of 1,000: all are known",
            median_of(words, root, env | {"BIG": "1000"}, 3),
        )
    )


def initialise(root: Path, env: dict[str, str], count: int) -> None:
    """Make the folders of the grid's first experiments, as `dora grid --init` does, and none of
    their jobs."""
    lines = ",\n".join(repr(overrides(index)) for index in range(count))
    (root / "make_all.py").write_text(
        f"from dora_train.train import main\n\nfor argv in [{lines}]:\n"
        "    main.create(main.get_xp(argv))\n"
    )
    subprocess.run(
        [sys.executable, "make_all.py"], cwd=root, env=env, check=True, stdout=subprocess.DEVNULL
    )


def row(name: str, figures: tuple[float, ...]) -> str:
    return f"| {name} | {figures[0]:.2f} | {figures[1]:.2f} | {figures[2]:.0f} |"


# --- the table ---


def table(folder: Path, count: int, running: int, rounds: int) -> None:
    """Seconds of a refresh with its drawing on a screen of 50 lines: the first, and where nothing
    has changed."""
    first, again = [], []
    made = many(folder / "table", count, running)
    for _ in range(rounds):
        monitor = watched(made)
        first.append(refresh(monitor))
        again += [refresh(monitor) for _ in range(3)]
    print(
        f"\na refresh of {count:,} experiments, {running} of them running, s: "
        f"first {statistics.median(first):.2f}, unchanged {statistics.median(again):.3f}"
    )


def many(out: Path, count: int, running: int) -> list[Any]:
    from dora_train.engine.experiment import claims
    from dora_train.engine.experiment.records import State

    history = []
    for epoch in range(1, 101):
        metrics = {"m0": 0.0, "m1": 1 / 7, "m2": 2 / 7, "loss": 1 / epoch, "acc": epoch / 101}
        history.append({"train": metrics, "valid": metrics})
    made = []
    for index in range(count):
        state = State.RUNNING if index < running else State.COMPLETED
        one = experiment(out, {"optim.lr": 0.001 * (index + 1)}, epochs=0, total=100, state=state)
        one.write_history(history)
        if state is State.RUNNING:  # by this process, which lives
            run = one.state()
            run.attempt, run.state = 0, State.NEW
            one.write_state(run)
            run.attempt, run.state = claims.claim(one).attempt, State.RUNNING
            one.write_state(run)
        made.append(one)
    return made


def watched(made: list[Any]) -> Any:
    from dora_train.engine.grid.sheep import Sheep
    from dora_train.engine.grid.table import GridTable
    from dora_train.engine.jobs.choose import asked
    from dora_train.engine.watch.live import Monitor
    from dora_train.engine.watch.status import look
    from dora_train.train import main
    from grids._explorers import ClassifierExplorer

    sheep = [Sheep(main.get_xp_from_sig(one.sig), one) for one in made]
    statuses = look(made, asked())
    for one in sheep:
        one.status = statuses[one.experiment.sig]
    explorer = ClassifierExplorer(lambda launcher: None)
    args = SimpleNamespace(trim=None, trim_last=False, interval=5, jupyter=False, silent=False)
    return Monitor(GridTable("big", explorer, main, sheep), asked(), args)


def refresh(monitor: Any) -> float:
    began = time.perf_counter()
    monitor.refresh()
    Console(file=io.StringIO(), width=120).print(monitor.board(50))
    return time.perf_counter() - began


# --- files ---


def files(folder: Path) -> None:
    """System calls on the files below DORA_DIR, and bytes, of each operation on one experiment."""
    root, out = copied(folder), folder / "outputs"
    env = os.environ | {
        "DORA_DIR": str(out),
        "DORA_QUEUE": f"{folder}/queue",
        "DORA_CLUSTER": "local",
    }
    print(
        "| operation | calls that name a path | of these found nothing | reads | writes | fsync | bytes read "
        "| bytes written |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    run = [DORA, "run", "trainer.max_epochs=1", "logger=[]"]
    show("`dora run`, an epoch", traced(run, root, env, out))
    [one] = (out / "xps").glob("*")
    show("`dora run`, finished", traced(run, root, env, out))
    show("`dora info -f`", traced([DORA, "info", "-f", one.name], root, env, out))
    initialise(root, env, 11)
    plan, report = (
        [DORA, "grid", "big", "--dry_run", "--no_monitoring"],
        [sys.executable, "-m", "dora_train.report"],
    )
    few, many = (traced(plan, root, env | {"BIG": count}, out) for count in ("1", "11"))
    show(
        "`dora grid --dry_run`, for each experiment that is there",
        [(b - a) / 10 for a, b in zip(few, many)],
    )
    few, many = traced([*report, one.name], root, env, out), traced(report, root, env, out)
    show("`python -m dora_train.report`, for each", [(b - a) / 11 for a, b in zip(few, many)])


def show(name: str, figures: Sequence[float]) -> None:
    print(f"| {name} | {' | '.join(f'{figure:,.0f}' for figure in figures)} |", flush=True)


def traced(words: list[str], root: Path, env: dict[str, str], out: Path) -> list[float]:
    """Of one command: calls that name a path, of these in vain, reads, writes, fsyncs, bytes read,
    bytes written."""
    log = out.parent / "strace"
    subprocess.run(
        ["strace", "-f", "-y", "-e", f"trace={TRACED}", "-o", str(log), *words],
        cwd=root,
        env=env,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    counts = dict.fromkeys(("path", "missing", "read", "write", "fsync"), 0)
    moved = {"read": 0, "write": 0}
    for line in log.read_text(errors="replace").splitlines():
        call = re.match(r"\d+ +(\w+)\((.*)\) += (-?\d+)", line)
        if call is None or str(out) not in line:
            continue
        kind = KINDS.get(call[1], "path")
        counts[kind] += 1
        counts["missing"] += kind == "path" and "ENOENT" in line
        if kind in moved:
            moved[kind] += max(0, int(call[3]))
    return [*counts.values(), *moved.values()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--files", action="store_true", help="count system calls (needs strace), and nothing else"
    )
    given = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(KeyboardInterrupt):
        if given.files:
            return files(Path(name))
        print(
            f"dora-search {version('dora-search')}, hydra-core {version('hydra-core')}, torch {version('torch')}, "
            f"Python {sys.version.split()[0]}\n"
        )
        # read when `main` is imported
        os.environ |= {"DORA_DIR": f"{name}/table", "DORA_QUEUE": f"{name}/queue"}
        planning(1000, 20)
        commands(Path(name), given.counts, given.rounds)
        table(Path(name), 1000, 50, 3)
    return None


if __name__ == "__main__":
    main()
