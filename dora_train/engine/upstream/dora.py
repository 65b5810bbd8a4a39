"""Where Dora's command and its API look up what they do, and what has no public name in it."""

import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dora.distrib
import dora.grid
import dora.info
import dora.launch
import dora.run
import dora.share
import dora.shep
from dora.conf import DoraConfig, SubmitRules, update_from_args
from dora.hydra import HydraMain as DoraHydraMain
from dora.main import DecoratedMain
from dora.xp import XP, _context


class HydraMain(DoraHydraMain):
    """Dora's HydraMain without its composing: subclasses say what an experiment is.

    dora-search 0.1.13 composes the configuration when the module is imported, so that one bad line
    breaks every verb, `info` included; and it calls `hydra.main` with `hydra.run.dir=`, which
    breaks on folders with a comma, a quote or a letter outside ASCII. Hence its `__init__` is
    passed over, and `DecoratedMain`'s called.
    """

    _slow = False  # no process pool: a signature takes a millisecond here

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


def _load_main(package: str, module: str) -> Any:
    import importlib

    return importlib.import_module(f"{package}.{module}").main


def config_folder(main: Callable, config_path: str) -> Path:
    """The folder of the configuration, as Hydra has it: relative to the file of `main`."""
    return (Path(main.__code__.co_filename).resolve().parent / config_path).resolve()


def entered(xp: XP):
    """A context in which `dora.get_xp()` gives this experiment."""
    return _context.enter_xp(xp)


def install(verbs: Any) -> None:
    """Put the functions of `verbs` (verbs.py) where Dora's command looks them up, and its API finds
    them.

    dora-search 0.1.13 parses the arguments and binds each action before it imports the project; the
    names that an action then looks up in its module are what can still be replaced.
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
    # `python -m hiplot dora.hiplot.load`: its `load` imports the project, and goes on
    if "dora.hiplot" in sys.modules:
        sys.modules["dora.hiplot"].eval = _value_at  # type: ignore[attr-defined]
        sys.modules["dora.hiplot"]._flatten = verbs.finite_metrics  # type: ignore[attr-defined]
    # the line "Injecting argv ... from sig" would come before ours
    for module in ("__main__", "dora.__main__"):
        command = sys.modules.get(module)
        if getattr(command, "simple_log", None) is not None:
            command.simple_log = lambda *args, **kwargs: None  # type: ignore[union-attr]


def install_api(verbs: Any) -> None:
    """Let Dora's functions and classes do ours for this project's experiments, and their own for
    those of others.

    A notebook may have imported them before this project: `from dora.grid import run_grid`.
    """
    take_over(dora.grid.run_grid, verbs.run_grid, verbs.is_ours)
    for name in ("get_distrib_spec", "set_distrib_env", "init", "is_master", "rank", "world_size"):
        take_over(getattr(dora.distrib, name), verbs.distrib(name), verbs.in_our_run)
    take_over(
        dora.shep.register_preemption_callaback, verbs.refuse_preemption_callback, verbs.in_our_run
    )
    _make_instead(dora.shep.Shepherd, verbs.shepherd)
    _make_instead(dora.shep.Sheep, verbs.sheep)


def take_over(stock: Any, ours: Callable, is_ours: Callable[..., bool]) -> None:
    """Let a function of Dora call `ours` where `is_ours` says so of its arguments.

    Its code is replaced, not its name: whoever has imported the function already has it as well.
    """
    original = getattr(stock, "__wrapped__", None)
    if original is None:
        original = types.FunctionType(
            stock.__code__, stock.__globals__, stock.__name__, stock.__defaults__
        )
        original.__annotations__ = stock.__annotations__
        stock.__wrapped__ = original  # whose signature `help` and inspect show
    stock.__code__, stock.__defaults__ = _forward.__code__, None
    stock.__kwdefaults__ = {"_ours": ours, "_original": original, "_is_ours": is_ours}


def _forward(
    *args: Any, _ours: Callable, _original: Callable, _is_ours: Callable, **kwargs: Any
) -> Any:
    return (_ours if _is_ours(*args, **kwargs) else _original)(*args, **kwargs)


def current_xp() -> XP | None:
    """The experiment in whose `main` this process is; Dora's `get_xp` raises an error if there is
    none."""
    return _context._xps[-1] if _context._xps else None


def _make_instead(stock: type, choose: Callable[..., "type | None"]) -> None:
    """Let a class of Dora make an instance of another one, a subclass, if `choose` names one for
    the arguments."""

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        chosen = choose(*args, **kwargs) if cls is stock else None
        return object.__new__(chosen or cls)

    stock.__new__ = staticmethod(new)  # type: ignore[assignment]


def _instead(verb: Callable) -> Callable:
    """A stand-in for `Shepherd`, the first thing that stock `info` and `launch` make: does the
    verb, and leaves."""

    def shepherd(main: Any, **_: Any) -> None:
        sys.exit(verb(main, command_line()))

    return shepherd


def _value_at(expression: str, names: Mapping[str, XP]) -> Any:
    """What `dora.hiplot` 0.1.13 reads with `eval("xp.cfg.KEY")`, which fails on `~KEY` and on odd
    keys."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.select(names["xp"].cfg, expression.removeprefix("xp.cfg."))
    except OmegaConfBaseException:
        return None


class _GitSave:
    """In the place of `dora.git_save` for `dora run --git_save`."""

    def get_new_clone(self, main: Any) -> None:
        from ..errors import UserError

        raise UserError(
            "dora run --git_save: dora run runs the files as they are.",
            "dora launch and dora grid run a snapshot of them, with uncommitted changes (code: snapshot)",
        )


def command_line() -> Any:
    """The arguments of the `dora` command of this process, as its own parser reads them."""
    from dora.__main__ import get_parser

    return get_parser().parse_args(sys.argv[1:])


def grid_command(argv: Sequence[str]) -> Any:
    """The arguments of `dora grid ARGV...`, as its own parser reads them; it ends the program where
    it cannot."""
    from dora.__main__ import get_parser

    return get_parser().parse_args(["grid", *argv])


def grid_action(main: Any, explorer: Any, command: Any) -> None:
    """What `dora grid` does with an explorer that is at hand; as dora-search 0.1.13's own
    `grid_action`."""
    slurm, rules, args = main.get_slurm_config(), SubmitRules(), dora.grid.RunGridArgs()
    args._from_commandline = True
    for part in (slurm, rules, args):
        update_from_args(part, command)
    dora.grid.run_grid(main, explorer, command.grid, rules, slurm, args)


def overrides_of(launcher: Any) -> list[str]:
    """What a launcher has bound so far (dora-search 0.1.13 has no public name for it)."""
    return list(launcher._argv)


def is_dora_command() -> bool:
    """Whether this process is `dora ...` or `python -m dora ...`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return Path(sys.argv[0]).name == "dora" or (spec is not None and spec.name == "dora.__main__")


def from_command_line(args: Any) -> bool:
    """Whether `dora grid` made these RunGridArgs, not a notebook (dora-search 0.1.13 has no public
    name for it)."""
    return bool(args._from_commandline)
