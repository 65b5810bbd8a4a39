"""A later engine comes into a project whose other files are somebody's own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from example import EXAMPLE, REPOSITORY, owned
from project import Project, sig_of, stored, weights

OLDER = Path(__file__).parent / "older/port.tar.gz"
AVERAGED, PLATEAU, FINISHED = "2e71a5d3", "d8f80431", "e3a53e2e"


class Clone:
    """A git repository with the files of this engine and of the example's front page."""

    def __init__(self, root: Path):
        self.root = root
        shutil.copytree(EXAMPLE, root)
        for name in owned():
            source, target = REPOSITORY / name, root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        self.write("tests/test_mine.py", "def test_mine(): pass\n")
        self.commit()

    def git(self, *args: str, code: int = 0) -> str:
        who = ["-c", "user.name=me", "-c", "user.email=me@localhost"]
        done = subprocess.run(
            ["git", "-C", str(self.root), *who, *args], capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    def commit(self) -> None:
        if not (self.root / ".git").exists():
            self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=A state")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def edit(self, name: str, before: str, after: str) -> None:
        text = (self.root / name).read_text()
        assert before in text
        self.write(name, text.replace(before, after))

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def upgrade(self, *args: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dora_train.upgrade", *args],
            cwd=self.root,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def mine(tmp_path: Path) -> Clone:
    """Somebody's project: another model, and a default of their own."""
    clone = Clone(tmp_path / "my project")
    clone.write("dora_train/model.py", "# mine\n")
    clone.edit("conf/config.yaml", "seed: 0 ", "seed: 7 ")
    clone.commit()
    return clone


@pytest.fixture
def later(tmp_path: Path) -> Clone:
    """A later engine: a file of it was edited, one is new, one is gone; its example has changed."""
    clone = Clone(tmp_path / "later")
    clone.edit("dora_train/engine/words.py", '"""', '"""Later. ')
    clone.write("dora_train/engine/new.py", "LATER = True\n")
    clone.write("conf/engine.yaml", "later: true  # a key\n")
    (clone.root / "dora_train/engine/shell.py").unlink()
    for folder in ("", "tests/engine/example/"):
        clone.edit(f"{folder}conf/config.yaml", "grid_package: grids", "grid_package: mine")
    clone.commit()
    clone.git("tag", "v9")
    clone.write("dora_train/engine/unfinished.py", "")
    clone.commit()
    return clone


def test_the_engine_is_replaced_and_nothing_else(mine: Clone, later: Clone):
    rooms = {
        name: mine.read(name)
        for name in mine.git("ls-files").splitlines()
        if not any(Path(name).is_relative_to(own) for own in owned())
    }
    said = mine.upgrade("../later", "--tag", "v9")
    assert "LATER" in mine.read("dora_train/engine/new.py")
    assert "Later." in mine.read("dora_train/engine/words.py")
    assert mine.read("conf/engine.yaml").startswith("later")
    assert not (mine.root / "dora_train/engine/shell.py").exists()
    assert not (mine.root / "dora_train/engine/unfinished.py").exists(), "newer than the tag"
    assert rooms == {name: mine.read(name) for name in rooms}
    assert "conf/config.yaml" in said and "dora_train/model.py" not in said
    assert not mine.git("diff"), "it is all staged"
    # the commands that it names do what they say
    mine.git("commit", "--quiet", "-m", "Upgrade")
    assert "has that engine already" in mine.upgrade("../later", "--tag", "v9")
    assert mine.upgrade("../later").count("1 file changed") == 1


def test_what_changed_in_the_example_can_be_taken(mine: Clone, later: Clone):
    said = mine.upgrade(str(later.root))
    [take] = re.findall(r"take it: +(git diff .*) \| (git apply .*)", said)
    command = " | ".join(take).replace("FILE", "conf/config.yaml")
    done = subprocess.run(command, shell=True, cwd=mine.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = mine.read("conf/config.yaml")
    assert "seed: 7 " in text and "grid_package: mine" in text
    [undo] = re.findall(r"undo it: +git (.*)", said)
    mine.git(*undo.split())
    assert not mine.git("status", "--porcelain")
    assert "Later." not in mine.read("dora_train/engine/words.py")


def test_a_dirty_tree_is_refused(mine: Clone, later: Clone):
    mine.write("notebook.ipynb", "{}")  # in nobody's way
    mine.write("dora_train/mine.py", "")
    mine.upgrade("../later")
    mine.git("reset", "--quiet", "--hard")
    for name in ("dora_train/engine/mine.py", "conf/config.yaml"):
        mine.write(name, "")
        said = mine.upgrade("../later", code=1)
        assert "not committed" in said and name in said
        assert "Later." not in mine.read("dora_train/engine/words.py")
        mine.git("checkout", "--quiet", "conf")
        (mine.root / "dora_train/engine/mine.py").unlink(missing_ok=True)
    # a project that is too old to say what belongs to its engine
    mine.git("rm", "--quiet", "dora_train/engine/owned.txt")
    mine.commit()
    mine.write("dora_train/engine/new.py", "# the later engine has a file of this name\n")
    assert "?? dora_train/engine/new.py" in mine.upgrade("../later", code=1)
    assert mine.read("dora_train/engine/new.py").startswith("# the later")


def test_what_cannot_be_taken_is_refused(mine: Clone, later: Clone, tmp_path: Path):
    assert "cannot fetch HEAD" in mine.upgrade("../nowhere", code=1)
    assert "cannot fetch v8" in mine.upgrade("../later", "--tag", "v8", code=1)
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["git", "init", "--quiet", str(other)], check=True)
    assert "cannot fetch HEAD" in mine.upgrade(str(other), code=1), "no commit in it"
    later.git("rm", "--quiet", "dora_train/engine/owned.txt")
    later.commit()
    assert "is no dora_train" in mine.upgrade("../later", code=1)
    assert not mine.git("status", "--porcelain")
    shutil.rmtree(mine.root / ".git")
    assert "not a git repository" in mine.upgrade("../later", code=1)
    mine.git("init", "--quiet")
    assert "no commit yet" in mine.upgrade("../later", code=1)
    shutil.rmtree(mine.root / ".git")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert "not the top folder" in mine.upgrade("../later", code=1)


@pytest.fixture
def older(tmp_path: Path) -> Clone:
    """The project and the experiments of older/README.md."""
    with tarfile.open(OLDER) as archive:
        archive.extractall(tmp_path / "older")
    [code] = (tmp_path / "older/left/xps" / AVERAGED / "code").iterdir()
    clone = Clone.__new__(Clone)
    clone.root = tmp_path / "project"
    with tarfile.open(code) as archive:
        archive.extractall(clone.root)
    clone.write("tests/grid_project.py", "# a helper of the engine's tests of that time\n")
    clone.commit()
    return clone


@pytest.mark.slow
def test_a_project_of_before_upgrades_and_resumes_its_experiments(older: Clone, tmp_path: Path):
    """The researcher's files and the defaults of their configuration stay those of their time."""
    later = Clone(tmp_path / "later")
    done = subprocess.run(
        [sys.executable, str(later.root / "dora_train/upgrade.py"), str(later.root)],
        cwd=older.root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "conf/config.yaml" in done.stdout
    assert not (older.root / "tests/grid_project.py").exists(), "it lies in tests/engine now"
    assert "two_layers" in older.read("dora_train/train.py")

    out = tmp_path / "older/left"
    project = Project(out, older.root, {"DORA_TAKE": "1"})  # their machine is gone
    assert "finished" in project.dora("run", "-f", FINISHED)
    for sig in (AVERAGED, PLATEAU):
        argv = stored(out / "xps" / sig / ".argv.json")
        assert sig_of(project.dora("run", *argv)) == sig, "the same words, the same experiment"
        equal(out / "xps" / sig, tmp_path / "older/whole/xps" / sig)
    new = sig_of(project.dora("run", "mine.hidden=12", "trainer.max_epochs=1", "threads=1"))
    assert stored(out / "xps" / new / "result.json")
    # its network is made in train.py alone, so the images' predict does not find it
    told = project.run(sys.executable, "-m", "dora_train.predict", FINISHED, code=1)
    assert 'unknown model "two_layers"' in told and "Traceback" not in told
    table = project.run(sys.executable, "-m", "dora_train.report")
    assert all(sig in table for sig in (AVERAGED, PLATEAU, FINISHED, new))


def equal(resumed: Path, whole: Path) -> None:
    """Bit for bit on the CPU and torch that computed `whole`; elsewhere up to rounding."""
    there = stored(resumed.parents[2] / "machine.json")
    tolerance = 0.0 if here() == there else 1e-3
    for name in ("history.json", "result.json"):
        mine, theirs = flat(stored(resumed / name)), flat(stored(whole / name))
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=tolerance, abs=tolerance)
            assert mine[key] == value, key
    mine, theirs = weights(resumed / "last.ckpt"), weights(whole / "last.ckpt")
    for key in theirs:
        torch.testing.assert_close(mine[key], theirs[key], rtol=tolerance, atol=tolerance)


def here() -> dict[str, str]:
    cpus = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"torch": torch.__version__, "cpu": cpus[0] if cpus else ""}


def flat(value: object, name: str = "") -> dict[str, object]:
    """The values of nested lists and dicts by their path."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {name: value}
    return {
        path: leaf
        for key, inner in value.items()
        for path, leaf in flat(inner, f"{name}/{key}").items()
    }
