"""Grid files: listing them, loading one, running it, and noting which grid wants an experiment.

A grid that wants an experiment has a link `outputs/grids/NAME/SIG -> ../../xps/SIG`, as in Dora.
`sync.py` and `inventory.py` call this.
"""

import argparse
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
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from dora.conf import SlurmConfig
from dora.explore import Explorer, Herd, Launcher

from ..access import listed
from ..errors import UserError, did_you_mean, shortened, writable
from ..experiment.claims import Holder
from ..experiment.folder import GRIDS, XPS, is_signature
from ..experiment.records import from_stored
from ..experiments import Experiments
from ..files import NO_LINKS, read_json, read_json_as, write_json
from ..jobs.resources import KEYS
from .open_ended import GridContext, Growing
from .shepherd import Shepherd

# --- finding and loading ---


def find_explorer(args: argparse.Namespace, main: Experiments) -> Explorer:
    """The explorer of the grid that a command names. A bug in its file keeps its traceback.

    Raises:
        UserError: there is no such grid, or its file holds no explorer.
        SystemExit: the command names no grid. The list of all grids was printed.
    """
    package = main.dora.grid_package or f"{main.package}.grids"
    folder = _package_folder(package)
    files = grid_files(folder)
    named = {name: file for name, file in files.items() if not file.name.startswith("_")}
    if args.grid is None:
        print("\n".join(_listed(named)) or f"{_shown(folder)}/ holds no grid yet")
        sys.exit(0)
    if args.grid not in files:
        # The near names are looked for as if the user gave a path, e.g. grids/mysweep.py.
        name = args.grid.removesuffix(".py").replace("/", ".").removeprefix(f"{folder.name}.")
        has = f"has: {shortened(named)}." if named else "holds no grid."
        raise UserError(
            f'unknown grid "{args.grid}"{did_you_mean(name, named)}', f"{_shown(folder)}/ {has}"
        )
    file = files[args.grid]
    explorer = getattr(_loaded(package, folder, file), "explorer", None)
    if isinstance(explorer, Explorer):
        return explorer
    mistake = f'{_shown(file)} has no "explorer".'
    if explorer is not None:
        kind = type(explorer).__name__
        mistake = f'{_shown(file)}: "explorer" is no dora.Explorer but {kind}.'
    raise UserError(
        mistake, "decorate a function of that name: @Explorer, or a class of grids/_explorers.py"
    )


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
    """Every Python file below `folder`, by its name in Dora's form: `sub.mysweep`."""
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        is_hidden = any(part.startswith(".") for part in parts)  # copies that editors make
        if path.is_file() and not is_hidden:
            files.setdefault(".".join(parts), path)
    return files


def _loaded(package: str, folder: Path, file: Path) -> ModuleType:
    """The module of a grid file, whose name may be no Python name: `my-sweep.py`, `lr_0.1.py`."""
    *parents, name = file.relative_to(folder).with_suffix("").parts
    if "." not in name:
        return importlib.import_module(".".join([package, *parents, name]))
    # Python would take the part before a dot for a package. So the module gets a name without a
    # dot, in the same package, in which its relative imports work.
    module = ".".join([package, *parents, name.replace(".", "-")])
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


def _listed(files: Mapping[str, Path]) -> list[str]:
    """A line for each grid: its name, and the first line of its docstring."""
    lines = []
    for name, file in files.items():
        # The file is parsed, not run. A mistake in one grid must not hide the others.
        try:
            text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        except (OSError, ValueError, SyntaxError):
            text = ""
        question, _, _ = text.partition("\n")
        lines.append(f"{name:<20} {question}".rstrip())
    return lines


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


# --- running ---


def explore(
    explorer: Explorer, main: Experiments, slurm: SlurmConfig, context: GridContext | None = None
) -> Herd:
    """Run a grid file.

    Args:
        context: for an explorer that adds experiments.

    Returns:
        Every experiment that the file names, with the resources that it asks for.

    Raises:
        UserError: a call asks for something that is not possible. The message starts with its file
            and line.
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
    """The file of the function that an explorer decorates. Empty: it is no plain function."""
    code = getattr(explorer.explore, "__code__", None)
    return code.co_filename if code is not None else ""


@contextmanager
def _located(file: str) -> Iterator[None]:
    """Put `grids/mysweep.py:14: ` before the message of a user's mistake in the grid file."""
    try:
        yield
    except UserError as error:
        raise UserError(_place(error, file) + str(error)) from error
    except (AttributeError, AssertionError) as error:
        message = _launcher_message(str(error))
        if not message:
            raise
        raise UserError(_place(error, file) + message[0], *message[1:]) from error


def _launcher_message(text: str) -> list[str]:
    """Our message for a user's mistake that Dora's Launcher found. Empty: it is another error.

    Args:
        text: the error's message. dora-search 0.1.13 raises no class of its own, so that only these
            words tell a user's mistake from a bug.
    """
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
    """`grids/mysweep.py:14: `, the last line of this file that led to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{_shown(Path(file))}:{lines[-1]}: " if lines else ""


# --- who wants what ---


class Wants:
    """The links of one grid below `outputs/grids/`: the experiments that it wants."""

    def __init__(self, dora_dir: Path, grid: str):
        self.dora_dir, self.grid = dora_dir, grid
        self._token = uuid.uuid4().hex

    @property
    def folder(self) -> Path:
        return self.dora_dir / GRIDS / self.grid

    def named(self) -> list[str]:
        """The signatures that the grid named when a command last brought it in line."""
        return sorted(name for name in listed(self.folder) if is_signature(name))

    def take_over(self, watches: bool = False) -> None:
        """Put this command in charge of the grid. Older commands only watch from now on.

        Args:
            watches: it stays open until the grid has ended.
        """
        content = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.time(),
            "watches": watches,
            "process": asdict(Holder.here(0)),
        }
        with writable(self._charge.parent):
            write_json(self._charge, content)

    def in_charge(self) -> bool:
        """Whether no other command has taken over the grid since this one did."""
        charge = read_json(self._charge)
        return isinstance(charge, dict) and charge.get("token") == self._token

    def is_watched(self) -> bool:
        """Whether the command in charge is open, and watches the grid."""
        charge = read_json_as(self._charge, dict) or {}
        process = from_stored(Holder, charge.get("process"))
        return bool(charge.get("watches")) and process is not None and process.in_reach()

    @property
    def _charge(self) -> Path:
        """The file that says which command is in charge."""
        # It lies beside the grid's folder, because stock Dora takes every entry in that folder for
        # an experiment.
        return self.dora_dir / GRIDS / f".{self.grid}.json"

    def others(self) -> dict[str, set[str]]:
        """The other grids that name an experiment, by its signature."""
        found: dict[str, set[str]] = {}
        for path in (self.dora_dir / GRIDS).glob("*/*"):
            if is_signature(path.name) and path.parent.name != self.grid:
                found.setdefault(path.name, set()).add(path.parent.name)
        return found

    def add(self, sig: str) -> None:
        """Note that the grid wants an experiment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        link = self.folder / sig
        # The link is relative, so that the outputs folder can be moved. On a file system without
        # links it is an empty file.
        try:
            link.symlink_to(os.path.join("..", "..", XPS, sig))
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            link.touch()

    def drop(self, sig: str) -> None:
        """Note that the grid no longer wants an experiment."""
        (self.folder / sig).unlink(missing_ok=True)
