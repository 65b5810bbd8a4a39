"""Thousands of experiments: few file system calls for each, and nothing is done twice."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from experiments import experiment, sweep
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT
from rich.console import Console

from dora_train.engine.experiment import claims
from dora_train.engine.experiment.records import State
from dora_train.engine.grid import watching
from dora_train.engine.grid.watching import Watching
from dora_train.engine.watch import live
from dora_train.engine.watch.info import lines
from dora_train.engine.watch.live import Monitor
from dora_train.engine.watch.status import Status
from dora_train.report import report as reporting
from dora_train.report.formats import as_text
from dora_train.report.parameters import canonical, identity
from dora_train.report.report import Report
from dora_train.report.watch import LiveTable

FEW, MANY = 30, 60  # experiments: the cost of one is a thirtieth of the difference
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.sampled_from("1ab")),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.just("a"), inner)),
    max_leaves=3,
)
MAKE_ALL = """
import json, os, sys
from dora_train.engine.experiment.records import RunState, State
from dora_train.train import main

for index in range(int(sys.argv[1])):
    xp = main.get_xp([f"optim.lr={0.001 * (index + 1)!r}"])
    one = main.create(xp)
    one.attempts.mkdir()
    (one.attempts / "1.json").write_text("{}")
    one.write_history([{"train": {"loss": 1.0}, "valid": {"loss": 1.0, "acc": 0.5}}])
    one.write_result({"best": {"epoch": 1}, "test": {"acc": 0.5}})
    one.write_state(RunState(State.COMPLETED, "max_epochs", 1, 1, 1))
"""
GRID = '''"""How many?"""
import os
from dora import Explorer


@Explorer
def explorer(launcher):
    for index in range(int(os.environ["MANY"])):
        launcher({"optim.lr": 0.001 * (index + 1)})
'''


@given(VALUES, VALUES)
def test_values_are_the_same_if_their_texts_are(one: object, other: object):
    assert (identity(one) == identity(other)) == (canonical(one) == canonical(other))


def test_a_long_table_shows_the_first_runs_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = sweep(tmp_path)
    whole = as_text(Report(tmp_path, ["sweep"]))
    assert "of 9 experiments" not in whole
    monkeypatch.setattr(reporting, "MOST_ROWS", 4)
    text = as_text(Report(tmp_path, ["sweep"]))
    shown = [one.sig for one in made if one.sig in text]
    in_order = [one.sig for one in Report(tmp_path, ["sweep"]).runs]
    assert set(shown) == set(in_order[:4])
    assert "the first 4 of 9 experiments; all of them: --last all" in text
    assert all(one.sig in as_text(Report(tmp_path, ["sweep"], last=99)) for one in made)


def test_the_dry_run_of_many_names_the_command_for_their_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(watching, "MOST_OF_A_PLAN", 1)
    wants = SimpleNamespace(folder=tmp_path)
    command: Any = SimpleNamespace(
        grid="big", args=SimpleNamespace(silent=False), search=None, wants=wants
    )
    inventory: Any = SimpleNamespace(sheep=[SimpleNamespace(status=Status(State.COMPLETED))] * 2)
    refill = resume = lambda *_: ()
    Watching(command, refill, resume, lambda: inventory, lambda: False).show_plan(inventory)
    heading, table = capsys.readouterr().out.splitlines()
    assert heading.startswith("big   2 XPs   2 completed")
    assert table.endswith("python -m dora_train.report big")


WITHOUT_TORCH = """
import sys
from dora_train.report.__main__ import main
main(sys.argv[1:])
assert not {"torch", "dora", "hydra"} & set(sys.modules)
"""


def test_the_report_of_a_signature_is_the_card_of_dora_info(tmp_path: Path):
    one, *_ = sweep(tmp_path)
    card = "\n".join(lines(one, tmp_path, None))
    assert as_text(Report(tmp_path, [one.sig[:6]])) == f"{card}\n"
    for asked in ({"last": 1}, {"chosen_metrics": ["test.acc"]}, {"sort": "test.acc"}):
        assert "1 XP " in as_text(Report(tmp_path, [one.sig], **asked))
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, one.sig],
        cwd=ROOT,
        env=os.environ | {"DORA_DIR": str(tmp_path), "DORA_QUEUE": str(tmp_path / "queue")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.startswith(card.splitlines()[0])


def test_a_live_table_is_made_anew_only_if_a_run_has_changed(tmp_path: Path):
    sweep(tmp_path)
    moving = experiment(tmp_path, {"seed": 99}, state=State.RUNNING, epochs=2, grid="sweep")
    table = LiveTable("sweep", Report(tmp_path, ["sweep"]).runs)
    options = SimpleNamespace(trim=None, trim_last=False, interval=5, jupyter=False, silent=False)
    monitor = Monitor(table, None, options, moves=False)
    first = monitor.board(50)
    monitor.refresh()
    assert monitor.board(50) is first
    assert monitor.board(20) is not first
    first = monitor.board(50)
    moving.write_state(replace(moving.state(), epoch=3))
    monitor.refresh()
    assert monitor.board(50) is not first
    screen = Console(file=io.StringIO(), width=200)
    screen.print(monitor.board(50))
    assert "3/5" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_a_monitor_returns_as_soon_as_it_has_seen_the_end(tmp_path: Path, monkeypatch):
    moving = experiment(tmp_path, {"seed": 99}, state=State.RUNNING, epochs=2, grid="sweep")
    claims.claim(moving)
    table = LiveTable("sweep", Report(tmp_path, ["sweep"]).runs)
    options = SimpleNamespace(trim=None, trim_last=False, interval=5, jupyter=False, silent=True)
    pauses = []

    def end(pause: float) -> None:
        pauses.append(pause)
        moving.write_state(replace(moving.state(), state=State.COMPLETED))

    monkeypatch.setattr(live.time, "sleep", end)
    Monitor(table, None, options, moves=False).run()
    assert len(pauses) == 1


def test_a_search_goes_on_if_a_trial_ended_between_two_looks(tmp_path: Path, monkeypatch):
    """Nothing is live any more, but the search does not know the last end."""
    experiment(tmp_path, {"seed": 99}, state=State.COMPLETED, epochs=2, grid="sweep")
    table = LiveTable("sweep", Report(tmp_path, ["sweep"]).runs)
    options = SimpleNamespace(trim=None, trim_last=False, interval=5, jupyter=False, silent=True)
    rounds = []

    def go_on() -> tuple[LiveTable, Any]:
        rounds.append(1)
        return table, charge

    charge = live.Charge(lambda: True, lambda held: None, go_on=go_on, missed=lambda _: not rounds)
    monkeypatch.setattr(live.time, "sleep", lambda pause: None)
    monitor = Monitor(table, None, options, moves=False)
    monitor.charge = charge
    monitor.run()
    assert rounds == [1]


def test_a_monitor_settles_what_the_scheduler_did_not_answer(tmp_path: Path):
    unsure, sure = (
        experiment(tmp_path, {"seed": seed}, state=State.NEW, grid="sweep") for seed in (1, 2)
    )
    table = LiveTable("sweep", Report(tmp_path, ["sweep"]).runs)
    for sheep in table.sheep:
        is_sure = sheep.experiment.sig == sure.sig
        sheep.status = Status(State.WAITING, by_job=True, certain=is_sure)
    options = SimpleNamespace(trim=None, trim_last=False, interval=5, jupyter=False, silent=True)
    settled: list[Any] = []
    monitor = Monitor(table, None, options, moves=False)
    monitor.charge = live.Charge(lambda: True, lambda held: None, settle=settled.extend)
    monitor._start_waiting()
    assert [sheep.experiment.sig for sheep in settled] == [unsure.sig]


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that counts the file system calls of a process, see slow_disk.c."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("the calls are counted by a library for Linux, which gcc makes")
    library = tmp_path_factory.mktemp("counting") / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    made = ["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(made, check=True)
    return library


def calls(library: Path, out: Path, *command: str, **more: str) -> int:
    """How many calls a command makes that name a path below the folder of results."""
    count = out.parent / "count"
    count.unlink(missing_ok=True)
    env = {**os.environ, "DORA_DIR": str(out), "DORA_QUEUE": f"{out.parent}/queue", **more}
    env |= {"DORA_CLUSTER": "local", "LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"SLOW_BELOW": str(out), "SLOW_COUNT": str(count)}
    subprocess.run(command, cwd=more["ROOT"], env=env, check=True, stdout=subprocess.DEVNULL)
    return max(map(int, count.read_text().split()))


@pytest.mark.slow
def test_a_finished_experiment_takes_two_calls(counting: Path, tmp_path: Path):
    root, out = tmp_path / "project", tmp_path / "outputs"
    for name in ("conf", "dora_train", "grids"):
        shutil.copytree(ROOT / name, root / name)
    (root / "grids" / "many.py").write_text(GRID)
    index = root / "dora_train" / "engine" / "experiment" / "finished.py"
    index.write_text(index.read_text().replace("SETTLED = 3.0", "SETTLED = -60.0"))
    python = sys.executable
    made = {"DORA_DIR": str(out), "DORA_QUEUE": str(tmp_path / "queue")}
    subprocess.run([python, "-c", MAKE_ALL, str(MANY)], cwd=root, env=os.environ | made, check=True)
    names = sorted(path.name for path in (out / "xps").iterdir())
    for grid, count in (("few", FEW), ("all", MANY)):
        (out / "grids" / grid).mkdir(parents=True)
        for name in names[:count]:
            (out / "grids" / grid / name).touch()
    dora = str(Path(python).with_name("dora"))
    plan = [dora, "grid", "many", "--dry_run", "--no_monitoring"]
    report = [python, "-m", "dora_train.report", "--format", "json"]
    where = {"ROOT": str(root)}
    unknown = calls(counting, out, *plan, MANY=str(MANY), **where)
    assert (out / "finished.index").exists() and unknown > 10 * MANY
    few, many = (calls(counting, out, *plan, MANY=str(n), **where) for n in (FEW, MANY))
    assert many - few < 3 * (MANY - FEW)
    few, many = (calls(counting, out, *report, grid, **where) for grid in ("few", "all"))
    assert many - few < 3 * (MANY - FEW)
    found = subprocess.run(
        report, cwd=root, env=os.environ | made, check=True, capture_output=True, text=True
    )
    assert {one["state"] for one in json.loads(found.stdout)} == {"completed"}
