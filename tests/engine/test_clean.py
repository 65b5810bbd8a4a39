"""`python -m dora_train.clean`: what can go, and what must stay."""

import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from experiments import experiment

from dora_train import clean
from dora_train.engine.errors import UserError
from dora_train.engine.experiment import claims
from dora_train.engine.experiment.records import Job, State
from dora_train.engine.files import write_json
from dora_train.engine.jobs.queue.queue import Queue

DAY = 24 * 3600.0


@pytest.fixture
def out(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "outputs"
    monkeypatch.setenv("DORA_DIR", str(folder))
    monkeypatch.setenv("DORA_QUEUE", str(tmp_path / "queue"))
    monkeypatch.setenv("DORA_CLUSTER", "local")
    monkeypatch.setenv("DORA_TRAIN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(clean, "outputs", lambda: folder)
    return folder


def made(out, seed, state=State.COMPLETED, grid="mysweep", age=0.0, origin=""):
    """An experiment with all kinds of checkpoints."""
    one = experiment(out, {"seed": seed}, state=state, grid=grid)
    birth = one.birth()
    birth.config["continue_from"] = origin
    write_json(one.folder / "birth.json", asdict(birth))
    for name in ("last.ckpt", "previous.ckpt", "best.ckpt", "unused.last.ckpt"):
        (one.folder / name).write_bytes(b"x" * 1000)
    one.write_state(replace(one.state(), ended=time.time() - age * DAY))
    return one


def names(one) -> list[str]:
    return sorted(path.name for path in one.folder.glob("*.ckpt"))


def table(capsys, *argv: str) -> dict[str, str]:
    clean.main(argv)
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: line for line in lines if line.split()[0] in clean.KINDS}


def test_the_list_has_every_kind_with_its_size_and_changes_nothing(out, capsys):
    one = made(out, 1)
    made(out, 2, grid="")
    before = {path: path.lstat().st_mtime_ns for path in out.rglob("*")}
    found = table(capsys)
    assert list(found) == list(clean.KINDS)
    assert found["checkpoints"].split()[:4] == ["checkpoints", "2", "6", "kB"]
    assert found["unnamed"].split()[1] == "1" and found["failed"].split()[1] == "0"
    clean.main(["checkpoints"])
    text = capsys.readouterr().out
    assert one.sig in text and "previous.ckpt, unused.last.ckpt, last.ckpt" in text
    assert "nothing was removed" in text
    assert {path: path.lstat().st_mtime_ns for path in out.rglob("*")} == before


def test_checkpoints_other_than_the_best(out):
    done, failed = made(out, 1), made(out, 2, State.FAILED)
    clean.main(["checkpoints", "--remove"])
    assert names(done) == ["best.ckpt"] and len(names(failed)) == 4
    assert done.result() and done.history()


def test_the_last_one_stays_if_it_is_the_only_one_or_is_awaited(out):
    alone, origin = made(out, 1), made(out, 2)
    alone.best_checkpoint.unlink()
    made(out, 3, State.NEW, origin=f"{origin.sig}:last")
    clean.main(["checkpoints", "--remove"])
    assert names(alone) == ["last.ckpt"] and names(origin) == ["best.ckpt", "last.ckpt"]


def test_weights_that_are_named_by_a_path_stay(out, monkeypatch):
    """A message of a run tells users to write `continue_from=PATH`."""
    origin, other = made(out, 1), made(out, 2, grid="")
    monkeypatch.chdir(out)
    made(out, 3, State.NEW, origin=f"xps/{origin.sig}/last.ckpt")
    made(out, 4, State.NEW, origin=str(other.folder / "previous.ckpt"))
    deep = made(out, 5, grid="")
    (deep.folder / "export").mkdir()
    (deep.folder / "export" / "w.ckpt").touch()
    made(out, 6, State.NEW, origin=str(deep.folder / "export" / "w.ckpt"))
    clean.main(["checkpoints", "unnamed", "--remove"])
    assert names(origin) == ["best.ckpt", "last.ckpt"]
    assert names(other) == ["best.ckpt", "previous.ckpt"]
    assert (deep.folder / "export" / "w.ckpt").exists()


def test_weights_in_a_folder_that_is_closed_to_us(out, monkeypatch):
    """Of another user's experiment, whose weights we must not look for."""
    one, closed = made(out, 1, grid=""), "/home/other/private"
    made(out, 2, State.NEW, origin=f"{closed}/w.ckpt")
    is_file = Path.is_file

    def open_or_closed(path: Path) -> bool:
        if str(path).startswith(closed):
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", open_or_closed)
    clean.main(["unnamed"])
    assert one.folder.exists()


def test_only_what_failed_long_ago(out):
    old, young = made(out, 1, State.FAILED, age=40), made(out, 2, State.FAILED, age=20)
    done = made(out, 3, age=40)
    clean.main(["failed", "--remove"])
    assert not old.folder.exists() and young.folder.exists() and done.folder.exists()
    assert not (out / "grids" / "mysweep" / old.sig).is_symlink()
    clean.main(["failed", "--days", "10", "--remove"])
    assert not young.folder.exists()
    assert [path.name for path in (out / "xps").iterdir()] == [done.sig]


def test_what_no_grid_names(out):
    named, free, origin = made(out, 1), made(out, 2, grid=""), made(out, 3, grid="")
    made(out, 4, State.INTERRUPTED, origin=origin.sig)
    clean.main(["unnamed", "--remove"])
    assert named.folder.exists() and not free.folder.exists()
    assert origin.folder.exists(), "another experiment will begin with its weights"


@pytest.mark.parametrize("kind", ["unnamed", "failed", "checkpoints", "leftovers"])
def test_never_a_running_experiment(out, kind):
    one = made(out, 1, State.RUNNING, grid="", age=100)
    claims.claim(one)
    one.write_state(replace(one.state(), attempt=1))
    left = one.folder / ".last.ckpt.1.tmp"
    left.touch()
    os.utime(left, (1, 1))
    before = sorted(one.folder.rglob("*"))
    clean.main([kind, "--remove"])
    assert sorted(one.folder.rglob("*")) == before


def test_one_that_was_started_since_it_was_listed(out, capsys):
    one = made(out, 1, State.FAILED, age=100)
    things = list(clean.Disk(out).failed())
    claims.claim(one)
    one.write_state(replace(one.state(), state=State.RUNNING, attempt=1))
    clean._each(things, remove=True)
    assert "is running by now" in capsys.readouterr().out and one.folder.exists()


def test_one_that_waits(out):
    one = made(out, 1, State.FAILED, age=100)
    token = "aaaaaaaaaaaa"
    one.intend_job(Job(token, "slurm", time.time(), number=1, user=claims.user_name()))
    one.record_job(1, "12")
    clean.main(["failed", "--remove"])
    assert one.folder.exists(), "its scheduler cannot be asked"


def test_never_another_users(out, monkeypatch):
    one = made(out, 1, State.FAILED, age=100)
    (out / ".x.tmp").touch()
    monkeypatch.setattr(clean, "other_owner", lambda experiment: "jane")
    monkeypatch.setattr(clean, "_is_ours", lambda path: False)
    for kind in clean.KINDS:
        clean.main([kind, "--remove"])
    assert one.folder.exists() and len(names(one)) == 4


def test_leftovers_of_crashed_writes(out):
    one = made(out, 1)
    old, young = one.folder / ".state.json.a.tmp", one.folder / ".state.json.b.tmp"
    gone = out / "xps" / ".0123abcd.1.2.removed"
    gone.mkdir()
    for path in (old, young, gone):
        if path != gone:
            path.touch()
        if path != young:
            os.utime(path, (1, 1))
    clean.main(["leftovers", "--remove"])
    assert not old.exists() and young.exists() and not gone.exists()


def test_snapshots_without_experiments(out):
    one = made(out, 1)
    for name in ("aaaa", "bbbb"):
        (out / "codes" / name).mkdir(parents=True)
        os.utime(out / "codes" / name, (1, 1))
    one.intend_job(Job("aaaaaaaaaaaa", "slurm", 1.0, code={"hash": "bbbb"}, number=1))
    (out / "codes" / "cccc").mkdir()
    clean.main(["snapshots", "--remove"])
    left = sorted(path.name for path in (out / "codes").iterdir())
    assert left == ["bbbb", "cccc"], "one of today may be about to get its first job"


def test_caches_of_folders_that_are_gone(out, tmp_path):
    packed = tmp_path / "data" / "packed"
    packed.mkdir(parents=True)
    (tmp_path / "images").mkdir()
    for name, root in [("gone-64-a", "no such folder"), ("there-64-b", "images")]:
        (packed / name).write_bytes(b"x")
        note = tmp_path / "data" / "packed.roots" / f"{name}.txt"
        note.parent.mkdir(exist_ok=True)
        note.write_text(str(tmp_path / root))
    (packed / "old-64-c").write_bytes(b"x")
    clean.main(["caches", "--remove"])
    assert sorted(path.name for path in packed.iterdir()) == ["old-64-c", "there-64-b"]


def test_ends_of_jobs_that_no_experiment_needs(out, tmp_path):
    queue = Queue(str(tmp_path / "queue"))
    queue.make()
    user, ends = claims.user_name(), {}
    for number, state in enumerate((State.COMPLETED, State.RUNNING), 1):
        one, token = made(out, number, state), f"{number}" * 12
        ends[str(number)] = {"name": f"dora_{one.sig}_{token}", "word": "FAILED", "code": 1}
        one.intend_job(Job(token, "local", 1.0, number=1, user=user))
        one.record_job(1, f"{queue.id()}-{number}")
    ends["3"] = {"name": "dora_0123abcd_333333333333", "word": "LOST"}  # of another folder
    queue.ends.add(ends)
    clean.main(["queue", "--remove"])
    assert list(queue.ends.all()) == ["2", "3"]


@pytest.mark.parametrize("argv, words", [(["checkpoint"], "unknown kind"), (["--remove"], "none")])
def test_mistakes(out, argv, words):
    if words == "none":
        words = "names no kind"
    one = made(out, 1)
    with pytest.raises(UserError, match=words):
        clean.main(argv)
    assert len(names(one)) == 4
