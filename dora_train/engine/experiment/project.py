"""Which of the project's files are its code, and how they differ from the commit.

Code is what a run can import or read as configuration: Python, compiled modules, text that
configures or builds (`TEXT`), and every file of a package. Documents, notebooks, tests,
environments, hidden files, `DORA_DIR` and what git ignores are not code. Neither is data: a large
file, or a folder of more than 1,000 files without Python.
"""

import os
import stat
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from ..errors import UserError

PYTHON = (".py", ".so", ".pyd")  # also if git ignores them, as it often does generated modules
TEXT = (
    ".yaml",
    ".yml",
    ".json",
    ".toml",
    ".cfg",
    ".ini",
    ".conf",
    ".txt",
    ".sh",
    ".c",
    ".cc",
    ".cpp",
    ".cxx",
    ".h",
    ".hpp",
    ".cu",
    ".cuh",
    ".pyx",
    ".pxd",
)
NEVER_CODE = (".ipynb", ".pyc", ".orig", "~")
NEVER_ENTERED = {"__pycache__", "node_modules", "site-packages", "tests"}
RESULTS = {"outputs", "multirun", "wandb", "mlruns", "lightning_logs"}  # beside dora_train/
CONFIGURATION = "conf/"  # never data: a lab may have thousands of recipes
MANY = 1000  # a folder with more files and no Python is data
LOOKED_AT = 10_000  # if so many files of a folder are no Python, all are taken to be none
MOST = 50_000  # a folder with more Python files is no project
LARGE = 50 * 2**20  # bytes of a file that Python does not import

Paths = Collection[str]


def find_code(root: Path, left_out: Paths = (), ignored: Paths = ()) -> tuple[list[str], list[str]]:
    """The paths of the project's code, and the files and folders that are data, in words.

    Args:
        left_out: real paths of folders that are never code.
        ignored: paths that git ignores. These and the result are relative to the project's folder.

    Raises:
        UserError: the folder holds more files than a project.
    """
    python, others = _by_kind(root, left_out, ignored)
    packages: set[str] = set()
    with_python: set[str] = set()
    for path in python:
        with_python.update(_folders(path))
        if path.endswith("/__init__.py"):
            packages.add(os.path.dirname(path))
    many = _many(others, with_python)
    data = [f"{shown(unit)}/ (over {MANY:,} files)" for unit in sorted(many)]
    code = [path for path in python if _size(root / path) is not None]
    for path in others:
        if path in ignored or _unit(path, with_python) in many or not _is_read(path, packages):
            continue
        size = _size(root / path)
        if size is not None and size <= LARGE:
            code.append(path)
        elif size is not None:
            data.append(f"{shown(path)} ({size / 2**20:,.0f} MB)")
    return code, data


def _by_kind(root: Path, left_out: Paths, ignored: Paths) -> tuple[list[str], list[str]]:
    """The files that Python imports, and the others.

    Raises:
        UserError: there are more than in a project.
    """
    python: list[str] = []
    others: list[str] = []
    is_root_of_disk = not root.absolute().parts[1:]
    most = 0 if is_root_of_disk else MOST
    for path in _files(root, "", left_out, {*RESULTS, *ignored}):
        if path.endswith(PYTHON):
            python.append(path)
        else:
            others.append(path)
        if len(python) > most:
            raise UserError(
                f"{root} holds more than a project, e.g. {shown(path)}.",
                "move the project into a folder of its own, or name the others in .gitignore",
            )
    return python, others


def _many(others: Sequence[str], with_python: Paths) -> set[str]:
    """The folders that are data, as they hold many files."""
    counts: Counter[str] = Counter()
    for path in others:
        if not path.startswith(CONFIGURATION):
            counts[_unit(path, with_python)] += 1
    return {unit for unit, count in counts.items() if count > MANY}


def _files(root: Path, folder: str, left_out: Paths, ignored: Paths) -> Iterator[str]:
    """Yield the files of a folder, and of the folders below it that may hold code, linked ones too.

    Of a folder without Python it yields `MANY` + 1 files: they show that it is data.
    """
    _, folders, files = next(os.walk(root / folder), ("", [], []))
    if folder and _is_foreign(root / folder, {*folders, *files}):
        return
    yield from (f"{folder}{name}" for name in files if not name.startswith("."))
    for name in sorted(folders):
        path = f"{folder}{name}"
        if path in ignored or not _is_entered(root / path, left_out):
            continue
        path += "/"
        below = _files(root, path, left_out, ignored)
        first = list(islice(below, LOOKED_AT))
        if path.startswith(CONFIGURATION) or any(file.endswith(PYTHON) for file in first):
            yield from chain(first, below)
        else:
            yield from first[: MANY + 1]


def _is_foreign(folder: Path, names: Paths) -> bool:
    """Whether a folder is a Python environment or holds results. Its name does not matter."""
    if "xps" in names and any(folder.glob("xps/*/.argv.json")):
        return True
    return "pyvenv.cfg" in names or "conda-meta" in names


def _is_entered(folder: Path, left_out: Paths) -> bool:
    """Whether a folder may hold code."""
    if folder.name.startswith(".") or folder.name in NEVER_ENTERED:
        return False
    if not folder.is_symlink():
        return str(folder) not in left_out
    real = os.path.realpath(folder)
    leads_back = real in map(os.path.realpath, folder.parents)
    return not leads_back and real not in left_out


def _folders(path: str) -> list[str]:
    """`["a", "a/b"]` of `a/b/c.py`."""
    return [path[:at] for at, letter in enumerate(path) if letter == "/"]


def _unit(path: str, with_python: Paths) -> str:
    """The largest folder around a file that holds no Python, or else the file's own folder."""
    folders = _folders(path)
    for folder in folders:
        if folder not in with_python:
            return folder
    return folders[-1] if folders else "."


def _is_read(path: str, packages: Paths) -> bool:
    """Whether a run may read this file, which Python does not import."""
    name = os.path.basename(path).lower()
    if name.startswith("readme") or name.endswith(NEVER_CODE):
        return False
    return name.endswith(TEXT) or any(folder in packages for folder in _folders(path))


def _size(path: Path) -> int | None:
    """The size in bytes of a regular file. None for others: to read a pipe would never end."""
    try:
        status = os.stat(path)
    except OSError:  # it is gone, or a broken link
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def shown(path: str) -> str:
    """A path that can be printed. A name may hold line ends, and bytes that are no text."""
    return path if path.isprintable() else ascii(path)[1:-1]


# --- git ---


@dataclass(frozen=True)
class Repository:
    """A project's state in git. Paths are relative to the project."""

    commit: str = ""  # empty without git, and before the first commit
    changed: Sequence[str] = ()  # files and submodules that are not as in the commit
    ignored: Paths = ()

    @classmethod
    def of(cls, root: Path) -> "Repository":
        """Ask git about a project. Without git, and in a repository that ignores it, it is empty."""
        prefix = git(root, "rev-parse", "--show-prefix")
        status = git(
            root,
            "status",
            "--porcelain",
            "-z",
            "--no-renames",
            "--untracked-files=all",
            "--ignored=matching",
            "--",
            ".",
        )
        if prefix is None or status is None:
            return cls()
        prefix = prefix.removesuffix("\n")
        changed, ignored = [], set()
        for entry in filter(None, status.split("\0")):
            if prefix.startswith(entry[3:]):
                return cls()  # a repository around the project, which ignores it
            path = entry[3:].removeprefix(prefix).removesuffix("/")
            if entry.startswith("!!"):
                ignored.add(path)
            else:
                changed.append(path)
        commit = git(root, "rev-parse", "--quiet", "--verify", "HEAD")
        return cls((commit or "").strip(), changed, ignored)

    def changed_code(self, root: Path, code: Paths) -> list[str]:
        """The changed files among `code`, and those that are gone."""
        known = set(code)
        for path in code:
            known.update(map(str, Path(path).parents))  # a changed submodule is named by its folder
        gone = [path for path in self.changed if not (root / path).exists()]
        for path in gone:
            if path.endswith(PYTHON + TEXT) and "tests/" not in path:
                known.add(path)
        return sorted(known.intersection(self.changed))


def git(root: Path, *args: str, **env: str) -> str | None:
    """The output of git in a folder, or None if it fails.

    Variables that git sets for a hook (GIT_DIR, GIT_INDEX_FILE) name another repository, and are
    left out.
    """
    inherited = {}
    for name, value in os.environ.items():
        if not name.startswith("GIT_") or name.startswith(("GIT_CONFIG", "GIT_CEILING")):
            inherited[name] = value
    # A clone in a container often belongs to another user. Its Python is run, so git may read it.
    command = ["git", "-C", str(root), "-c", f"safe.directory={os.path.realpath(root)}", *args]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            env={**inherited, "GIT_OPTIONAL_LOCKS": "0", **env},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode != 0:
        return None
    return done.stdout.decode(errors="surrogateescape")
