"""The code of a run: what is kept of it, what is said of it, and that the very files can be had
back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from dora.conf import DoraConfig
from experiments import experiment
from forked import Run
from grid_project import GridProject, Machine
from project import QUICK, ROOT, Project
from test_project import committed, git, tree

from dora_train import snapshots as command
from dora_train.engine import job as job_module
from dora_train.engine.dora import main as main_module
from dora_train.engine.errors import UserError
from dora_train.engine.experiment import ran_files
from dora_train.engine.experiment import snapshot as snapshots
from dora_train.engine.experiment.code import Code, in_words, read_project
from dora_train.engine.experiment.counted_code import ENGINE, python_parts
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import Job, RunState, Start, State
from dora_train.engine.experiment.snapshot import everything, lay_out, name_of, packed, unpacked
from dora_train.engine.experiment.todays_code import TodaysCode
from dora_train.engine.grid.grids import grid_files
from dora_train.engine.grid.request import code_before
from dora_train.engine.watch.board import META, Board, Line, meta
from dora_train.engine.watch.status import Status
from dora_train.report.cards import card
from dora_train.report.diff import differences
from dora_train.report.runs import read

# Parts of the project that only name, store, submit or show runs.
NO_NUMBERS = (ENGINE, "dora_train/report/")
ODD = "odd ä \n\t'\"\\ name.py"
COMMIT = "0123456789abcdef"


def disturbed(root: Path) -> Path:
    """A repository, and all that a work tree can be against its commit."""
    committed(tree(root, "a.py", "b.py", "gone.py"))
    (root / "a.py").write_text("one\nmore")  # no end of line
    (root / "b.py").chmod(0o755)
    (root / "gone.py").unlink()
    (root / ODD).write_bytes(b"untracked\r\n")
    tree(root, "sub dir/__init__.py", "run.sh")
    (root / "sub dir" / "data.bin").write_bytes(os.urandom(2 * 2**20))
    (root / "sub dir" / "empty").write_text("")
    (root / "run.sh").chmod(0o755)
    (root / "link.py").symlink_to("a.py")
    (root / "staged.py").write_text("staged\n")
    git(root, "add", "staged.py")
    (root / "staged.py").write_text("staged, and then edited\n")
    return root


def ran(xp: Experiment, code: Code, number: int = 1, epoch: int = 1) -> Experiment:
    """What an attempt leaves."""
    xp.write_start(number, Start(epoch, code.stored(), (epoch - 1) * 10))
    code.keep(xp.code_archive(code.hash))
    return xp


def had_back(monkeypatch, root: Path, xp: Experiment, folder: Path, name: str = "") -> str:
    monkeypatch.setattr(ran_files, "ROOT", root)
    return command.restore(xp.folder.parents[1], xp.sig, folder, name)


# --- what is hashed, kept and copied is the same ---


def test_the_very_files_can_be_had_back(tmp_path, monkeypatch):
    """On another machine, without git and without the snapshot."""
    root = disturbed(tmp_path / "it's a ä:project")
    code = Code.of(root)
    assert code.commit and len(code.dirty) == 10 and "gone.py" not in code.files
    ran(experiment(tmp_path / "out", {"seed": 1}), code)
    (tmp_path / "out").rename(tmp_path / "copied")
    shutil.rmtree(root)
    xp = Experiment(next((tmp_path / "copied" / "xps").iterdir()))
    said = had_back(monkeypatch, tmp_path / "none", xp, tmp_path / "new" / "there")
    assert said.endswith(
        f"what XP {xp.sig} ran, {code.commit[:9]} + 10 changed files, from its archive"
    )
    assert everything(tmp_path / "new" / "there") == code.files and ODD in code.files
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["there"]
    with pytest.raises(UserError, match="exists already"):
        had_back(monkeypatch, root, xp, tmp_path / "new" / "there")


def test_an_edit_while_a_snapshot_is_made(tmp_path, monkeypatch):
    """Whichever of its contents it holds: they are those of its name.

    The next job finds its own.
    """
    root = tree(tmp_path / "root", "a.py", "b.py")
    real = snapshots.read
    versions = iter(range(1000))

    def edited(path: Path) -> Any:
        content = real(path)
        if path.is_relative_to(root):
            path.write_text(f"version {next(versions)}")
        return content

    monkeypatch.setattr(snapshots, "read", edited)
    made = [Code.of(root).snapshot(tmp_path / "out") for _ in range(3)]
    code = Code.of(root)
    tree(root, "a.py", text="edited before it is copied")
    made.append(code.snapshot(tmp_path / "out"))
    assert len(set(made)) == 4 and all(name_of(everything(path)) == path.name for path in made)
    xp = ran(experiment(tmp_path / "out", {"seed": 1}), code)
    assert unpacked(xp.code_archive(code.hash)) == code.files


@pytest.mark.parametrize("damage", ["edited", "gone", "empty"])
def test_a_snapshot_with_other_files_than_its_name_says_is_mended(damage, tmp_path):
    """By the next job of that content, and by a job that goes on with it."""
    root = tree(tmp_path / "root", "a.py", "sub/b.py")
    code = Code.of(root)
    xp = ran(experiment(tmp_path / "out", {"seed": 1}), code)
    stored_job(xp, code.hash)
    for mend in (
        lambda: code.snapshot(tmp_path / "out"),
        lambda: code_before(xp, tmp_path / "out"),
    ):
        target = code.snapshot(tmp_path / "out")
        if damage == "edited":
            (target / "a.py").write_text("edited")
        elif damage == "gone":
            shutil.rmtree(target / "sub")
        else:
            shutil.rmtree(target)
            target.mkdir()
        snapshots._whole.clear()
        mend()
        assert everything(target) == code.files
        assert [path.name for path in target.parent.iterdir()] == [code.hash]


def test_a_whole_snapshot_is_left_alone(tmp_path):
    """Jobs run from it; Python and others put files there."""
    code = Code.of(tree(tmp_path / "root", "a.py"))
    target = code.snapshot(tmp_path / "out")
    tree(target, "__pycache__/a.pyc", "built.so")
    before = target.stat().st_ino
    assert (
        code.snapshot(tmp_path / "out").stat().st_ino == before and (target / "built.so").exists()
    )


def test_a_job_goes_on_with_its_code_after_the_snapshot_was_removed(tmp_path):
    code = Code.of(tree(tmp_path / "root", "a.py"))
    xp, out = ran(experiment(tmp_path / "out", {"seed": 1}), code), tmp_path / "out"
    stored_job(xp, code.hash)
    root, known = code_before(xp, out) or (None, {})
    assert (
        root == out / "codes" / code.hash
        and everything(root) == code.files
        and known["hash"] == code.hash
    )
    old = experiment(out, {"seed": 2})
    stored_job(old, "5" * 16)
    assert code_before(old, out) is None, "an earlier version kept no archive"
    snapshots._whole.clear()
    tree(out / "codes" / ("5" * 16), "a.py")
    assert code_before(old, out) == (out / "codes" / ("5" * 16), old.job().code)  # type: ignore[union-attr]


def test_two_commands_at_once_make_one_snapshot(tmp_path, monkeypatch):
    code = Code.of(tree(tmp_path / "root", "a.py", "sub/b.py"))
    real = snapshots.lay_out

    def second(files: Any, target: Path) -> None:
        real(files, target)  # the other command is first
        real(files, target)

    monkeypatch.setattr(snapshots, "lay_out", second)
    target = code.snapshot(tmp_path / "out")
    assert everything(target) == code.files and list(target.parent.iterdir()) == [target]


def test_half_a_snapshot_is_never_seen(tmp_path, monkeypatch):
    """Nor does one stay that could not be made whole."""
    code = Code.of(tree(tmp_path / "root", "a.py", "b.py"))
    codes = tmp_path / "out" / "codes"

    def full(path: Path, content: bytes) -> None:
        assert not [one for one in codes.iterdir() if not one.name.startswith(".")]
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        code.snapshot(tmp_path / "out")
    assert not any(codes.iterdir())


def test_archives_of_one_command_share_their_room(tmp_path, monkeypatch):
    code = Code.of(tree(tmp_path / "root", "a.py"))
    xps = [ran(experiment(tmp_path / "out", {"seed": seed}), code) for seed in range(3)]
    archives = [xp.code_archive(code.hash) for xp in xps]
    assert len({archive.stat().st_ino for archive in archives}) == 1
    shutil.rmtree(xps[0].folder)
    monkeypatch.setattr(
        os, "link", lambda *names: (_ for _ in ()).throw(OSError(95, "Operation not supported"))
    )
    for seed in (3, 4):
        archives.append(tmp_path / "out" / f"{seed}.tar.gz")
        code.keep(archives[-1])
    assert all(unpacked(archive) == code.files for archive in archives[1:])


def test_an_archive_that_is_damaged_or_hostile(tmp_path):
    files = {"a.py": (b"one", False), "sub/b.sh": (b"two", True), ODD: (b"", False)}
    whole = packed(files)
    archive = tmp_path / "a.tar.gz"
    assert unpacked(archive) == {}
    for end in (0, 5, len(whole) // 2, len(whole) - 9):
        archive.write_bytes(whole[:end])
        assert unpacked(archive) in ({}, files)
    archive.write_bytes(whole)
    assert unpacked(archive) == files
    lay_out(files, tmp_path / "there")
    assert everything(tmp_path / "there") == files
    archive.write_bytes(
        packed(
            {"../up.py": (b"", False), "/tmp/root.py": (b"", False), "a/../../up.py": (b"", False)}
        )
    )
    assert unpacked(archive) == {}
    with tarfile.open(archive, "w:gz") as made:
        entry = tarfile.TarInfo("link.py")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(entry)
    assert unpacked(archive) == {}


def test_the_name_of_files_is_that_of_earlier_versions():
    """So that what they kept can be compared with it."""
    files = {"b/z.py": (b"z", False), "b-c.py": (b"c", True), "a.py": (b"one\n", False)}
    assert name_of(files) == "8987132aae2d847d"


# --- what earlier versions kept: a snapshot of all files, or a patch ---


def kept_earlier(xp: Experiment, root: Path, number: int = 1) -> str:
    """An attempt of an earlier version. Returns the hash."""
    names = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    name = name_of(snapshots.read_all(root, filter(None, names)))
    changed = git(root, "status", "--porcelain", "-z", "-uall", "--no-renames", "--", ".").split(
        "\0"
    )
    dirty = sorted(entry[3:] for entry in changed if entry)
    commit = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "-q", "--verify", "HEAD"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    xp.write_start(number, Start(1, {"commit": commit, "dirty": dirty, "hash": name}))
    xp.patch(name).parent.mkdir(exist_ok=True)
    env = {**os.environ, "GIT_INDEX_FILE": str(xp.folder / "index")}
    subprocess.run(["git", "-C", str(root), "add", "-A", "."], env=env, check=True)
    base = commit or git(root, "hash-object", "-t", "tree", "/dev/null").strip()
    patch = subprocess.run(
        [
            "git",
            "-C",
            str(root),
            "diff",
            "--cached",
            "--binary",
            "--full-index",
            "--relative",
            "--no-renames",
            base,
        ],
        env=env,
        check=True,
        capture_output=True,
    ).stdout
    xp.patch(name).write_bytes(patch)
    return name


@pytest.mark.parametrize("where", ["", "a project within it"])
def test_commit_and_patch_of_earlier_versions(where, tmp_path, monkeypatch):
    top = tmp_path / "it's a ä:repository"
    root = top / where
    if where:
        committed(tree(top, "outside.py"))
        tree(root, "a.py", "gone.py")
        git(top, "add", "-A")
        git(top, "commit", "-qm", "second")
        (root / "gone.py").unlink()
        tree(root, ODD, "README.md", text="untracked")
        tree(top, "outside.py", text="edited")
    else:
        disturbed(top)
        tree(top, "README.md", text="untracked")
    xp = experiment(tmp_path / "out", {"seed": 1})
    name = kept_earlier(xp, root)
    assert "from the commit and its patch" in had_back(monkeypatch, root, xp, tmp_path / "there")
    there = everything(tmp_path / "there")
    assert (
        name_of(there) == name and ODD in there and "README.md" in there and "gone.py" not in there
    )


def test_before_the_first_commit_the_patch_was_all(tmp_path, monkeypatch):
    root = tree(tmp_path / "repository", "a.py")
    git(root, "init", "-q")
    xp = experiment(tmp_path / "out", {"seed": 1})
    kept_earlier(xp, root)
    had_back(monkeypatch, root, xp, tmp_path / "there")
    assert (tmp_path / "there" / "a.py").read_text() == "# 'a.py'"


def test_a_snapshot_of_earlier_versions(tmp_path, monkeypatch):
    root = disturbed(tmp_path / "root")
    xp = experiment(tmp_path / "out", {"seed": 1})
    name = kept_earlier(xp, root)
    target = tmp_path / "out" / "codes" / name
    shutil.copytree(root, target, ignore=shutil.ignore_patterns(".git"))
    tree(target, "__pycache__/a.pyc", "sub dir/__pycache__/b.pyc")
    assert "its snapshot" in had_back(monkeypatch, root, xp, tmp_path / "there")
    assert name_of(everything(tmp_path / "there")) == name
    (target / "a.py").write_text("edited")
    assert "the commit and its patch" in had_back(monkeypatch, root, xp, tmp_path / "again")
    assert everything(tmp_path / "again") == everything(tmp_path / "there")


def test_what_cannot_be_had_back_is_said(tmp_path, monkeypatch):
    root = disturbed(tmp_path / "root")
    xp = experiment(tmp_path / "out", {"seed": 1})
    name = kept_earlier(xp, root)
    patch = xp.patch(name).read_bytes()
    xp.patch(name).unlink()
    with pytest.raises(UserError, match="The changes were not kept"):
        had_back(monkeypatch, root, xp, tmp_path / "there")
    xp.patch(name).write_bytes(patch.replace(b"+staged, and then", b"+staged, and thus"))
    with pytest.raises(UserError, match="leads to other files"):
        had_back(monkeypatch, root, xp, tmp_path / "there")
    xp.patch(name).write_bytes(patch.replace(b"-# 'a.py'", b"-# 'x.py'"))
    with pytest.raises(UserError, match="does not fit commit"):
        had_back(monkeypatch, root, xp, tmp_path / "there")
    xp.write_start(2, Start(3, {"commit": COMMIT, "dirty": [], "hash": "5" * 16}, 20))
    with pytest.raises(UserError, match="Commit 012345678 is not in this clone(.|\n)*git fetch"):
        had_back(monkeypatch, root, xp, tmp_path / "there")
    with pytest.raises(UserError, match='ran no code "x"(.|\n)*5555'):
        had_back(monkeypatch, root, xp, tmp_path / "there", "x")
    with pytest.raises(UserError, match="is no git repository"):
        had_back(monkeypatch, tmp_path, xp, tmp_path / "there")
    xp.write_start(3, Start(5, {"hash": "7" * 16}, 40))
    with pytest.raises(UserError, match="no archive, snapshot or commit holds"):
        had_back(monkeypatch, root, xp, tmp_path / "there")
    xp.code_archive("7" * 16).write_bytes(packed({"a.py": (b"", False)}))
    with pytest.raises(UserError, match="no archive, snapshot or commit holds"):
        had_back(monkeypatch, root, xp, tmp_path / "there")
    assert not (tmp_path / "there").exists()


# --- the codes of an experiment ---


def start(epoch: int, step: int, name: str, dirty: int = 0) -> Start:
    return Start(epoch, {"commit": name * 10, "dirty": ["f"] * dirty, "hash": name * 16}, step)


def test_the_codes_it_ran_each_with_its_first_epoch(tmp_path):
    xp = experiment(tmp_path, {"seed": 1})
    assert in_words(xp.codes()) == "012345678", "as it was born"
    for number, one in enumerate(
        [
            start(1, 0, "a", 2),
            start(4, 30, "a", 2),
            start(8, 70, "b"),
            start(8, 70, "c"),
            start(9, 80, "a", 2),
            start(9, 85, "b"),
        ],
        1,
    ):
        xp.write_start(number, one)
    assert [(one.epoch, one.code["hash"][0]) for one in xp.codes()] == [
        (1, "a"),
        (8, "c"),
        (9, "a"),
        (9, "b"),
    ]
    first = "aaaaaaaaa + 2 changed files [aaaaaaaaaaaaaaaa]"
    assert in_words(xp.codes()) == (
        f"{first} (epochs 1-7), ccccccccc (epoch 8), {first} (epoch 9), bbbbbbbbb (from epoch 9)"
    )


def test_a_code_of_which_nothing_is_left_does_not_count(tmp_path):
    """Killed, it went on from a checkpoint of before."""
    xp = experiment(tmp_path, {"seed": 1})
    for number, one in enumerate(
        [start(1, 0, "a"), start(6, 50, "b"), start(4, 30, "c"), start(4, 30, "a")], 1
    ):
        xp.write_start(number, one)
    assert in_words(xp.codes()) == "aaaaaaaaa"


def test_folders_of_earlier_versions(tmp_path):
    xp = experiment(tmp_path, {"seed": 1})
    xp.intend_job(
        Job(
            "t",
            "slurm",
            1.0,
            code={"commit": "9" * 40, "dirty": ["x"], "snapshot": "f" * 16},
            number=1,
        )
    )
    job = xp.job()
    assert (
        job
        and job.code["hash"] == "f" * 16
        and in_words(xp.codes()) == "999999999 + 1 changed file"
    )
    xp.write_start(2, start(6, 50, "b"))
    assert in_words(xp.codes()) == "012345678 (epochs 1-5), bbbbbbbbb (from epoch 6)"
    xp.write_start(3, Start(7, {"commit": "b" * 10, "dirty": []}, 60))
    assert len(xp.codes()) == 2, "by commit and changes, where a hash is not known"


def test_reports_name_all_codes(tmp_path):
    one, other = experiment(tmp_path, {"seed": 1}), experiment(tmp_path, {"seed": 2})
    for xp, name in [(one, "b"), (other, "c")]:
        xp.write_start(1, start(1, 0, "a"))
        xp.write_start(2, Start(3, {**start(3, 20, "b", 1).code, "hash": name * 16}, 20))
    runs = read({one: [], other: []}, None)
    words = "aaaaaaaaa (epochs 1-2), bbbbbbbbb + 1 changed file (from epoch 3)"
    assert card(runs[0], [], {})["facts"]["code"] == words
    code = differences(*runs)["code"]
    assert code == [("content", f"{'a' * 16}, {'b' * 16}", f"{'a' * 16}, {'c' * 16}")], (
        "the same words, other files"
    )
    other.write_start(3, start(5, 40, "a"))
    assert differences(*read({one: [], other: []}, None))["code"][0][:2] == ("commit", words)


@pytest.mark.parametrize("damage", ["", "[]", '{"epoch": 1}', '{"epoch": 1, "code": 3}'])
def test_a_damaged_start_is_passed_over(tmp_path, damage):
    xp = experiment(tmp_path, {"seed": 1})
    xp.write_start(1, start(1, 0, "a"))
    (xp.attempts / "2.start.json").write_text(damage)
    assert in_words(xp.codes()) == "aaaaaaaaa"


def test_the_table_marks_more_than_one(tmp_path):
    status = Status(State.COMPLETED)
    lines = [
        Line(status, {"Meta": {"sig": "0" * 8, **meta(RunState(codes=codes), status, 3)}})
        for codes in (0, 1, 2)
    ]
    board = Board("", "", META, lines)
    assert [column.title for column in board.filled()] == ["sig", "state", "epoch", "code"]
    [code] = [column for column in META if column.title == "code"]
    assert [code.cell(line.values) for line in lines] == ["", "", "2 codes"]
    assert [column.title for column in board.fitting(30, [0, 1, 2])[1]] == ["code"], (
        "the first to go"
    )
    assert "code" not in [column.title for column in Board("", "", META, lines[:2]).filled()]


# --- snapshots ---


def stored_job(xp: Experiment, name: str) -> None:
    xp.intend_job(
        Job("t", "local", 1.0, code={"commit": COMMIT, "dirty": [], "hash": name}, number=1)
    )
    xp.record_job(1, "7")


def test_snapshots_are_listed_and_removed_unless_one_is_needed(tmp_path, monkeypatch, capsys):
    (tmp_path / "project").mkdir()
    names = []
    for text in ("one", "two", "three"):
        (tmp_path / "project" / "a.py").write_text(text)
        names.append(Code.of(tmp_path / "project").snapshot(tmp_path).name)
    done, gone = (
        experiment(tmp_path, {"seed": 1}),
        experiment(tmp_path, {"seed": 2}, state=State.INTERRUPTED),
    )
    again = experiment(tmp_path, {"seed": 3}, state=State.INTERRUPTED)
    stored_job(done, names[0])
    stored_job(gone, names[1])
    stored_job(again, names[1])
    again.write_start(1, Start(1, {"hash": names[0]}))
    statuses = {
        done.sig: Status(State.COMPLETED),
        gone.sig: Status(State.INTERRUPTED),
        again.sig: Status(State.FAILED),
    }
    monkeypatch.setattr(command, "look", lambda *args, **options: statuses)
    monkeypatch.setattr(command, "asked", lambda: None)
    lines = {line.split()[0]: line for line in command.listed(tmp_path)}
    assert lines.keys() == set(names)
    assert (
        "2 XPs      0 unfinished" in lines[names[0]]
        and COMMIT[:9] in lines[names[0]] + lines[names[1]]
    )
    assert (
        "2 XPs      1 unfinished" in lines[names[1]]
        and "0 XPs      0 unfinished" in lines[names[2]]
    )
    with pytest.raises(
        UserError, match=f"{names[1]} is needed: XP {gone.sig} is interrupted.*Nothing was removed"
    ):
        command.remove(tmp_path, [names[0], names[1]])
    assert len(list((tmp_path / "codes").iterdir())) == 3
    with pytest.raises(UserError, match="no snapshot begins"):
        command.remove(tmp_path, ["x"])
    command.remove(tmp_path, [names[0][:6], names[2]])
    assert [path.name for path in (tmp_path / "codes").iterdir()] == [names[1]]
    assert f"removed {names[0]}" in capsys.readouterr().out


def test_the_command_is_light_and_its_mistakes_are_short(tmp_path):
    env = {**os.environ, "DORA_DIR": str(tmp_path)}
    code = "import sys, dora_train.snapshots; print(sorted({'torch', 'dora', 'hydra', 'lightning'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    for args, message in [
        (["5f3a", "there"], "there is no experiment"),
        (["5f3a"], "a new folder"),
        (["--remove", "5f3a"], "no snapshot begins"),
        (["5f3a", "there", "--remove", "9"], "a new folder"),
    ]:
        done = subprocess.run(
            [sys.executable, "-m", "dora_train.snapshots", *args],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, (
            done.stderr
        )
    done = subprocess.run(
        [sys.executable, "-m", "dora_train.snapshots"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "no snapshots" in done.stdout


# --- the real thing ---

SURPRISES = """
import json, os, sys
import generated, linked_lib, loose.module, mylib, sub_lib.inside  # noqa
from importlib.resources import files
assert files("mylib").joinpath("vocab.json").read_text() == "# 'mylib/vocab.json'"


def say_imported():
    paths = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
    with open(os.environ["IMPORTED"] + str(os.getpid()), "w") as file:
        json.dump(sorted(path for path in paths if "site-packages" not in path), file)
    os.replace(file.name, os.environ["IMPORTED"])
"""


def surprising(project: Project) -> Project:
    """All that a clone may hold beside the project's own files; its results lie in it as well."""
    root, elsewhere = project.root, project.root.parent / "elsewhere"
    tree(
        root,
        "mylib/__init__.py",
        "mylib/vocab.json",
        "loose/module.py",
        "generated.py",
        "README.md",
    )
    tree(elsewhere, "linked_lib/__init__.py", "sub_lib/inside.py")
    (root / ".gitignore").write_text("generated.py\n__pycache__/\n")
    (root / "linked_lib").symlink_to(elsewhere / "linked_lib")
    committed(elsewhere / "sub_lib")
    git(root, "init", "-q")
    git(root, "submodule", "add", "-q", str(elsewhere / "sub_lib"))
    committed(root)
    for number in range(1200):
        tree(root, f"photos/{number}.png")
    os.mkfifo(root / "pipe.py")
    (root / "circle").symlink_to(".")
    tree(
        root,
        "earlier/xps/5f3a91c2/.argv.json",
        "earlier/xps/5f3a91c2/config.yaml",
        "earlier/codes/5/module.py",
    )
    project.edit("dora_train/train.py", "    return train(", "    return say_imported() or train(")
    (root / "dora_train" / "train.py").write_text(
        SURPRISES + (root / "dora_train" / "train.py").read_text()
    )
    return Project(root / "results", root, {"IMPORTED": str(root.parent / "imported.json")})


@pytest.mark.slow
def test_what_a_run_imports_is_what_it_keeps(copy: Project, tmp_path):
    """Whatever else lies in the clone."""
    project = surprising(copy)
    run = Run(project, "run", *QUICK, folder=tmp_path)
    assert run.wait() == 0, run.text
    assert "not part of the code: photos/ (over 1,000 files)" in run.text
    xp, code = project.xp, Code.of(project.root, [project.out])
    [start] = xp.starts()
    birth = json.loads((xp.folder / "birth.json").read_text())
    assert start.code == birth["code"] == code.stored() and start.code["dirty"] == [
        "dora_train/train.py"
    ]
    assert (xp.folder / "birth.json").stat().st_size < 10_000
    imported = json.loads(Path(project.env["IMPORTED"]).read_text())
    ours = {
        os.path.relpath(path, project.root)
        for path in imported
        if path.startswith(str(project.root))
    }
    assert len(ours) > 40 and ours <= set(unpacked(xp.code_archive(code.hash)))
    parts = python_parts(code.files, "dora_train/train.py", birth["config"])
    silent = [path for path in ours - parts.keys() if not path.startswith(NO_NUMBERS)]
    assert not silent, "what a run imports counts in its tag"
    assert {
        "generated.py",
        "linked_lib/__init__.py",
        "sub_lib/inside.py",
        "mylib/__init__.py",
    } <= ours
    tree(project.root, "README.md", "tests/test_it.py", "notes.ipynb", text="edited")
    assert Code.of(project.root, [project.out]).hash == start.code["hash"], (
        "and after a run it is the same"
    )


def test_a_file_that_is_edited_while_a_run_starts_is_named(copy: Project):
    """What it has imported may be either content."""
    copy.edit(
        "dora_train/train.py",
        "    from .data import check_data",
        "    from pathlib import Path\n    model = Path(__file__).with_name('model.py')\n"
        "    model.write_text(model.read_text() + '# edited')\n    from .data import check_data",
    )
    before = Code.of(copy.root).hash
    run = Run(copy, "run", *QUICK)
    assert run.wait() == 0, run.text
    assert "edited while this run was starting: dora_train/model.py" in run.text
    assert copy.xp.starts()[0].code["hash"] == before != Code.of(copy.root).hash


def test_the_code_is_that_of_the_project_wherever_the_command_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dora = DoraConfig(dir=tmp_path / "out", git_save=True)
    todays = TodaysCode(lambda cfg: None, ROOT / "conf", dora)
    code = read_project(tmp_path / "out")
    assert (
        code.root == ROOT
        and "dora_train/train.py" in code.files
        and "grids/mysweep.py" in code.files
    )
    assert todays.for_jobs({"code": "live"})[0] == ROOT
    snapshot, known = todays.for_jobs({})
    assert everything(snapshot) == code.files and known == code.stored()


def test_a_pipe_among_the_grids(tmp_path):
    """To read it would never end."""
    tree(tmp_path, "mine.py")
    os.mkfifo(tmp_path / "pipe.py")
    assert list(grid_files(tmp_path)) == ["mine"]


@pytest.mark.parametrize(
    "given, here, there",
    [
        ("", [], "project/outputs"),
        ("", ["outputs/xps"], "here/outputs"),
        ("mine", [], "here/mine"),
        ("/mine", [], "/mine"),
    ],
)
def test_where_results_land_if_the_command_is_typed_elsewhere(
    given, here, there, tmp_path, monkeypatch
):
    """The name in the configuration is of the project; the one in DORA_DIR is of where it is
    typed."""
    for folder in ("here", "project", *(f"here/{name}" for name in here)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("dora_train.engine.experiment.find.ROOT", tmp_path / "project")
    monkeypatch.setenv("DORA_DIR", given)
    config = main_module._dora_config({"dir": given or "outputs"})
    assert config.dir == tmp_path / there


def test_a_job_imports_its_snapshot_also_where_pythonpath_names_the_live_folder(
    tmp_path, monkeypatch
):
    live = tree(tmp_path / "live", "src/mylib.py", "venv/lib/torch.py")
    frozen = tree(live / "outputs" / "codes" / "55", "src/mylib.py", "dora_train/engine/job.py")
    monkeypatch.chdir(live)
    inherited = [str(live), str(live / "src"), str(live / "venv/lib"), "/usr/lib/python3"]
    monkeypatch.setattr(sys, "path", [str(frozen / "dora_train" / "engine"), *inherited])
    job_module._import_from(frozen)
    assert sys.path == [str(frozen), str(frozen), str(frozen / "src"), *inherited[2:]]


@pytest.mark.slow
def test_from_another_folder(copy: Project, tmp_path):
    """`dora -P dora_train`: the project is where the package lies, for its configuration, grids and
    results as well."""
    here = tree(
        tmp_path / "here",
        "grids/__init__.py",
        "grids/foreign.py",
        "conf/config.yaml",
        text="raise ValueError",
    )
    env = {**copy.env, "PYTHONPATH": str(copy.root)}
    del env["DORA_DIR"]

    def ask(*args: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).with_name("dora"), "-P", "dora_train", *args],
            cwd=here,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = ask("grid")
    assert "mysweep" in listed and "foreign" not in listed
    ask("run", *QUICK)
    [folder] = (copy.root / "outputs" / "xps").iterdir()
    assert Experiment(folder).starts()[0].code["hash"] == Code.of(copy.root).hash
    assert sorted(path.name for path in here.iterdir()) == ["conf", "grids"]


@pytest.mark.slow
def test_a_run_that_was_mended_midway_keeps_both_codes(copy: Project, tmp_path):
    committed(copy.root)
    (copy.root / ODD).write_text("untracked")
    args = ["run", *QUICK, "trainer.max_epochs=4"]
    Run(copy, *args, fault=("train", 13, signal.SIGTERM)).wait()
    with open(copy.root / "dora_train" / "model.py", "a") as file:
        file.write("raise ValueError('a bug')\n")
    assert Run(copy, *args).wait() == 1
    copy.edit("dora_train/model.py", "raise ValueError('a bug')", "# mended")
    first = len(copy.xp.history()) + 1
    run = Run(copy, *args)
    assert run.wait() == 0, run.text
    sig = copy.xp.sig
    one, two = copy.xp.starts()  # what failed before it trained is none
    assert (one.epoch, two.epoch) == (1, first) and first > 1
    assert one.code["dirty"] != two.code["dirty"] and copy.xp.state().codes == 2
    said = copy.dora("info", "-f", sig)
    assert f"+ 2 changed files (from epoch {first})" in said and "+ 1 changed file (epoch" in said
    assert "2 codes" in copy.run("python", "-m", "dora_train.report", "--watch", sig)
    out = copy.run("python", "-m", "dora_train.snapshots", sig, str(tmp_path / "last"))
    assert "from its archive" in out and everything(tmp_path / "last") == Code.of(copy.root).files
    copy.run(
        "python",
        "-m",
        "dora_train.snapshots",
        sig,
        str(tmp_path / "first"),
        "--code",
        one.code["hash"][:6],
    )
    assert name_of(everything(tmp_path / "first")) == one.code["hash"]


@pytest.mark.slow
def test_a_job_knows_its_code_and_its_snapshot_is_not_removed_before_its_end(
    machine: Machine, tmp_path
):
    project = GridProject(tmp_path, machine)

    def ask(*args: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dora_train.snapshots", *args],
            cwd=project.folder,
            env=project.env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    project.env["IMPORTED"] = str(tmp_path / "imported.json")
    surprising(Project(project.out, project.folder))
    (project.folder / ODD).write_text("untracked")
    project.grid("launcher(seed=1)", "launcher(seed=2)")
    assert "not part of the code: photos/ (over 1,000 files)" in project.sync()
    then = Code.of(project.folder)
    tree(
        project.folder,
        ODD,
        "mylib/__init__.py",
        "linked_lib/__init__.py",
        text="raise ValueError('edited')",
    )
    for xp in project.xps():
        job = xp.job()
        assert job and job.code == then.stored() and xp.code_archive(then.hash).exists()
    assert "is needed: XP" in ask("--remove", then.hash[:8], code=1)
    machine.wait(lambda: all(xp.state().state is State.COMPLETED for xp in project.xps()))
    machine.wait(Path(project.env["IMPORTED"]).exists)
    xp, snapshot = project.xps()[0], project.out / "codes" / then.hash
    assert [start.code for start in xp.starts()] == [then.stored()] and xp.state().codes == 1
    imported = json.loads(Path(project.env["IMPORTED"]).read_text())
    assert sum(path.startswith(str(snapshot)) for path in imported) > 40
    assert not [path for path in imported if path.startswith(str(project.folder))], (
        "nothing of the live folder"
    )
    assert "2 XPs      0 unfinished" in ask()
    assert f"removed {then.hash}" in ask("--remove", then.hash[:8])
    assert "its archive" in ask(xp.sig, str(tmp_path / "again"))
    assert everything(tmp_path / "again") == then.files
