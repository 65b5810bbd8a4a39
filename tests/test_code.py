"""The code of a run: what is kept of it, what is said of it, and that the very files can be had back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from experiments import experiment
from forked import Run
from grid_project import GridProject, Machine
from project import QUICK, ROOT, Project

from dora_train import code as command
from dora_train.engine.code import Code, code_of, content_hash, in_words, project_files, snapshot
from dora_train.engine.errors import UserError
from dora_train.engine.grid.board import META, Board, Line, meta
from dora_train.engine.grid.status import Status
from dora_train.engine.store import Experiment, Job, RunState, Start, State
from dora_train.report.diff import differences
from dora_train.report.page import _run
from dora_train.report.runs import read

ODD = "odd ä \n\t'\"\\ name.txt"
COMMIT = "0123456789abcdef"


def git(root: Path, *args: str) -> str:
    names = ["-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", "-C", str(root), *names, *args], check=True, capture_output=True, text=True).stdout


def repository(root: Path) -> Path:
    """Three files in a commit, and a pattern of what is ignored."""
    root.mkdir(parents=True)
    for name, text in [("a.py", "one\n"), ("b.py", "two\n"), ("gone.py", "three\n"), (".gitignore", "*.log\n")]:
        (root / name).write_text(text)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def disturb(root: Path) -> None:
    """All that a work tree can be, against its commit."""
    (root / "a.py").write_text("one\nmore")  # no end of line
    (root / "b.py").chmod(0o755)
    (root / "gone.py").unlink()
    (root / ODD).write_text("untracked\r\n")
    (root / "sub dir").mkdir()
    (root / "sub dir" / "data.bin").write_bytes(bytes(range(256)) * 4)
    (root / "sub dir" / "empty").write_text("")
    (root / "run.sh").write_text("exit\n")
    (root / "run.sh").chmod(0o755)
    os.symlink("a.py", root / "link.py")
    (root / "ignored.log").write_text("no")
    (root / "staged.py").write_text("staged\n")
    git(root, "add", "staged.py")
    (root / "staged.py").write_text("staged, and then edited\n")


def content(root: Path) -> dict[str, Any]:
    return {str(file): ((root / file).read_bytes(), os.access(root / file, os.X_OK)) for file in project_files(root)}


def everything(root: Path) -> dict[str, Any]:
    """Each file of the repository's own folder."""
    return {str(path): path.read_bytes() for path in (root / ".git").rglob("*") if path.is_file()}


def ran(xp: Experiment, code: Code, number: int = 1, epoch: int = 1) -> None:
    """What an attempt leaves."""
    xp.write_start(number, Start(epoch, code.stored(), (epoch - 1) * 10))
    if code.dirty and code.patch:
        xp.write_patch(code.hash, code.patch)


def had_back(monkeypatch, root: Path, xp: Experiment, folder: Path, name: str = "") -> str:
    monkeypatch.setattr(command, "ROOT", root)
    return command.restore(xp.folder.parents[1], xp.sig, folder, name)


# --- what is kept, and had back ---

@pytest.mark.parametrize("where", ["", "a project within it"])
def test_commit_and_patch_are_the_very_files(where, tmp_path, monkeypatch):
    top = repository(tmp_path / "it's a ä:repository")
    root = top / where
    if where:
        root.mkdir()
        for name in ("a.py", "b.py", "gone.py"):
            shutil.copy(top / name, root)
        git(top, "add", "-A")
        git(top, "commit", "-qm", "second")
        (top / "a.py").write_text("outside of the project")
    disturb(root)
    before = everything(top)
    code, xp = Code.of(root), experiment(tmp_path / "out", {"seed": 1})
    assert code.patch and code.commit and len(code.dirty) >= 8
    ran(xp, code)
    said = had_back(monkeypatch, root, xp, tmp_path / "new" / "there")
    assert "from the commit and its patch" in said
    there, here = content(tmp_path / "new" / "there"), content(root)
    here.pop(".gitignore", None), there.pop(".gitignore", None)  # without git, dotted files are there all the same
    assert there == here and ODD in there and "gone.py" not in there
    assert os.readlink(tmp_path / "new" / "there" / "link.py") == "a.py"
    assert everything(top) == before, "the repository was touched"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["there"]


def test_settings_of_the_user_do_not_change_the_patch(tmp_path):
    root = repository(tmp_path / "repository")
    disturb(root)
    patch = Code.of(root).patch
    for key, value in [("diff.noprefix", "true"), ("color.ui", "always"), ("diff.external", "false"),
                       ("core.quotePath", "false"), ("diff.context", "0")]:
        git(root, "config", key, value)
    changed = Code.of(root).patch
    assert patch and changed and changed.startswith(b"diff --git a/") and b"\x1b" not in changed


def test_before_the_first_commit_the_patch_is_all(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    (root / "a.py").write_text("one\n")
    code, xp = Code.of(root), experiment(tmp_path / "out", {"seed": 1})
    assert (code.commit, code.dirty) == ("", ["a.py"])
    ran(xp, code)
    had_back(monkeypatch, root, xp, tmp_path / "there")
    assert (tmp_path / "there" / "a.py").read_text() == "one\n"


def test_without_git_there_is_the_snapshot_and_no_patch(tmp_path, monkeypatch):
    root = tmp_path / "plain"
    root.mkdir()
    (root / "a.py").write_text("one\n")
    code, xp = Code.of(root), experiment(tmp_path / "out", {"seed": 1})
    assert code.stored() == {"hash": content_hash(root)}
    ran(xp, code)
    with pytest.raises(UserError, match="no commit and no snapshot holds"):
        had_back(monkeypatch, root, xp, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    snapshot(root, tmp_path / "out")
    assert "its snapshot" in had_back(monkeypatch, root, xp, tmp_path / "there")
    assert (tmp_path / "there" / "a.py").read_text() == "one\n"
    with pytest.raises(UserError, match="exists already"):
        had_back(monkeypatch, root, xp, tmp_path / "there")


def test_the_same_content_has_the_same_name_with_and_without_git(tmp_path):
    root = repository(tmp_path / "repository")
    (root / "b").mkdir()
    (root / "b" / "z.py").write_text("z")
    (root / "b-c.py").write_text("c")
    (root / ".gitignore").unlink()
    name = content_hash(root)
    shutil.rmtree(root / ".git")
    assert content_hash(root) == name


def test_a_renamed_file_is_two_changes(tmp_path):
    root = repository(tmp_path / "repository")
    git(root, "mv", "gone.py", "come.py")
    assert code_of(root)["dirty"] == ["come.py", "gone.py"]


def test_what_cannot_be_had_back_is_said(tmp_path, monkeypatch):
    root = repository(tmp_path / "repository")
    xp = experiment(tmp_path / "out", {"seed": 1})
    disturb(root)
    code = Code.of(root)
    xp.write_start(1, Start(1, code.stored()))
    with pytest.raises(UserError, match="what was changed was not kept"):
        had_back(monkeypatch, root, xp, tmp_path / "there")
    assert code.patch
    xp.write_patch(code.hash, code.patch.replace(b"+untracked", b"+unfaithful"))
    with pytest.raises(UserError, match="leads to other files"):
        had_back(monkeypatch, root, xp, tmp_path / "there")
    xp.write_start(2, Start(3, {"commit": COMMIT, "dirty": [], "hash": "5" * 16}, 20))
    with pytest.raises(UserError, match="commit 012345678 is not in this repository(.|\n)*git fetch"):
        had_back(monkeypatch, root, xp, tmp_path / "there")
    with pytest.raises(UserError, match='ran no code "x"(.|\n)*5555'):
        had_back(monkeypatch, root, xp, tmp_path / "there", "x")
    with pytest.raises(UserError, match="is no repository of git"):
        had_back(monkeypatch, tmp_path, xp, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_patch_that_is_too_large_is_not_kept(tmp_path, monkeypatch):
    root = repository(tmp_path / "repository")
    (root / "large.bin").write_bytes(os.urandom(2**20))
    code, xp = Code.of(root), experiment(tmp_path / "out", {"seed": 1})
    assert code.patch is None
    from dora_train.engine.main import TrainMain

    main: Any = SimpleNamespace(code=code, _said_too_large=False)
    said = [TrainMain.keep_code(main, xp) for _ in range(2)]
    assert "over 1 MiB): commit it" in said[0] and said[1] == "" and not xp.patch(code.hash).exists(), "said once"
    monkeypatch.setattr("dora_train.engine.code.LIMIT", 2**20)
    assert Code.of(root).hash == "" and Code.of(root).patch is None, "too large to be code"


# --- the codes of an experiment ---

def start(epoch: int, step: int, name: str, dirty: int = 0) -> Start:
    return Start(epoch, {"commit": name * 10, "dirty": ["f"] * dirty, "hash": name * 16}, step)


def test_the_codes_it_ran_each_with_its_first_epoch(tmp_path):
    xp = experiment(tmp_path, {"seed": 1})
    assert in_words(xp.codes()) == "012345678", "as it was born"
    for number, one in enumerate([start(1, 0, "a", 2), start(4, 30, "a", 2), start(8, 70, "b"), start(8, 70, "c"),
                                  start(9, 80, "a", 2), start(9, 85, "b")], 1):
        xp.write_start(number, one)
    assert [(one.epoch, one.code["hash"][0]) for one in xp.codes()] == [(1, "a"), (8, "c"), (9, "a"), (9, "b")]
    first = "aaaaaaaaa + 2 changed files [aaaaaaaaaaaaaaaa]"
    assert in_words(xp.codes()) == (f"{first} (epochs 1-7), ccccccccc (epoch 8), {first} (epoch 9), "
                                    "bbbbbbbbb (from epoch 9)")


def test_a_code_of_which_nothing_is_left_does_not_count(tmp_path):
    """Killed, it went on from a checkpoint of before."""
    xp = experiment(tmp_path, {"seed": 1})
    for number, one in enumerate([start(1, 0, "a"), start(6, 50, "b"), start(4, 30, "c"), start(4, 30, "a")], 1):
        xp.write_start(number, one)
    assert in_words(xp.codes()) == "aaaaaaaaa"


def test_folders_of_earlier_versions(tmp_path):
    xp = experiment(tmp_path, {"seed": 1})
    xp.intend_job(Job("t", "slurm", 1.0, code={"commit": "9" * 40, "dirty": ["x"], "snapshot": "f" * 16}, number=1))
    job = xp.job()
    assert job and job.code["hash"] == "f" * 16 and in_words(xp.codes()) == "999999999 + 1 changed file"
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
    assert _run(runs[0], [], {})["facts"]["code"] == words
    code = differences(*runs)["code"]
    assert code == [("content", f"{'a' * 16}, {'b' * 16}", f"{'a' * 16}, {'c' * 16}")], "the same words, other files"
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
    lines = [Line(status, {"Meta": {"sig": "0" * 8, **meta(RunState(codes=codes), status, 3)}}) for codes in (0, 1, 2)]
    board = Board("", "", META, lines)
    assert [column.title for column in board.filled()] == ["sig", "state", "epoch", "code"]
    assert [META[-1].cell(line.values) for line in lines] == ["", "", "2 codes"]
    assert [column.title for column in board.fitting(30, [0, 1, 2])[1]] == ["code"], "the first to go"
    assert "code" not in [column.title for column in Board("", "", META, lines[:2]).filled()]


# --- snapshots ---

def stored_job(xp: Experiment, name: str) -> None:
    xp.intend_job(Job("t", "local", 1.0, code={"commit": COMMIT, "dirty": [], "hash": name}, number=1))
    xp.record_job(1, "7")


def test_snapshots_are_listed_and_removed_unless_one_is_needed(tmp_path, monkeypatch, capsys):
    (tmp_path / "project").mkdir()
    names = []
    for text in ("one", "two", "three"):
        (tmp_path / "project" / "a.py").write_text(text)
        names.append(snapshot(tmp_path / "project", tmp_path).name)
    done, gone = experiment(tmp_path, {"seed": 1}), experiment(tmp_path, {"seed": 2}, state=State.INTERRUPTED)
    again = experiment(tmp_path, {"seed": 3}, state=State.INTERRUPTED)
    stored_job(done, names[0])
    stored_job(gone, names[1])
    stored_job(again, names[1])
    again.write_start(1, Start(1, {"hash": names[0]}))
    statuses = {done.sig: Status(State.COMPLETED), gone.sig: Status(State.INTERRUPTED), again.sig: Status(State.FAILED)}
    monkeypatch.setattr(command, "look", lambda *args, **options: statuses)
    monkeypatch.setattr(command, "asked", lambda: None)
    lines = {line.split()[0]: line for line in command.listed(tmp_path)}
    assert lines.keys() == set(names)
    assert "2 XPs      0 unfinished" in lines[names[0]] and COMMIT[:9] in lines[names[0]] + lines[names[1]]
    assert "2 XPs      1 unfinished" in lines[names[1]] and "0 XPs      0 unfinished" in lines[names[2]]
    with pytest.raises(UserError, match=f"{names[1]} is needed: XP {gone.sig} is interrupted.*Nothing was removed"):
        command.remove(tmp_path, [names[0], names[1]])
    assert len(list((tmp_path / "codes").iterdir())) == 3
    with pytest.raises(UserError, match="no snapshot begins"):
        command.remove(tmp_path, ["x"])
    command.remove(tmp_path, [names[0][:6], names[2]])
    assert [path.name for path in (tmp_path / "codes").iterdir()] == [names[1]]
    assert f"removed {names[0]}" in capsys.readouterr().out


def test_the_command_is_light_and_its_mistakes_are_short(tmp_path):
    env = {**os.environ, "DORA_DIR": str(tmp_path)}
    code = "import sys, dora_train.code; print(sorted({'torch', 'dora', 'hydra', 'lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for args, message in [(["5f3a", "there"], "there is no experiment"), (["5f3a"], "a new folder"),
                          (["--remove", "5f3a"], "no snapshot begins"),
                          (["5f3a", "there", "--remove", "9"], "a new folder")]:
        done = subprocess.run([sys.executable, "-m", "dora_train.code", *args], cwd=ROOT, env=env, capture_output=True,
                              text=True)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    done = subprocess.run([sys.executable, "-m", "dora_train.code"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "no snapshots" in done.stdout


# --- the real thing ---

@pytest.mark.slow
def test_a_run_that_was_mended_midway_keeps_both_codes(copy: Project, tmp_path):
    git(copy.root, "init", "-q")
    git(copy.root, "add", "-A")
    git(copy.root, "commit", "-qm", "first")
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
    out = copy.run("python", "-m", "dora_train.code", sig, str(tmp_path / "last"))
    assert "from the commit and its patch" in out and content(tmp_path / "last") == content(copy.root)
    copy.run("python", "-m", "dora_train.code", sig, str(tmp_path / "first"), "--code", one.code["hash"][:6])
    assert content_hash(tmp_path / "first") == one.code["hash"]


@pytest.mark.slow
def test_a_job_knows_its_code_and_its_snapshot_is_not_removed_before_its_end(machine: Machine, tmp_path):
    project = GridProject(tmp_path, machine)

    def ask(*args: str, code: int = 0) -> str:
        done = subprocess.run([sys.executable, "-m", "dora_train.code", *args], cwd=project.folder, env=project.env,
                              capture_output=True, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    git(project.folder, "init", "-q")
    git(project.folder, "add", "-A")
    git(project.folder, "commit", "-qm", "first")
    (project.folder / ODD).write_text("untracked")
    project.grid("launcher(seed=1)", "launcher(seed=2)")
    project.sync()
    then = content(project.folder)
    (project.folder / ODD).write_text("edited while it waits, or runs")
    name = content_hash(next((project.out / "codes").iterdir()))
    for xp in project.xps():
        job = xp.job()
        assert job and job.code["hash"] == name and xp.patch(name).exists()
    assert "is needed: XP" in ask("--remove", name[:8], code=1)
    machine.wait(lambda: all(xp.state().state is State.COMPLETED for xp in project.xps()))
    xp = project.xps()[0]
    assert [start.code for start in xp.starts()] == [xp.job().code] and xp.state().codes == 1  # type: ignore[union-attr]
    assert "2 XPs      0 unfinished" in ask()
    assert "its snapshot" in ask(xp.sig, str(tmp_path / "from the snapshot"))
    assert f"removed {name}" in ask("--remove", name[:8])
    assert "the commit and its patch" in ask(xp.sig, str(tmp_path / "from the commit"))
    assert content(tmp_path / "from the commit") == content(tmp_path / "from the snapshot") == then
