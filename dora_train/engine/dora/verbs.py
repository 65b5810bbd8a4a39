"""What each of Dora's verbs does here. `install` puts these where Dora's command looks them up.

A verb imports what it needs when it is called: `dora info` must not wait for Lightning.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..config.values import flatten
from ..errors import UserError
from ..experiment.share import Imported, exported
from ..upstream.dora import current_xp
from ..watch import json_lines

if TYPE_CHECKING:
    from dora import Explorer

    from ..grid.sheep import Sheep
    from .main import TrainMain


def prepare_run(argv: Sequence[str], main: "TrainMain", clear: bool = False) -> None:
    """Refuse flags of `dora run` that Dora would ignore. The run itself checks the rest.

    Raises:
        UserError: --ddp_workers without -d, or less than one.
    """
    command = main.command
    if command is None or command.ddp_workers is None:
        return
    if command.ddp_workers and not command.ddp:
        raise UserError("--ddp_workers goes with -d: dora run -d --ddp_workers 2")
    if command.ddp_workers < 1:
        raise UserError(f"--ddp_workers {command.ddp_workers}: it takes 1 or more.")


def run_ranks(main: "TrainMain", argv: Sequence[str], num_workers: int | None = None) -> None:
    """`dora run -d`: start a rank for each GPU, or as many as the user asks for."""
    from ..run.signals import Signals
    from ..run.spawn import run_ranks as run_local_ranks

    # Dora has added the overrides that `-f SIG` stands for. The ranks get those of the command.
    overrides = getattr(main.command, "argv", argv)
    signals = main.signals or Signals().install()
    xp = main.requested()
    try:
        run_local_ranks(main, xp, overrides, num_workers, main.clear_asked, signals)
    finally:
        json_lines.say("run", main.experiment(xp))


def find_explorer(args: argparse.Namespace, main: "TrainMain") -> "Explorer":
    """The explorer of `dora grid NAME`."""
    from ..grid.sync import find_explorer as find

    return find(args, main)


def run_grid(main: "TrainMain", *args: Any, **kwargs: Any) -> "list[Sheep]":
    """`dora grid`, and Dora's function of this name for notebooks."""
    from ..grid.sync import run_grid as sync

    return sync(main, *args, **kwargs)


def is_ours(main: object, *args: object, **kwargs: object) -> bool:
    """Whether a function of Dora is called with the `main` of this project."""
    from ..experiments import Experiments

    return isinstance(main, Experiments)


def in_our_run(*args: object, **kwargs: object) -> bool:
    """Whether this process is in `main` of an experiment of ours. The arguments do not matter."""
    from ..experiment.xp import XP

    return isinstance(current_xp(), XP)


def shepherd(main: object, *args: object, **kwargs: object) -> type | None:
    """The class that `dora.shep.Shepherd(main)` makes. None: Dora's own."""
    from ..grid.shepherd import Shepherd

    return Shepherd if is_ours(main) else None


def sheep(xp: object, *args: object, **kwargs: object) -> type | None:
    """The class that `dora.Sheep(xp)` makes. None: Dora's own."""
    from ..experiment.xp import XP
    from ..grid.sheep import Sheep

    return Sheep if isinstance(xp, XP) else None


def distrib(name: str) -> Callable:
    """The function of run/distrib.py that does what `dora.distrib` has under this name."""

    def call(*args: object, **kwargs: object) -> object:
        from ..run import distrib as ours

        return getattr(ours, name)(*args, **kwargs)

    return call


def refuse_preemption_callback(callback: object) -> None:
    """Refuse Dora's `register_preemption_callaback`.

    Dora calls such a function in a signal's handler. Here a handler only sets a flag.

    Raises:
        UserError: always.
    """
    raise UserError(
        "dora.shep.register_preemption_callaback is not supported: a run that is signalled saves a "
        "checkpoint at its next step, and leaves.",
        "what is to be done then: on_exception of a Lightning callback",
    )


def info(main: "TrainMain", args: argparse.Namespace) -> int:
    """`dora info`."""
    from .info import info as show

    return show(main, args)


def launch(main: "TrainMain", args: argparse.Namespace) -> int:
    """`dora launch`."""
    from ..grid.launch import launch as submit

    return submit(main, args)


def export(dump: Callable) -> Callable:
    """Dora's `dump`, with metrics if the user asks for them.

    It refuses to export nothing.
    """

    def dump_some(all_argv: list) -> str:
        if not all_argv:
            raise UserError("dora export needs signatures: dora export 5f3a91c2 ...")
        # The overrides of a stored experiment know it: they are a FrozenArgv (lookup.py).
        return dump([exported(argv, getattr(argv, "experiment", None)) for argv in all_argv])

    return dump_some


def import_(load: Callable) -> Callable:
    """Dora's `load`, which refuses input that is no export."""

    def load_checked(text: str) -> list[list[str]]:
        try:
            all_argv = load(text)
        except Exception as error:  # base64, zlib and JSON each have their own
            raise UserError(
                "not an export of Dora: paste the complete output of dora export."
            ) from error
        if not isinstance(all_argv, list) or not all(map(_is_exported, all_argv)):
            raise UserError("not an export of Dora: it holds no list of overrides.")
        return [Imported(one) if isinstance(one, dict) else one for one in all_argv]

    return load_checked


def _is_exported(one: object) -> bool:
    """Whether it is what `exported` gives: a record, or overrides."""
    if isinstance(one, list):
        return all(isinstance(word, str) for word in one)
    return isinstance(one, dict)


def finite_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics by dotted name, with None for NaN and infinity.

    `dora.hiplot` 0.1.13 would send those in a form that no browser can read.
    """
    found = dict(flatten(metrics))
    for key, value in found.items():
        if isinstance(value, float) and not math.isfinite(value):
            found[key] = None
    return found
