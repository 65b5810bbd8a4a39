"""The project that the engine's tests run on: the engine of this work tree, with the example's
front page instead of the researcher's.

`example/` holds the front page as the developers of the engine wrote it: `conf/`, `grids/`, the
model, the module, the data, and the tools' files. `python -m dora_train.upgrade` shows a researcher
what changed in it. A researcher replaces those files in their own project, and the tests of
the engine stay green. `python tests/engine/example.py` copies the front page into `example/` again;
that is for the developers of the engine alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elsewhere import hide_linux

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = Path(__file__).resolve().parent / "example"
FRONT_PAGE = [  # what a later engine may ask to change; without the engine's own paths
    "CHANGELOG.md",
    "Makefile",
    "conf",
    "constraints.txt",
    "dora_train",
    "grids",
    "pyproject.toml",
    "requirements.txt",
    "requirements-dev.txt",
    "requirements-extra.txt",
]


def owned() -> list[str]:
    """The engine's paths, relative to the project."""
    lines = (REPOSITORY / "dora_train/engine/owned.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def front_page() -> dict[str, bytes]:
    """The files of the researcher's front page in this work tree, by their path."""
    return _contents(REPOSITORY, without=owned())


def example() -> dict[str, bytes]:
    """The files of the example, by their path."""
    return _contents(EXAMPLE, without=[])


def _contents(root: Path, without: list[str]) -> dict[str, bytes]:
    found = {}
    for name in FRONT_PAGE:
        for path in _files(root / name):
            relative = path.relative_to(root)
            if not any(relative.is_relative_to(own) for own in without):
                found[relative.as_posix()] = path.read_bytes()
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    ]


@contextmanager
def assembled() -> Iterator[Path]:
    """A folder with the example and this engine, as a git repository with one commit.

    A project is usually a repository, and an experiment's code is then found through git.
    """
    with tempfile.TemporaryDirectory(prefix="dora_train-") as folder:
        root = Path(folder).resolve() / "project"
        shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("__pycache__"))
        for name in owned():
            if not name.startswith("tests"):
                _copy(REPOSITORY / name, root / name)
        if os.environ.get("DORA_TEST_ELSEWHERE"):  # test_elsewhere.py
            hide_linux(root)
        (root / ".gitignore").write_text("outputs/\n__pycache__/\n")
        _commit(root)
        yield root


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _commit(root: Path) -> None:
    who = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    git = ["git", "-C", str(root)]
    try:
        subprocess.run([*git, "init", "--quiet"], check=True)
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, *who, "commit", "--quiet", "--message=The example"], check=True)
    except FileNotFoundError:  # no git on this machine: the project is a plain folder
        pass


def copy_front_page() -> None:
    """Make `example/` the front page of this work tree."""
    shutil.rmtree(EXAMPLE, ignore_errors=True)
    for name, content in front_page().items():
        target = EXAMPLE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


if __name__ == "__main__":
    copy_front_page()
