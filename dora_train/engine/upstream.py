"""Every private name of Dora, Hydra, submitit and Lightning that we touch, turned into public ones of ours.

No other file may touch one. Each use says which version needs it; `tests/test_upstream.py` fails the day upstream
changes what is assumed here. Imports of heavy packages stand inside the functions that need them.
"""

import contextlib
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

    dora-search 0.1.13 composes the configuration when the module is imported, so that one bad line breaks every
    verb, `info` included; and it calls `hydra.main` with `hydra.run.dir=`, which breaks on folders with a comma, a
    quote or a letter outside ASCII. Hence its `__init__` is passed over, and `DecoratedMain`'s called.
    """

    _slow = False  # no process pool: a signature takes a millisecond here

    def __init__(self, main: Callable, config_name: str, config_path: str, version_base: str | None, dora: DoraConfig):
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
    """Put the functions of `verbs` (verbs.py) where Dora's command looks them up, and its API finds them.

    dora-search 0.1.13 parses the arguments and binds each action before it imports the project; the names that an
    action then looks up in its module are what can still be replaced.
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
    if "dora.hiplot" in sys.modules:  # `python -m hiplot dora.hiplot.load`: its `load` imports the project, and goes on
        sys.modules["dora.hiplot"].eval = _value_at  # type: ignore[attr-defined]
        sys.modules["dora.hiplot"]._flatten = _finite  # type: ignore[attr-defined]
    for module in ("__main__", "dora.__main__"):  # the line "Injecting argv ... from sig" would come before ours
        command = sys.modules.get(module)
        if getattr(command, "simple_log", None) is not None:
            command.simple_log = lambda *args, **kwargs: None  # type: ignore[union-attr]


def install_api(verbs: Any) -> None:
    """Let Dora's functions and classes do ours for this project's experiments, and their own for those of others.

    A notebook may have imported them before this project: `from dora.grid import run_grid`.
    """
    take_over(dora.grid.run_grid, verbs.run_grid, verbs.is_ours)
    for name in ("get_distrib_spec", "set_distrib_env", "init", "is_master", "rank", "world_size"):
        take_over(getattr(dora.distrib, name), verbs.distrib(name), in_our_run)
    take_over(dora.shep.register_preemption_callaback, verbs.refuse_preemption_callback, in_our_run)
    _make_instead(dora.shep.Shepherd, verbs.shepherd)
    _make_instead(dora.shep.Sheep, verbs.sheep)


def take_over(stock: Any, ours: Callable, is_ours: Callable[..., bool]) -> None:
    """Let a function of Dora call `ours` where `is_ours` says so of its arguments.

    Its code is replaced, not its name: whoever has imported the function already has it as well.
    """
    original = getattr(stock, "__wrapped__", None)
    if original is None:
        original = types.FunctionType(stock.__code__, stock.__globals__, stock.__name__, stock.__defaults__)
        original.__annotations__ = stock.__annotations__
        stock.__wrapped__ = original  # whose signature `help` and inspect show
    stock.__code__, stock.__defaults__ = _forward.__code__, None
    stock.__kwdefaults__ = {"_ours": ours, "_original": original, "_is_ours": is_ours}


def _forward(*args: Any, _ours: Callable, _original: Callable, _is_ours: Callable, **kwargs: Any) -> Any:
    return (_ours if _is_ours(*args, **kwargs) else _original)(*args, **kwargs)


def in_our_run(*args: Any, **kwargs: Any) -> bool:
    """Whether this process is in `main` of an experiment of ours, whatever a function is called with."""
    from .xp import XP as Ours

    return bool(_context._xps) and isinstance(_context._xps[-1], Ours)


def _make_instead(stock: type, choose: Callable[..., "type | None"]) -> None:
    """Let a class of Dora make an instance of another one, a subclass, if `choose` names one for the arguments."""

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        chosen = choose(*args, **kwargs) if cls is stock else None
        return object.__new__(chosen or cls)

    stock.__new__ = staticmethod(new)  # type: ignore[assignment]


def _instead(verb: Callable) -> Callable:
    """A stand-in for `Shepherd`, the first thing that stock `info` and `launch` make: does the verb, and leaves."""

    def shepherd(main: Any, **_: Any) -> None:
        sys.exit(verb(main, command_line()))

    return shepherd


def _value_at(expression: str, names: Mapping[str, XP]) -> Any:
    """What `dora.hiplot` 0.1.13 reads with `eval("xp.cfg.KEY")`, which fails on `~KEY` and on odd keys."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.select(names["xp"].cfg, expression.removeprefix("xp.cfg."))
    except OmegaConfBaseException:
        return None


def _finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names; None for NaN and infinity, which `dora.hiplot` 0.1.13 sends as no browser can read them."""
    import math

    from .values import flatten

    return {key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in flatten(metrics)}


class _GitSave:
    """In the place of `dora.git_save` for `dora run --git_save`."""

    def get_new_clone(self, main: Any) -> None:
        from .errors import UserError

        raise UserError("dora run --git_save: dora run runs the files as they are.",
                        "dora launch and dora grid run a snapshot of them, with uncommitted changes (code: snapshot)")


def command_line() -> Any:
    """The arguments of the `dora` command of this process, as its own parser reads them."""
    from dora.__main__ import get_parser

    return get_parser().parse_args(sys.argv[1:])


def grid_command(argv: Sequence[str]) -> Any:
    """The arguments of `dora grid ARGV...`, as its own parser reads them; it ends the program where it cannot."""
    from dora.__main__ import get_parser

    return get_parser().parse_args(["grid", *argv])


def grid_action(main: Any, explorer: Any, command: Any) -> None:
    """What `dora grid` does with an explorer that is at hand; as dora-search 0.1.13's own `grid_action`."""
    slurm, rules, args = main.get_slurm_config(), SubmitRules(), dora.grid.RunGridArgs()
    args._from_commandline = True
    for part in (slurm, rules, args):
        update_from_args(part, command)
    dora.grid.run_grid(main, explorer, command.grid, rules, slurm, args)


def overrides_of(launcher: Any) -> list[str]:
    """What a launcher has bound so far (dora-search 0.1.13 has no public name for it)."""
    return list(launcher._argv)


@dataclass(frozen=True)
class ConfigFile:
    """A file of the configuration that Hydra takes in."""

    name: str  # below the configuration's folder, without .yaml: "experiment/paper/t2"
    package: str  # where its keys land: "data"; empty: beside those of config.yaml
    parent: str  # the file whose defaults name it


def files_of(config_name: str, overrides: Sequence[str]) -> list[ConfigFile]:
    """The files that a configuration is made of, within `initialize_config_dir`.

    hydra-core 1.3.8 keeps this list to itself when it composes.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    loader = GlobalHydra.instance().config_loader()
    found = loader.compute_defaults_list(config_name, list(overrides), RunMode.RUN).defaults
    return [ConfigFile(one.config_path, one.package or "", one.parent or "") for one in found if one.config_path]


def column_of(error: Exception) -> int | None:
    """Where in an override Hydra's parser stopped, from 0; None where it does not say.

    hydra-core 1.3.8's listener is told the column, and drops it: it is still in the frame that raised.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    column = frames[-1].f_locals.get("column") if frames else None
    return column if isinstance(column, int) else None


def is_dora_command() -> bool:
    """Whether this process is `dora ...` or `python -m dora ...`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return Path(sys.argv[0]).name == "dora" or (spec is not None and spec.name == "dora.__main__")


def hosts_of(node_list: str) -> list[str]:
    """SLURM's short form as names: `n[1-2]` -> n1, n2 (submitit 1.5.4 has no public name for it)."""
    from submitit.slurm.slurm import _parse_node_list

    return _parse_node_list(node_list)


def batch_file(folder: Path, command: str, parameters: Mapping[str, Any], array: int) -> Path:
    """Write the script that sbatch takes, for a line of shell, as submitit writes it.

    submitit 1.5.4 submits pickles only: one would be named after the job's id once that is known,
    and a kill in between loses the job. It also waits for sbatch without an end. `map_count`, of
    `parameters`, makes an array (its own array executor loses `python=`).

    Args:
        array: the number of tasks of an array; 0: a single job.
    """
    import uuid

    from submitit import SlurmExecutor

    executor = SlurmExecutor(folder=folder)
    executor.update_parameters(**parameters)
    if array:
        executor.parameters["map_count"] = array
    name = uuid.uuid4().hex
    path = folder / f".submission_file_{name}.sh"
    path.write_text(executor._make_submission_file_text(command, name))
    return path


def from_command_line(args: Any) -> bool:
    """Whether `dora grid` made these RunGridArgs, not a notebook (dora-search 0.1.13 has no public name for it)."""
    return bool(args._from_commandline)


def without_signal_handlers(trainer: Any) -> None:
    """Keep Lightning 2.6.6 from installing its handlers: they broadcast inside the handler, and hang two ranks."""
    trainer._signal_connector.register_signal_handlers = lambda: None


STEP_HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward",
              "on_after_backward", "on_before_optimizer_step")


def without_idle_work(trainer: Any, module: Any) -> None:
    """Leave out what Lightning 2.6.6 does at each step for nobody.

    It enters a profiler's context for each callback at each of its hooks, also where the hook is the empty one of
    Callback; it passes over one that is None. And it inspects the signature of `training_step` anew.
    """
    from pytorch_lightning import Callback, LightningModule
    from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature

    for owner, base in [(module, LightningModule), *((callback, Callback) for callback in trainer.callbacks)]:
        for hook in STEP_HOOKS:
            if hook not in vars(owner) and getattr(type(owner), hook) is getattr(base, hook):
                setattr(owner, hook, None)
    if is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2):
        trainer.fit_loop.epoch_loop._build_kwargs = lambda kwargs, batch, index: {"batch": batch, "batch_idx": index}


def resumed_by_epochs(trainer: Any) -> None:
    """Resume where `max_steps` is set as where it is not.

    Lightning 2.6.6 then takes a checkpoint of an epoch's end for one within it: it ends the epoch a second time, with
    no batch in it (`_FitLoop.restarting`).
    """
    trainer.fit_loop._iteration_based_training = lambda: False


@contextlib.contextmanager
def as_before_validation(trainer: Any) -> Iterator[None]:
    """Let a checkpoint that is saved within a validation be one from which all of it is done again.

    Lightning 2.6.6 goes on in the middle of a validation whose counters say so, at its next batch; with none done, that
    is the first.
    """
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    before = progress.state_dict()
    progress.reset()
    progress.total.ready = progress.total.started = 1
    yield
    progress.load_state_dict(before)


def trains_no_further(trainer: Any) -> bool:
    """Whether a Lightning 2.6.6 trainer has just done its last step: of max_steps, or told to stop."""
    if trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps:
        return True
    return trainer.should_stop and trainer.fit_loop._can_stop_early  # by min_steps and min_epochs


def validates_next(trainer: Any) -> bool:
    """Whether a Lightning 2.6.6 trainer validates after the batch that it has just done."""
    return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)


def position(trainer: Any) -> tuple[int, int]:
    """Where the training of a Lightning 2.6.6 trainer is: (epochs finished, batches of this epoch finished)."""
    loop = trainer.fit_loop
    return loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.ready

