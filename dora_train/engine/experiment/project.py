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

PYTHON = (".py", ".so", ".pyd")  # they count even if git ignores them: generated modules often are
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
MANY = 1000  # files without Python that are data
LOOKED_AT = 10_000  # files of a folder before it is taken to hold no Python
MOST = 50_000  # Python files of a project
LARGE = 50 * 2**20  # bytes of a file that Python does not import

Paths = Collection[str]


def find_code(root: Path, left_out: Paths = (), ignored: Paths = ()) -> tuple[list[str], list[str]]:
    """The paths of the project's code, relative to its folder, and what is data, in words.

    Args:
        left_out: real paths of folders that are never code.
        ignored: what git ignores, relative to the project's folder.

    Raises:
        UserError: there is more than any project has.
    """
    python: list[str] = []
    others: list[str] = []
    most = MOST if root.absolute().parts[1:] else 0  # in /, all of the disk would be its
    for path in _files(root, "", left_out, {*RESULTS, *ignored}):
        (python if path.endswith(PYTHON) else others).append(path)
        if len(python) > most:
            raise UserError(
                f"{root} holds more than a project, e.g. {shown(path)}.",
                "move the project into a folder of its own, or name the others in .gitignore",
            )
    packages = {os.path.dirname(path) for path in python if path.endswith("/__init__.py")}
    with_python = {folder for path in python for folder in _folders(path)}
    counts = Counter(
        _unit(path, with_python) for path in others if not path.startswith(CONFIGURATION)
    )
    many = {unit for unit, count in counts.items() if count > MANY}
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


def _files(root: Path, folder: str, left_out: Paths, ignored: Paths) -> Iterator[str]:
    """Yield the files of a folder, and of the folders below it that may hold code, linked ones too.

    Of a folder without Python, one more than `MANY` are enough to see that it is data.
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
    """Whether a folder is a Python environment, or holds results, under whatever name."""
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
    without = (folder for folder in folders if folder not in with_python)
    return next(without, folders[-1] if folders else ".")


def _is_read(path: str, packages: Paths) -> bool:
    """Whether a run may read this file, which Python does not import."""
    name = os.path.basename(path).lower()
    if name.startswith("readme") or name.endswith(NEVER_CODE):
        return False
    return name.endswith(TEXT) or any(folder in packages for folder in _folders(path))


def _size(path: Path) -> int | None:
    """The bytes of a regular file. None for anything else: to read a pipe would never end."""
    try:
        status = os.stat(path)
    except OSError:  # it is gone, or a link to nothing
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def shown(path: str) -> str:
    """A path as it can be printed: names may hold line ends, and bytes that are no text."""
    return path if path.isprintable() else ascii(path)[1:-1]


# --- git ---


@dataclass(frozen=True)
class Repository:
    """What git says of a project. Paths are relative to the project."""

    commit: str = ""  # empty without git, and before the first commit
    changed: Sequence[str] = ()  # files and submodules that are not as in the commit
    ignored: Paths = ()

    @classmethod
    def of(cls, root: Path) -> "Repository":
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
        entries = [entry for entry in status.split("\0") if entry]
        if any(prefix.startswith(entry[3:]) for entry in entries):
            return cls()  # a repository around the project, which ignores it
        paths: dict[bool, list[str]] = {True: [], False: []}
        for entry in entries:
            path = entry[3:].removeprefix(prefix).removesuffix("/")
            paths[entry.startswith("!!")].append(path)
        commit = git(root, "rev-parse", "--quiet", "--verify", "HEAD")
        return cls((commit or "").strip(), paths[False], set(paths[True]))

    def changed_code(self, root: Path, code: Paths) -> list[str]:
        """The changed files among `code`, and those that are gone."""
        known = set(code)
        for path in code:
            known.update(map(str, Path(path).parents))  # a changed submodule is named by its folder
        gone = [path for path in self.changed if not (root / path).exists()]
        gone = [path for path in gone if path.endswith(PYTHON + TEXT) and "tests/" not in path]
        return sorted(known.intersection(self.changed).union(gone))


def git(root: Path, *args: str, **env: str) -> str | None:
    """What git answers in a folder, or None if it fails. A hook's variables are not passed on."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(("GIT_CONFIG", "GIT_CEILING"))
    }
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
    return done.stdout.decode(errors="surrogateescape") if done.returncode == 0 else None
