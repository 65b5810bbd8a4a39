"""Grid files: which there are, loading one, running it, and which grid wants which experiment.

What a grid wants is a link `outputs/grids/NAME/SIG -> ../../xps/SIG`, as Dora has it. `sync.py`
calls all of this.
"""

import ast
import importlib
import importlib.util
import os
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from dora.conf import SlurmConfig
from dora.explore import Explorer, Herd, Launcher

from ..access import listed
from ..errors import UserError, did_you_mean, shortened, writable
from ..experiment.folder import GRIDS, XPS, is_signature
from ..experiments import Experiments
from ..files import NO_LINKS, read_json, write_json
from ..jobs.resources import KEYS
from .open_ended import GridContext, Growing
from .shepherd import Shepherd

# --- finding and loading ---


def find_explorer(args: Any, main: Experiments) -> Explorer:
    """The explorer of the grid that the command names; without a name, the list of grids, and the
    end.

    Raises:
        UserError: there is no such grid, or its file holds no explorer. A bug in the file keeps its
            traceback.
    """
    package = main.dora.grid_package or f"{main.package}.grids"
    folder = _package_folder(package)
    files = grid_files(folder)
    named = {name: file for name, file in files.items() if not file.name.startswith("_")}
    if args.grid is None:
        print("\n".join(_listed(named)) or f"{_shown(folder)}/ holds no grid yet")
        sys.exit(0)
    if args.grid not in files:
        # as a path
        name = args.grid.removesuffix(".py").replace("/", ".").removeprefix(f"{folder.name}.")
        has = f"has: {shortened(named)}." if named else "holds no grid."
        raise UserError(
            f'unknown grid "{args.grid}"{did_you_mean(name, named)}', f"{_shown(folder)}/ {has}"
        )
    file = files[args.grid]
    explorer = getattr(_loaded(package, folder, file), "explorer", None)
    if not isinstance(explorer, Explorer):
        raise UserError(
            f'{_shown(file)} has no "explorer".'
            if explorer is None
            else f'{_shown(file)}: "explorer" is no dora.Explorer but {type(explorer).__name__}.',
            "decorate a function of that name: @Explorer, or a class of grids/_explorers.py",
        )
    return explorer


def _package_folder(package: str) -> Path:
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name and package.startswith(error.name):
            raise UserError(
                f"there is no package {package} for grids (dora.grid_package)."
            ) from None
        raise
    if module.__file__ is None:
        raise UserError(f"the folder {package}/ needs an __init__.py (an empty one).")
    return Path(module.__file__).parent


def grid_files(folder: Path) -> dict[str, Path]:
    """Every file below `folder`, by its name as Dora writes it: `sub.mysweep`."""
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        is_hidden = any(part.startswith(".") for part in parts)  # an editor's copies
        if path.is_file() and not is_hidden:
            files.setdefault(".".join(parts), path)
    return files


def _loaded(package: str, folder: Path, file: Path) -> ModuleType:
    """The module of a grid file; `my-sweep.py` and `lr_0.1.py` are files like any other."""
    *parents, name = file.relative_to(folder).with_suffix("").parts
    if "." not in name:
        return importlib.import_module(".".join([package, *parents, name]))
    # Python takes a dot for a sub-package: such a module gets a name without it, in the same
    # package.
    module = ".".join([package, *parents, name.replace(".", "-")])
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


def _listed(files: Mapping[str, Path]) -> list[str]:
    """Each grid with its question: the first line of its docstring, read without running it."""
    lines = []
    for name, file in files.items():
        try:
            text = ast.get_docstring(ast.parse(file.read_text("utf-8")))
        except (OSError, ValueError, SyntaxError):
            text = None
        lines.append(f"{name:<20} {(text or '').partition(chr(10))[0]}".rstrip())
    return lines


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


# --- running ---


def explore(
    explorer: Explorer, main: Experiments, slurm: SlurmConfig, context: GridContext | None = None
) -> Herd:
    """Run a grid file: every experiment it names, with the resources it asks for.

    Args:
        context: for an explorer that grows.

    Raises:
        UserError: with the file and line of the call that asks for what cannot be.
    """
    herd = Herd()
    file = _file_of(explorer)
    with _located(file):
        launcher = Launcher(Shepherd(main, grid_file=file), slurm, herd)
        explorer(launcher)
        if isinstance(explorer, Growing) and context is not None:
            explorer.grow(launcher, context)
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
    except (AttributeError, AssertionError) as error:
        mistake = _launchers_mistake(str(error))
        if not mistake:
            raise
        raise UserError(_place(error, file) + mistake[0], *mistake[1:]) from error


def _launchers_mistake(text: str) -> list[str]:
    """What to say about an error of Dora's Launcher, by its words in dora-search 0.1.13; empty: it
    is none."""
    if text.startswith("Invalid Slurm config "):
        key = text.removeprefix("Invalid Slurm config ")
        return [
            f'unknown key "slurm.{key}"{did_you_mean(key, KEYS)}',
            f"slurm has: {shortened(KEYS, 30)}.",
        ]
    if text.startswith("cannot change slurm config inside job array"):
        return [
            "all experiments of a job array get the same resources from launcher.slurm_().",
            'set them before launcher.job_array(), or as an override: launcher({"slurm.time": 60})',
        ]
    if text.startswith("Cannot stack job arrays"):
        return ["launcher.job_array() stands within another one: an array cannot hold an array."]
    return []


def _place(error: BaseException, file: str) -> str:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
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
        return sorted(name for name in listed(self.folder) if is_signature(name))

    def take_over(self) -> None:
        """From now on this command is in charge of the grid: the newest is."""
        with writable(self._charge.parent):
            write_json(
                self._charge,
                {
                    "token": self._token,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "since": time.time(),
                },
            )

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
        """A relative link, so that an outputs folder may be moved; an empty file where there are no
        links."""
        self.folder.mkdir(parents=True, exist_ok=True)
        link = self.folder / sig
        try:
            link.symlink_to(os.path.join("..", "..", XPS, sig))
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            link.touch()

    def drop(self, sig: str) -> None:
        (self.folder / sig).unlink(missing_ok=True)
