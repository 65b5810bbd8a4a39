"""Private parts of Dora: the names that its command and its API look up when they are called."""

import argparse
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import dora.distrib
import dora.grid
import dora.info
import dora.launch
import dora.run
import dora.share
import dora.shep
from dora.conf import DoraConfig, SubmitRules, update_from_args
from dora.explore import Explorer, Launcher
from dora.hydra import HydraMain as DoraHydraMain
from dora.main import DecoratedMain
from dora.xp import XP, _context


class HydraMain(DoraHydraMain):
    """Dora's HydraMain without its composing. Subclasses say what an experiment is.

    dora-search 0.1.13 composes the configuration when the module is imported, so that one bad line
    breaks every verb, `info` included. It also calls `hydra.main` with `hydra.run.dir=`, which
    breaks on folders with a comma, a quote or a letter outside ASCII. Hence the `__init__` of
    `DecoratedMain` is called, and not that of `HydraMain`.
    """

    _slow = False  # Dora needs no process pool: a signature takes a millisecond here

    def __init__(
        self,
        main: Callable,
        config_name: str,
        config_path: str,
        version_base: str | None,
        dora: DoraConfig,
    ):
        self.config_name, self.config_path = config_name, config_path
        self.hydra_kwargs = {"version_base": version_base}
        self.full_config_path = config_folder(main, config_path)
        DecoratedMain.__init__(self, main, dora)

    def __reduce__(self):
        return _load_main, (self.package, self.main_module)


def _load_main(package: str, module: str) -> HydraMain:
    import importlib

    return importlib.import_module(f"{package}.{module}").main


def config_folder(main: Callable, config_path: str) -> Path:
    """The folder of the configuration. As in Hydra, `config_path` is relative to the file of
    `main`."""
    return (Path(main.__code__.co_filename).resolve().parent / config_path).resolve()


def entered(xp: XP) -> AbstractContextManager[None]:
    """A context in which `dora.get_xp()` gives this experiment."""
    return _context.enter_xp(xp)


def install(verbs: types.ModuleType) -> None:
    """Put the functions of `verbs` (verbs.py) where Dora's command looks them up, and its API finds
    them.

    dora-search 0.1.13 parses the arguments and binds each action before it imports the project. An
    action then looks up names in its module: those can still be replaced.
    """
    dora.run.check_job_and_clear = verbs.prepare_run  # type: ignore[assignment]
    dora.run.start_ddp_workers = verbs.run_ranks
    dora.run.git_save = _GitSave()  # type: ignore[assignment]
    dora.grid._get_explore = verbs.find_explorer
    dora.info.Shepherd = _instead(verbs.info)  # type: ignore[assignment, misc]
    dora.launch.Shepherd = _instead(verbs.launch)  # type: ignore[assignment, misc]
    dora.share.dump = verbs.export(dora.share.dump)  # type: ignore[assignment]
    dora.share.load = verbs.import_(dora.share.load)  # type: ignore[assignment]
    install_api(verbs)
    # `python -m hiplot dora.hiplot.load`: `load` imports the project, and then uses these two.
    if "dora.hiplot" in sys.modules:
        sys.modules["dora.hiplot"].eval = _value_at  # type: ignore[attr-defined]
        sys.modules["dora.hiplot"]._flatten = verbs.finite_metrics  # type: ignore[attr-defined]
    # Else Dora prints "Injecting argv ... from sig" before our first line.
    for module in ("__main__", "dora.__main__"):
        command = sys.modules.get(module)
        if getattr(command, "simple_log", None) is not None:
            command.simple_log = lambda *args, **kwargs: None  # type: ignore[union-attr]


def install_api(verbs: types.ModuleType) -> None:
    """Let Dora's functions and classes call ours for experiments of this project.

    For those of other projects they do what they always did. A notebook may have imported them
    before this project: `from dora.grid import run_grid`.
    """
    take_over(dora.grid.run_grid, verbs.run_grid, verbs.is_ours)
    for name in ("get_distrib_spec", "set_distrib_env", "init", "is_master", "rank", "world_size"):
        take_over(getattr(dora.distrib, name), verbs.distrib(name), verbs.in_our_run)
    take_over(
        dora.shep.register_preemption_callaback, verbs.refuse_preemption_callback, verbs.in_our_run
    )
    _make_instead(dora.shep.Shepherd, verbs.shepherd)
    _make_instead(dora.shep.Sheep, verbs.sheep)


def take_over(stock: Callable, ours: Callable, is_ours: Callable[..., bool]) -> None:
    """Let a function of Dora call `ours` if `is_ours` is true of its arguments.

    Its code is replaced, not its name: a module that has imported the function before gets it, too.
    """
    assert isinstance(stock, types.FunctionType)
    original = stock.__dict__.get("__wrapped__")
    if original is None:
        original = types.FunctionType(
            stock.__code__, stock.__globals__, stock.__name__, stock.__defaults__
        )
        original.__annotations__ = stock.__annotations__
        stock.__dict__["__wrapped__"] = original  # `help` and inspect show its signature
    stock.__code__, stock.__defaults__ = _forward.__code__, None
    stock.__kwdefaults__ = {"_ours": ours, "_original": original, "_is_ours": is_ours}


# The code of this function runs with the globals of Dora's module, hence all comes by keywords.
def _forward(
    *args: object, _ours: Callable, _original: Callable, _is_ours: Callable, **kwargs: object
) -> object:
    if _is_ours(*args, **kwargs):
        return _ours(*args, **kwargs)
    return _original(*args, **kwargs)


def current_xp() -> XP | None:
    """The experiment in whose `main` this process is. Dora's `get_xp` raises an error if there is
    none."""
    return _context._xps[-1] if _context._xps else None


def _make_instead(stock: type, choose: Callable[..., "type | None"]) -> None:
    """Let a class of Dora make an instance of the subclass that `choose` names for the arguments.

    None: an instance of its own.
    """

    def new(cls: type, *args: object, **kwargs: object) -> object:
        if cls is not stock:  # a subclass, also ours
            return object.__new__(cls)
        return object.__new__(choose(*args, **kwargs) or cls)

    stock.__new__ = staticmethod(new)  # type: ignore[assignment]


def _instead(verb: Callable) -> Callable:
    """A stand-in for `Shepherd` that does the verb, and ends the process.

    A shepherd is the first thing that stock `info` and `launch` make.
    """

    def shepherd(main: DecoratedMain, **_: object) -> None:
        sys.exit(verb(main, command_line()))

    return shepherd


def _value_at(expression: str, names: Mapping[str, XP]) -> object:
    """The value of `xp.cfg.KEY`.

    `dora.hiplot` 0.1.13 reads it with `eval`, which fails on `~KEY` and on odd keys.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.select(names["xp"].cfg, expression.removeprefix("xp.cfg."))
    except OmegaConfBaseException:
        return None


class _GitSave:
    """Takes the place of `dora.git_save`, to refuse `dora run --git_save`."""

    def get_new_clone(self, main: DecoratedMain) -> None:
        from ..errors import UserError

        raise UserError(
            "dora run --git_save: dora run runs the files as they are.",
            "dora launch and dora grid run a snapshot of them, with uncommitted changes (code: snapshot)",
        )


def own_command() -> argparse.Namespace | None:
    """The arguments of this process's `dora ...` or `python -m dora ...`. None if it is another
    program."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    is_module = spec is not None and spec.name == "dora.__main__"
    if is_module or Path(sys.argv[0]).name == "dora":
        return command_line()
    return None


def command_line() -> argparse.Namespace:
    """The arguments of the `dora` command of this process, as its own parser reads them."""
    from dora.__main__ import get_parser

    return get_parser().parse_args(sys.argv[1:])


def grid_command(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of `dora grid ARGV...`, as its own parser reads them.

    The parser ends the program if it cannot read them.
    """
    from dora.__main__ import get_parser

    return get_parser().parse_args(["grid", *argv])


def grid_action(main: DecoratedMain, explorer: Explorer, command: argparse.Namespace) -> None:
    """Do what `dora grid` does, with an explorer that is given.

    The steps are those of `grid_action` in dora-search 0.1.13, which finds the explorer by itself.
    """
    slurm, rules, args = main.get_slurm_config(), SubmitRules(), dora.grid.RunGridArgs()
    args._from_commandline = True
    for part in (slurm, rules, args):
        update_from_args(part, command)
    dora.grid.run_grid(main, explorer, command.grid, rules, slurm, args)


def overrides_of(launcher: Launcher) -> list[str]:
    """The overrides that a launcher has bound so far (dora-search 0.1.13 has no public name)."""
    return list(launcher._argv)


def from_command_line(args: dora.grid.RunGridArgs) -> bool:
    """Whether `dora grid` made these arguments, not a notebook (dora-search 0.1.13 has no public
    name)."""
    return args._from_commandline
