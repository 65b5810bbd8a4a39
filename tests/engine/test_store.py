"""The experiment's folder: whole files, whatever is killed or damaged."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from dora_train.engine import files
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import Birth, RunState, State
from dora_train.engine.grid.grids import Wants


@pytest.fixture
def xp(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path / "xps" / "0123abcd")


def birth(seed: int) -> Birth:
    return Birth("0123abcd", [f"seed={seed}"], [["seed", seed]], {"seed": seed}, 1, 2, {}, {}, 0.0)


def test_a_birth_is_written_once(xp: Experiment):
    assert xp.write_birth(birth(1)) and not xp.write_birth(birth(2))
    stored = xp.birth()
    assert stored and stored.config == {"seed": 1} and xp.argv() == ["seed=1"]


@pytest.mark.parametrize(
    "content", ["", "{", "[1, 2", "null", "3", "{}", '{"state": "nonsense"}', "\x00\xff"]
)
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
    files.write_json(path, [1])
    with pytest.raises(RuntimeError), files.written_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == [1] and list(tmp_path.iterdir()) == [path]


def test_files_follow_the_umask(tmp_path: Path):
    before = os.umask(0o002)
    try:
        files.write_json(tmp_path / "a.json", 1)
        files.write_once(tmp_path / "b.json", 1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o664}


NO_LINKS = [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS]


@pytest.fixture(params=NO_LINKS, ids=lambda number: errno.errorcode[number])
def no_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links and symbolic links:

    FAT, some network and container mounts.
    """

    def refuse(source, target, *options, **more):
        raise OSError(request.param, os.strerror(request.param), source, None, target)

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)


def test_without_links_a_file_is_written_once(no_links: None, tmp_path: Path):
    path = tmp_path / "jobs" / "1.json"
    assert files.write_once(path, "first") and not files.write_once(path, "second")
    assert files.read_json(path) == "first"
    assert [file for file in path.parent.iterdir() if file.name.endswith(".tmp")] == []
    assert [file.name for file in path.parent.glob("*.json")] == ["1.json"]


def _write(path: str, gate, results) -> None:
    gate.wait()
    results.put((files.write_once(Path(path), os.getpid()), os.getpid()))


def test_without_links_exactly_one_of_many_writes(no_links: None, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    for number in range(20):
        path = tmp_path / f"{number}.json"
        gate, results = context.Barrier(4), context.Queue()
        processes = [
            context.Process(target=_write, args=(str(path), gate, results)) for _ in range(4)
        ]
        for process in processes:
            process.start()
        said = [results.get(timeout=30) for _ in processes]
        for process in processes:
            process.join(30)
        [winner] = [pid for won, pid in said if won]
        assert files.read_json(path) == winner


def test_without_links_a_winner_that_was_killed_has_won(
    no_links: None, tmp_path: Path, monkeypatch
):
    """The file is whole or not there; the next writer brings it into its place, and has lost."""
    path, renamed = tmp_path / "1.json", files._renamed

    def killed(folder, target):
        renamed(folder, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "_renamed", killed)
        with pytest.raises(KeyboardInterrupt):
            files.write_once(path, "first")
    assert not path.exists()
    assert not files.write_once(path, "second") and files.read_json(path) == "first"
    assert not files.write_once(path, "third") and files.read_json(path) == "first"


def test_without_links_it_is_the_same_file(no_links: None, tmp_path: Path):
    """Who has it open, or locked, before it gets its name has the file of that name."""
    (tmp_path / "aside").write_text("{}")
    inode = (tmp_path / "aside").stat().st_ino
    assert files.take_name(tmp_path / "aside", tmp_path / "1.json")
    assert (tmp_path / "1.json").stat().st_ino == inode


def test_an_error_that_is_not_about_links_is_raised(tmp_path: Path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_once(tmp_path / "1.json", 1)


def test_without_links_the_checkpoint_before_is_a_copy(no_links: None, tmp_path: Path):
    from dora_train.engine.run.checkpoints import keep_previous, previous

    last = tmp_path / "last.ckpt"
    last.write_text("epoch 1")
    keep_previous(last)
    assert previous(last).read_text() == "epoch 1" and last.read_text() == "epoch 1"


def test_without_links_a_grid_knows_its_experiments(no_links: None, tmp_path: Path):
    wants = Wants(tmp_path, "question")
    for _ in range(2):
        wants.add("0123abcd")
    assert wants.named() == ["0123abcd"] and Wants(tmp_path, "other").others() == {
        "0123abcd": {"question"}
    }
    wants.drop("0123abcd")
    assert wants.named() == []
