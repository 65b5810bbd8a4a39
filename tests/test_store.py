"""The experiment's folder: whole files, whatever is killed or damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dora_train.engine import store
from dora_train.engine.store import Birth, Experiment, RunState, State


@pytest.fixture
def xp(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path / "xps" / "0123abcd")


def birth(seed: int) -> Birth:
    return Birth("0123abcd", [f"seed={seed}"], [["seed", seed]], {"seed": seed}, 1, 2, {}, {}, 0.0)


def test_a_birth_is_written_once(xp: Experiment):
    assert xp.write_birth(birth(1)) and not xp.write_birth(birth(2))
    stored = xp.birth()
    assert stored and stored.config == {"seed": 1} and xp.argv() == ["seed=1"]


@pytest.mark.parametrize("content", ["", "{", "[1, 2", "null", "3", "{}", '{"state": "nonsense"}', "\x00\xff"])
def test_damaged_files_never_break_a_reader(xp: Experiment, content: str):
    xp.folder.mkdir(parents=True)
    for name in ("state.json", "history.json", "result.json", "birth.json", ".argv.json"):
        (xp.folder / name).write_text(content)
    assert xp.state().state is State.NEW and xp.history() == []
    assert xp.birth() is None and xp.job() is None
    assert xp.result() is None or isinstance(xp.result(), dict)


def test_a_state_survives_keys_of_other_versions(xp: Experiment):
    xp.write_state(RunState(State.RUNNING, epoch=3))
    content = json.loads((xp.folder / "state.json").read_text())
    (xp.folder / "state.json").write_text(json.dumps(content | {"from_tomorrow": 1}))
    assert xp.state().state is State.RUNNING and xp.state().epoch == 3


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file.json"
    store.write_json(path, [1])
    with pytest.raises(RuntimeError), store.written_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert store.read_json(path) == [1] and list(tmp_path.iterdir()) == [path]


def test_files_follow_the_umask(tmp_path: Path):
    before = os.umask(0o002)
    try:
        store.write_json(tmp_path / "a.json", 1)
        store.write_once(tmp_path / "b.json", 1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o664}
