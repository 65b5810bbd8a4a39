"""Grid files: which there are, loading one, running it, and which grid wants which experiment.

What a grid wants is a link `outputs/grids/NAME/SIG -> ../../xps/SIG`, as Dora has it. `sync.py` calls all of this.
"""

import ast
import importlib
import os
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dora.conf import SlurmConfig
from dora.explore import Explorer, Herd, Launcher

from ..errors import UserError, did_you_mean, shortened
from ..store import GRIDS, XPS, is_signature, read_json, write_json
from .growing import Ground, Growing
from .sheep import Shepherd

# --- finding and loading ---


def find_explorer(args: Any, main: Any) -> Explorer:
    """The explorer of the grid that the command names; without a name, the list of grids, and the end.

    Raises:
        UserError: there is no such grid, or its file holds no explorer. A bug in the file keeps its traceback.
    """
    package = main.dora.grid_package or f"{main.package}.grids"
    folder = _package_folder(package)
    names = grid_names(folder)
    if args.grid is None:
        print("\n".join(_listed(folder, names)) or f"{_shown(folder)}/ holds no grid yet")
        sys.exit(0)
    file = folder.joinpath(*args.grid.split(".")).with_suffix(".py")
    if not all(part.isidentifier() for part in args.grid.split(".")) or not file.is_file():
        raise UserError(f'unknown grid "{args.grid}"{did_you_mean(args.grid, names)}',
                        f"{_shown(folder)}/ has: {shortened(names)}." if names else f"{_shown(folder)}/ holds no grid.")
    explorer = getattr(importlib.import_module(f"{package}.{args.grid}"), "explorer", None)
    if not isinstance(explorer, Explorer):
        raise UserError(f'{_shown(file)} has no "explorer".' if explorer is None
                        else f'{_shown(file)}: "explorer" is no dora.Explorer but {type(explorer).__name__}.',
                        "decorate a function of that name: @Explorer, or a class of grids/_explorers.py")
    return explorer


def _package_folder(package: str) -> Path:
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name and package.startswith(error.name):
            raise UserError(f"there is no package {package} for grids (dora.grid_package).") from None
        raise
    if module.__file__ is None:
        raise UserError(f"the folder {package}/ needs an __init__.py (an empty one).")
    return Path(module.__file__).parent


def grid_names(folder: Path) -> list[str]:
    """Every grid file below `folder`, as Dora names it: `sub.mysweep`; those that begin with `_` are no grids."""
    files = (path.relative_to(folder) for path in sorted(folder.rglob("*.py")) if path.is_file())  # not a pipe
    return [".".join(file.with_suffix("").parts) for file in files if not file.name.startswith("_")]


def _listed(folder: Path, names: Iterable[str]) -> list[str]:
    """Each grid with its question: the first line of its docstring, read without running it."""
    lines = []
    for name in names:
        try:
            text = ast.get_docstring(ast.parse(folder.joinpath(*name.split(".")).with_suffix(".py").read_text("utf-8")))
        except (OSError, ValueError, SyntaxError):
            text = None
        lines.append(f"{name:<20} {(text or '').partition(chr(10))[0]}".rstrip())
    return lines


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


# --- running ---


def explore(explorer: Explorer, main: Any, slurm: SlurmConfig, ground: Ground | None = None) -> Herd:
    """Run a grid file: every experiment it names, with the resources it asks for.

    Args:
        ground: for an explorer that grows.

    Raises:
        UserError: with the file and line of the call that asks for what cannot be.
    """
    herd = Herd()
    file = _file_of(explorer)
    with _located(file):
        launcher = Launcher(Shepherd(main, file), slurm, herd)  # type: ignore[arg-type]  # all that it needs of one
        explorer(launcher)
        if isinstance(explorer, Growing) and ground is not None:
            explorer.grow(launcher, ground)
    return herd


def _file_of(explorer: Explorer) -> str:
    code = getattr(explorer.explore, "__code__", None)
    return code.co_filename if code is not None else ""


@contextmanager
def _located(file: str) -> Iterator[None]:
    """Put `grids/mysweep.py:14: ` before a user's mistake that is made while the grid file runs."""
    try:
        yield
    except UserError as error:
        raise UserError(_place(error, file) + str(error)) from error
    except AttributeError as error:
        if not str(error).startswith("Invalid Slurm config "):  # Dora's words, in Launcher.slurm_
            raise
        key = str(error).removeprefix("Invalid Slurm config ")
        known = list(vars(SlurmConfig()))
        raise UserError(f'{_place(error, file)}unknown key "slurm.{key}"{did_you_mean(key, known)}',
                        f"slurm has: {shortened(known, 30)}.") from error


def _place(error: BaseException, file: str) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{_shown(Path(file))}:{lines[-1]}: " if lines else ""


# --- who wants what ---


class Wants:
    """The links of one grid under `outputs/grids/`, and a look at those of the others."""

    def __init__(self, dora_dir: Path, grid: str):
        self.dora_dir, self.grid = dora_dir, grid
        self._token = uuid.uuid4().hex

    @property
    def folder(self) -> Path:
        return self.dora_dir / GRIDS / self.grid

    def named(self) -> list[str]:
        """The signatures that the grid named when it was last brought in line."""
        try:
            return sorted(path.name for path in self.folder.iterdir() if is_signature(path.name))
        except OSError:
            return []

    def take_over(self) -> None:
        """From now on this command is in charge of the grid: the newest is."""
        write_json(self._charge, {"token": self._token, "host": socket.gethostname(), "pid": os.getpid(),
                                  "since": time.time()})

    def in_charge(self) -> bool:
        """Whether no other command has brought the grid in line since `take_over`."""
        charge = read_json(self._charge)
        return isinstance(charge, dict) and charge.get("token") == self._token

    @property
    def _charge(self) -> Path:
        """Beside the grid's folder, in which stock Dora takes every entry for an experiment."""
        return self.dora_dir / GRIDS / f".{self.grid}.json"

    def others(self) -> dict[str, set[str]]:
        """Signature -> the other grids that name it."""
        found: dict[str, set[str]] = {}
        for path in (self.dora_dir / GRIDS).glob("*/*"):
            if is_signature(path.name) and path.parent.name != self.grid:
                found.setdefault(path.name, set()).add(path.parent.name)
        return found

    def add(self, sig: str) -> None:
        """Relative, so that an outputs folder may be moved."""
        self.folder.mkdir(parents=True, exist_ok=True)
        link = self.folder / sig
        with suppress(FileExistsError):
            link.symlink_to(os.path.join("..", "..", XPS, sig))

    def drop(self, sig: str) -> None:
        (self.folder / sig).unlink(missing_ok=True)
