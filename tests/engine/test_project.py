"""Which files of a project are its code, whatever else lies in its folder, and what git says of
them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dora_train.engine.errors import UserError
from dora_train.engine.experiment import project
from dora_train.engine.experiment.code import Code, read_project
from dora_train.engine.experiment.project import Repository, find_code, shown
from dora_train.engine.experiment.snapshot import everything, unpacked

CODE = [
    "setup.py",
    "requirements.txt",
    "run.sh",
    "conf/config.yaml",
    "conf/data/mine.yml",
    "vocab.json",
    "Makefile.cfg",
    "mylib/__init__.py",
    "mylib/vocab.json",
    "mylib/tokenizer.model",
    "mylib/inner/deep/table.bin",
    "mylib/prompt.md",
    "loose/module.py",
    "loose/settings.toml",
    "kernels/fast.cu",
    "kernels/fast.cpython-311-x86_64-linux-gnu.so",
    "env/__init__.py",
    "env/cartpole.py",
    "odd name ä\n'\"/it's.py",
    "outputs2/plan.py",
    "data/prepare.py",
]
NOT_CODE = [
    "README.md",
    "LICENSE",
    "mylib/README.md",
    "explore.ipynb",
    "mylib/explore.ipynb",
    "report.html",
    "table.csv",
    "photos/1.png",
    "loose/image.png",
    "data/train.bin",
    "tests/test_it.py",
    "tests/data.yaml",
    "mylib/tests/test_it.py",
    ".hidden.py",
    ".hidden/module.py",
    ".github/workflows/ci.yaml",
    "mylib/.hidden",
    "mylib/module.py~",
    "mylib/__pycache__/module.cpython-311.pyc",
    "outputs/xps/5f3a91c2/events.yaml",
    "wandb/run/config.yaml",
    "node_modules/left/pad.json",
    "venv/pyvenv.cfg",
    "venv/lib/python3.11/site-packages/torch/torch.py",
    "conda/conda-meta/history",
    "conda/bin/activate.py",
    "runs/xps/5f3a91c2/.argv.json",
    "runs/codes/55/module.py",
    "elsewhere/xps/notes.txt",
    "elsewhere/module.py",
]


def git(root: Path, *args: str) -> str:
    names = [
        "-c",
        "user.name=n",
        "-c",
        "user.email=e",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "protocol.file.allow=always",
    ]
    return subprocess.run(
        ["git", "-C", str(root), *names, *args], check=True, capture_output=True, text=True
    ).stdout


def committed(root: Path) -> Path:
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def tree(root: Path, *paths: str, text: str = "") -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text or f"# {path!r}")
    return root


def code_in(root: Path, *left_out: Path) -> list[str]:
    """As `Code.of` finds it."""
    return sorted(Code.of(root, left_out).files)


# --- what is code ---


@pytest.mark.parametrize("with_git", [False, True])
def test_code_is_what_can_be_imported_or_read_as_configuration(with_git, tmp_path):
    tree(tmp_path, *CODE, *NOT_CODE)
    if with_git:
        git(tmp_path, "init", "-q")
    assert code_in(tmp_path, tmp_path / "elsewhere") == sorted(CODE)


def test_the_hash_changes_with_the_code_and_with_nothing_else(tmp_path):
    tree(tmp_path, *CODE, *NOT_CODE)
    before = Code.of(tmp_path, [tmp_path / "elsewhere"]).hash
    for path in NOT_CODE:
        if not path.endswith((".argv.json", "pyvenv.cfg")):
            (tmp_path / path).write_text("a word more")
    assert Code.of(tmp_path, [tmp_path / "elsewhere"]).hash == before
    for path in ("mylib/tokenizer.model", "conf/config.yaml", "loose/module.py"):
        (tmp_path / path).write_text("a word more")
        after = Code.of(tmp_path, [tmp_path / "elsewhere"]).hash
        assert after != before
        before = after
    (tmp_path / "run.sh").chmod(0o755)
    assert Code.of(tmp_path, [tmp_path / "elsewhere"]).hash != before


@pytest.mark.parametrize(
    "folder", ["photos", "mylib/photos", "mylib/classes/{}", "annotations/{}", "loose"]
)
def test_a_folder_of_many_files_is_data_and_is_named(folder, tmp_path):
    tree(tmp_path, "setup.py", "mylib/__init__.py", "mylib/vocab.json", "loose/module.py")
    before = code_in(tmp_path)
    for number in range(1001):
        tree(tmp_path, f"{folder.format(number % 5)}/{number}.txt")
    code = Code.of(tmp_path)
    assert sorted(code.files) == before
    assert code.note == f"not part of the code: {folder.removesuffix('/{}')}/ (over 1,000 files)"


def test_few_files_are_no_data(tmp_path):
    tree(tmp_path, "mylib/__init__.py", *[f"mylib/pages/{number}.html" for number in range(1000)])
    code = Code.of(tmp_path)
    assert len(code.files) == 1001 and not code.note


def test_the_configuration_is_no_data(tmp_path):
    """However many recipes there are."""
    tree(
        tmp_path, "conf/config.yaml", *[f"conf/experiment/{number}.yaml" for number in range(1001)]
    )
    assert len(Code.of(tmp_path).files) == 1002


def test_data_beside_code_hides_no_code(tmp_path):
    """Whatever the order in which they are looked at."""
    files = [f"libs/{name}/{number}.png" for name in ("aaa", "zzz") for number in range(1001)]
    tree(tmp_path, "libs/mine/module.py", *files)
    assert code_in(tmp_path) == ["libs/mine/module.py"]
    assert Code.of(tmp_path).note.count("over 1,000 files") == 2


def test_of_data_few_files_are_looked_at(tmp_path, monkeypatch):
    """A linked folder may hold millions."""
    data = tree(
        tmp_path / "data",
        *[f"class {label:03}/{number}.png" for label in range(300) for number in range(6)],
    )
    root = tree(tmp_path / "root", "module.py")
    (root / "link").symlink_to(data)
    monkeypatch.setattr(project, "MANY", 10)
    monkeypatch.setattr(project, "LOOKED_AT", 100)
    seen = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda folder: seen.append(folder) or walk(folder))
    code, large = find_code(root)
    assert code == ["module.py"] and large == ["link/ (over 10 files)"] and len(seen) < 30


def test_a_large_file_is_data_unless_python_imports_it(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "LARGE", 2**20 - 1)
    tree(tmp_path, "mylib/__init__.py", "small.json")
    for name in ("mylib/kernel.so", "mylib/weights.pt", "corpus.txt"):
        (tmp_path / name).write_bytes(bytes(2**20))
    code = Code.of(tmp_path)
    assert sorted(code.files) == ["mylib/__init__.py", "mylib/kernel.so", "small.json"]
    assert code.note == "not part of the code: corpus.txt (1 MB), mylib/weights.pt (1 MB)"


@pytest.mark.parametrize("place", ["results", ".", "linked"])
def test_results_are_never_code(place, tmp_path, monkeypatch):
    """Wherever `DORA_DIR` lies, also in the project's folder itself."""
    root, out = tree(tmp_path / "root", "module.py"), tmp_path / "root" / place
    if place == "linked":
        (tmp_path / "disk").mkdir()
        out.symlink_to(tmp_path / "disk")
    tree(out, "xps/5f3a91c2/config.json", "codes/55/module.py", "arrays/token/tasks.json")
    monkeypatch.setattr("dora_train.engine.experiment.code.ROOT", root)
    assert list(read_project(out).files) == ["module.py"]


def test_a_folder_that_holds_more_than_a_project_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "MOST", 5)
    tree(tmp_path, *[f"others/{number}.py" for number in range(6)])
    with pytest.raises(UserError, match=r"more than a project, e.g. others/\d.py.\n.*\.gitignore"):
        find_code(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(project, "_files", lambda *args: iter(["module.py"]))
    with pytest.raises(UserError, match="^/ holds more than a project"):
        find_code(Path("/"))


# --- odd files ---


def test_only_regular_files_are_read(tmp_path):
    """To read a pipe would never end."""
    root = tree(tmp_path / "root", "module.py", "mylib/__init__.py")
    os.mkfifo(root / "pipe.py")
    os.mkfifo(root / "mylib" / "pipe")
    (root / "device.py").symlink_to("/dev/zero")
    (root / "pipe.yaml").symlink_to("pipe.py")
    (root / "nothing.py").symlink_to("nowhere.py")
    (root / "itself.py").symlink_to("itself.py")
    (root / "itself").symlink_to("itself")
    (root / "mylib.py").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(root / "mylib" / "socket"))
    assert code_in(root) == ["module.py", "mylib/__init__.py"]


def test_what_cannot_be_read_is_no_code(tmp_path, monkeypatch):
    tree(tmp_path, "module.py", "secret.py", "gone.py")
    real = open

    def refuse(path, *args, **kwargs):
        if Path(path).name == "secret.py":
            raise PermissionError(13, "Permission denied", str(path))
        if Path(path).name == "gone.py":
            raise FileNotFoundError(2, "No such file", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)
    assert code_in(tmp_path) == ["module.py"]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take text only")
def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9\n.py")
    tree(tmp_path / "root", name, "mylib/__init__.py")
    git(tmp_path / "root", "init", "-q")
    code = Code.of(tmp_path / "root")
    assert sorted(code.files) == sorted([name, "mylib/__init__.py"]) == code.dirty
    assert (
        json.loads(json.dumps(code.stored())) == code.stored() and shown(name) == r"caf\udce9\n.py"
    )
    code.keep(tmp_path / "kept.tar.gz")
    assert (
        everything(code.snapshot(tmp_path / "out"))
        == unpacked(tmp_path / "kept.tar.gz")
        == code.files
    )


def test_linked_folders_and_circles(tmp_path):
    root, shared = (
        tmp_path / "root",
        tree(tmp_path / "shared", "lib/__init__.py", "lib/vocab.bin", "base.yaml"),
    )
    tree(root, "module.py", "mylib/__init__.py")
    (root / "lib").symlink_to(shared / "lib")
    (root / "conf").symlink_to("../shared")
    (root / "mylib" / "back").symlink_to("..")
    (root / "mylib" / "everything").symlink_to("/")
    (root / "mylib" / "other").symlink_to("../lib")
    (shared / "lib" / "around").symlink_to(root / "mylib")
    code = code_in(root)
    assert {
        "lib/__init__.py",
        "lib/vocab.bin",
        "conf/base.yaml",
        "conf/lib/__init__.py",
        "mylib/__init__.py",
        "mylib/other/__init__.py",
        "module.py",
    } <= set(code)
    assert not any(
        "back" in path or "everything" in path or path.count("around") > 1 for path in code
    )


# --- git ---


def test_ignored_files_are_code_only_if_python_imports_them(tmp_path):
    tree(
        tmp_path,
        "mylib/__init__.py",
        "mylib/_version.py",
        "mylib/kernel.so",
        "mylib/local.json",
        "scratch/try.py",
        "local.yaml",
        "kept.log.yaml",
    )
    (tmp_path / ".gitignore").write_text("*.so\n_version.py\nlocal.*\n*.log.yaml\nscratch/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-f", "kept.log.yaml")
    assert code_in(tmp_path) == [
        "kept.log.yaml",
        "mylib/__init__.py",
        "mylib/_version.py",
        "mylib/kernel.so",
    ]


def test_the_files_of_a_submodule_are_code(tmp_path):
    committed(tree(tmp_path / "lib", "fast/__init__.py", "README.md"))
    root = tree(tmp_path / "root", "module.py")
    git(root, "init", "-q")
    git(root, "submodule", "add", "-q", str(tmp_path / "lib"), "third_party/lib")
    committed(root)
    committed(tree(root / "cloned", "other.py"))
    code = Code.of(root)
    assert sorted(code.files) == [
        "cloned/other.py",
        "module.py",
        "third_party/lib/fast/__init__.py",
    ]
    assert code.dirty == ["cloned"], "a clone that is no submodule"
    (root / "third_party" / "lib" / "fast" / "__init__.py").write_text("edited")
    edited = Code.of(root)
    assert edited.dirty == ["cloned", "third_party/lib"] and edited.hash != code.hash


def test_only_code_is_called_changed(tmp_path):
    root = committed(
        tree(
            tmp_path,
            "module.py",
            "gone.py",
            "moved.py",
            "README.md",
            "tests/test_it.py",
            "conf/a.yaml",
        )
    )
    git(root, "mv", "moved.py", "here.py")
    for path in ("gone.py", "tests/test_it.py"):
        (root / path).unlink()
    tree(
        root, "README.md", "new.py", "tests/test_new.py", "photo.png", "conf/a.yaml", text="edited"
    )
    assert Code.of(root).dirty == ["conf/a.yaml", "gone.py", "here.py", "moved.py", "new.py"]


@pytest.mark.parametrize("where", ["", "a project ä\n within"])
def test_commit_and_changes(where, tmp_path):
    root = tmp_path / where
    tree(root, "module.py", "other.py", "ignored.yaml")
    (tmp_path / ".gitignore").write_text("ignored.yaml")
    git(tmp_path, "init", "-q")
    assert Code.of(root).commit == "" and Code.of(root).dirty == ["module.py", "other.py"]
    assert "commit" in Code.of(root).stored()
    committed(tmp_path)
    tree(tmp_path, "outside.py")
    (root / "other.py").write_text("edited")
    code = Code.of(root)
    assert code.commit == git(tmp_path, "rev-parse", "HEAD").strip()
    expected = ["other.py"] if where else ["other.py", "outside.py"]
    assert code.dirty == expected and "ignored.yaml" not in code.files


def test_a_repository_around_that_ignores_the_project(tmp_path):
    """Its commit says nothing of the project."""
    committed(tree(tmp_path, "other.py"))
    (tmp_path / ".gitignore").write_text("*")
    code = Code.of(tree(tmp_path / "unpacked" / "project", "module.py"))
    assert list(code.files) == ["module.py"] and code.stored() == {"hash": code.hash}


def test_a_worktree_of_git(tmp_path):
    committed(tree(tmp_path / "main", "module.py"))
    git(tmp_path / "main", "worktree", "add", "-q", str(tmp_path / "second"))
    (tmp_path / "second" / "module.py").write_text("edited")
    code = Code.of(tmp_path / "second")
    assert code.commit and code.dirty == ["module.py"]


def test_surroundings_do_not_change_what_git_says(tmp_path, monkeypatch):
    """A hook's variables name another repository; settings change how files are shown, or what is
    written."""
    root = committed(tree(tmp_path / "root", "module.py", "ä.py"))
    other = committed(tree(tmp_path / "other", "other.py"))
    (root / "ä.py").write_text("edited\r\n")
    before = Code.of(root)
    files = {path: path.read_bytes() for path in (root / ".git").rglob("*") if path.is_file()}
    for name, value in [
        ("GIT_DIR", other / ".git"),
        ("GIT_WORK_TREE", other),
        ("GIT_INDEX_FILE", other / "index"),
    ]:
        monkeypatch.setenv(name, str(value))
    assert Code.of(root) == before and before.dirty == ["ä.py"]
    assert files == {
        path: path.read_bytes() for path in (root / ".git").rglob("*") if path.is_file()
    }, "touched"
    monkeypatch.undo()
    for key, value in [
        ("core.quotePath", "true"),
        ("status.relativePaths", "false"),
        ("core.autocrlf", "true"),
        ("status.showUntrackedFiles", "no"),
        ("status.short", "true"),
        ("color.ui", "always"),
    ]:
        git(root, "config", key, value)
    (root / ".gitattributes").write_text("*.py text eol=crlf ident filter=missing export-ignore\n")
    assert Code.of(root).files == before.files


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_clone_of_another_user(tmp_path):
    """As in a container: git alone refuses it."""
    root = committed(tree(tmp_path, "module.py"))
    for path in [root, *root.rglob("*")]:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    assert subprocess.run(["git", "-C", str(root), "status"], capture_output=True).returncode == 128
    assert Repository.of(root).commit


def test_without_git(tmp_path, monkeypatch):
    tree(tmp_path, "module.py")
    monkeypatch.setenv("PATH", "")
    code = Code.of(tmp_path)
    assert list(code.files) == ["module.py"] and code.stored() == {"hash": code.hash}
