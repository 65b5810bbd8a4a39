"""A grid from one line of shell, or from a JSON file.

`python -m dora_train.sweep KEY=A,B ... --name NAME` writes grids/NAME.py, a file to read, edit and
commit. Then it does what `dora grid NAME` does. The grammar is Hydra's own. An experiment that has
been run already is not run again.
"""

import argparse
import math
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from .engine import output
from .engine.config.gridfile import Axis, Design, grid_text, is_untouched
from .engine.errors import UserError, report_user_errors, shortened
from .engine.experiment.find import ROOT
from .engine.files import written_aside
from .engine.grid.json_file import read_json
from .engine.words import shown_path

if TYPE_CHECKING:
    from .engine.dora.main import TrainMain

EXAMPLES = """examples:
  python -m dora_train.sweep 'optim.lr=0.1,0.01,1e-3' 'model=resnet18,mobilenet_v2' 'seed=range(3)' --name lr_by_model
  python -m dora_train.sweep 'schedule.name=choice(cosine,onecycle)' trainer.max_epochs=5 --name schedules --dry_run
  python -m dora_train.sweep 'data=glob(*mnist)' --name both_mnists --no_monitoring
  python -m dora_train.sweep --json cases.json 'seed=range(5)' --name cases

A FILE holds a list of dicts, an experiment each: [{"optim.lr": 0.1, "model": "small"}, ...]
or a dict of lists, every combination: {"optim.lr": [0.1, 0.01], "seed": [0, 1, 2]}

Any other flag is one of dora grid, with = before its value: --retry, --partition=gpu"""


def main(argv: Sequence[str] | None = None) -> None:
    """Write the grid file of a command line, and do what `dora grid` does with it.

    Raises:
        UserError: the line or the file cannot be read, asks for something that does not exist, or
            would replace a grid file that a person wrote.
        SystemExit: with the exit code of `dora grid`, if it is not 0.
    """
    args, flags = arguments(argv)
    path = grid_path(args.name)
    from .engine.upstream.dora import grid_action, grid_command

    # Imported only here, because it imports Dora, and Dora imports torch: --help must not wait for
    # that.
    from .train import main as train

    if args.dry_run:
        flags.append("--dry_run")
    command = grid_command([args.name, *flags])
    design = read(args.overrides, args.json, train)
    check(design, train)
    text = grid_text(design)
    refuse_others(path, text)
    if args.dry_run:
        print(f"{shown_path(path)} would hold:\n\n{text}")
    elif not path.exists() or path.read_text("utf-8") != text:
        with written_aside(path) as aside:
            aside.write_text(text, "utf-8")
        print(f"wrote {shown_path(path)}: {design.size}", flush=True)
    grid_action(train, loaded(text, path).explorer, command)


def arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of a sweep, and the flags that are passed on to `dora grid`."""
    parser = argparse.ArgumentParser(
        prog="python -m dora_train.sweep",
        allow_abbrev=False,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write grids/NAME.py from one line of Hydra's sweep grammar, and do what dora grid NAME does.",
    )
    parser.add_argument(
        "overrides",
        metavar="KEY=VALUES",
        nargs="*",
        help="a,b,c  choice(a,b)  range(3)  glob(*) over the options of a group; one value is shared",
    )
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="a list of dicts, or a dict of lists: a product"
    )
    parser.add_argument("--name", required=True, help="of the grid: grids/NAME.py")
    parser.add_argument(
        "--dry_run", action="store_true", help="show the file and the plan, and change nothing"
    )
    args, flags = parser.parse_known_intermixed_args(argv)
    if not args.overrides and args.json is None:
        parser.error("nothing to vary: give KEY=VALUES, or --json FILE")
    return args, flags


def grid_path(name: str) -> Path:
    """The grid file of this name.

    Raises:
        UserError: no grid file can have this name.
    """
    if not (name.isascii() and name.isidentifier()) or name.startswith("_"):
        raise UserError(
            f'--name "{name}": a grid is named by a word of letters, digits and _, e.g. lr_by_model.'
        )
    return ROOT / "grids" / f"{name}.py"


def refuse_others(path: Path, text: str) -> None:
    """Refuse to replace a grid file that a person wrote or edited.

    Raises:
        UserError: the file is such a file, and holds another text.
    """
    before = path.read_text("utf-8", "replace") if path.exists() else text
    if before != text and not is_untouched(before):
        raise UserError(
            f"{shown_path(path)} is there already, was written or edited by hand, and holds another grid.",
            "take another --name, or remove it; to run it as it is: dora grid " + path.stem,
        )


def check(design: Design, train: "TrainMain") -> None:
    """Compose every experiment, before anything is written.

    Raises:
        UserError: one asks for something that does not exist. For a list, the message names its
            entry.
    """
    points_per_case = math.prod(len(axis.values) for axis in design.axes)
    for number, point in enumerate(design.points()):
        try:
            train.check(train.get_xp(train.value_to_argv(point)))
        except UserError as error:
            if not design.cases:
                raise
            entry = number // points_per_case + 1
            raise UserError(f"entry {entry} of the list: {error}") from error


def loaded(text: str, path: Path) -> types.ModuleType:
    """The grid file as a module. It is made from the text, because --dry_run writes no file."""
    module = types.ModuleType(f"grids.{path.stem}")
    module.__package__ = "grids"
    exec(compile(text, str(path), "exec"), vars(module))
    return module


# --- what is varied ---


def read(overrides: Sequence[str], file: Path | None, train: "TrainMain") -> Design:
    """The grid that the command line and the JSON file describe together.

    Args:
        overrides: words of the command line. A key that stands there twice, or in the file as well,
            has its last value.

    Raises:
        UserError: one of them cannot be read.
    """
    shared: dict[str, Any] = {}
    removed: list[str] = []
    axes: list[Axis] = []
    cases: list[dict[str, Any]] = []
    if file is not None:
        cases, axes, shared = read_json(file)
    for text in overrides:
        override = parsed(text)
        key = override.get_key_element()
        axes = [axis for axis in axes if axis.key != key]
        shared.pop(key, None)
        for case in cases:  # the command line comes last
            case.pop(key, None)
        if override.is_sweep_override():
            axes.append(Axis(key, values(override, text, train)))
        elif override.is_delete():
            removed.append(text)
        else:
            shared[key] = override.value()
    return Design(shared, removed, cases, axes)


def parsed(text: str) -> Override:
    """One word of the command line, read with Hydra's grammar.

    Raises:
        UserError: it cannot be read. The message shows the place and the reason.
    """
    from .engine.upstream.hydra import column_of

    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        column = column_of(error)
        at, mark = "", ""
        if column is not None:
            at, mark = f" at letter {column + 1}", " " * column + "^"
        raise UserError(
            f"cannot read{at}: {str(error).splitlines()[0]}",
            f"  {text}",
            f"  {mark}",
            "write KEY=A,B,C, and quote odd text: 'tag=\"a b\",c'",
        ) from error


def values(override: Override, text: str, train: "TrainMain") -> Sequence[Any]:
    """All values that a sweep names, with their types.

    Raises:
        UserError: it is an interval, which has no list of values, or it names none.
    """
    sweep = override.value()
    if override.is_interval_sweep():
        raise UserError(
            f'"{text}": an interval has no list of values.',
            "name them (0.1,0.03,0.01), or search within it: Search in grids/search.py",
        )
    if isinstance(sweep, Glob):
        found: Sequence[Any] = _options(override, text, sweep, train)
    elif isinstance(sweep, RangeSweep) and isinstance(sweep.range(), range) and not sweep.shuffle:
        found = sweep.range()  # type: ignore[assignment]
    else:
        found = [plain(value) for value in override.sweep_iterator()]
    if not found:
        raise UserError(f'"{text}" names no value.')
    return found


def plain(value: object) -> Any:
    """A value of Hydra's parser as plain Python. The parser keeps the quotes of text."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def _options(override: Override, text: str, glob: Glob, train: "TrainMain") -> list[str]:
    """The options of a group that a glob fits.

    Raises:
        UserError: there is no such group, or no option fits.
    """
    group, groups = override.key_or_group, train.composer.groups
    if group not in groups:
        raise UserError(
            f'"{text}": glob chooses among the options of a group, and {group} is none.',
            f"groups: {', '.join(groups)}.",
        )
    options = train.composer.options(group)
    found = glob.filter(options)
    if not found:
        raise UserError(f'"{text}" fits none of {group}: {shortened(options)}.')
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the package grids/ is there
    output.prepare(never_fails=False)
    report_user_errors()
    main()
