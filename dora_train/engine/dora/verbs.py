"""What each of Dora's verbs does here. `install` puts these where Dora's command looks them up."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..config.values import flatten
from ..errors import UserError
from ..experiment.share import Imported, exported
from ..upstream.dora import current_xp

if TYPE_CHECKING:
    from .main import TrainMain


def prepare_run(argv: Sequence[str], main: "TrainMain", clear: bool = False) -> None:
    """Before `dora run`: flags that would be passed over in silence.

    The run itself looks at the rest.

    Raises:
        UserError: --ddp_workers without -d, or less than one.
    """
    workers = main.command.ddp_workers if main.command is not None else None
    if workers and not main.command.ddp:  # type: ignore[union-attr]
        raise UserError("--ddp_workers goes with -d: dora run -d --ddp_workers 2")
    if workers is not None and workers < 1:
        raise UserError(f"--ddp_workers {workers}: it takes 1 or more.")


def run_ranks(main: "TrainMain", argv: Sequence[str], num_workers: int | None = None) -> None:
    """`dora run -d`."""
    from ..run.signals import Signals
    from ..run.spawn import run_ranks as run_local_ranks

    overrides = main.command.argv if main.command is not None else argv
    signals = main.signals or Signals().install()
    run_local_ranks(main, main.requested(), overrides, num_workers, main.clear_asked, signals)


def find_explorer(args: Any, main: "TrainMain") -> Any:
    """The explorer of `dora grid NAME`."""
    from ..grid.sync import find_explorer as find

    return find(args, main)


def run_grid(*args: Any, **kwargs: Any) -> Any:
    """`dora grid`, and Dora's function of this name for notebooks."""
    from ..grid.sync import run_grid as sync

    return sync(*args, **kwargs)


def is_ours(main: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether a function of Dora is called with the `main` of this project."""
    from ..experiments import Experiments

    return isinstance(main, Experiments)


def in_our_run(*args: Any, **kwargs: Any) -> bool:
    """Whether this process is in `main` of an experiment of ours, whatever a function is called
    with."""
    from ..experiment.xp import XP

    return isinstance(current_xp(), XP)


def shepherd(main: Any, *args: Any, **kwargs: Any) -> type | None:
    """The class that `dora.shep.Shepherd(main)` makes; None: Dora's own."""
    from ..grid.shepherd import Shepherd

    return Shepherd if is_ours(main) else None


def sheep(xp: Any, *args: Any, **kwargs: Any) -> type | None:
    """The class that `dora.Sheep(xp)` makes; None: Dora's own."""
    from ..experiment.xp import XP
    from ..grid.sheep import Sheep

    return Sheep if isinstance(xp, XP) else None


def distrib(name: str) -> Callable:
    """The function of run/distrib.py that does what `dora.distrib` has under this name."""

    def call(*args: Any, **kwargs: Any) -> Any:
        from ..run import distrib as ours

        return getattr(ours, name)(*args, **kwargs)

    return call


def refuse_preemption_callback(callback: Any) -> None:
    """Raises: UserError, always:

    Dora calls it in a signal's handler, where nothing is done here.
    """
    raise UserError(
        "dora.shep.register_preemption_callaback is not supported: a run that is signalled saves a "
        "checkpoint at its next step, and leaves.",
        "what is to be done then: on_exception of a Lightning callback",
    )


def info(main: "TrainMain", args: Any) -> int | None:
    """`dora info`."""
    from .info import info as show

    return show(main, args)


def launch(main: "TrainMain", args: Any) -> int | None:
    """`dora launch`."""
    from ..grid.launch import launch as submit

    return submit(main, args)


def export(dump: Callable) -> Callable:
    """Dora's `dump`, with metrics where they are asked for, and an error where there is nothing to
    export."""

    def dump_some(all_argv: list) -> str:
        if not all_argv:
            raise UserError("dora export needs signatures: dora export 5f3a91c2 ...")
        return dump([exported(argv, getattr(argv, "experiment", None)) for argv in all_argv])

    return dump_some


def import_(load: Callable) -> Callable:
    """Dora's `load`, with an error where its input is no export."""

    def load_checked(text: str) -> Any:
        try:
            all_argv = load(text)
        except Exception as error:  # base64, zlib and JSON each have their own
            raise UserError(
                "what came in is no export of Dora: paste what dora export printed, whole."
            ) from error
        if not isinstance(all_argv, list) or not all(
            _is_argv(argv) or isinstance(argv, dict) for argv in all_argv
        ):
            raise UserError("what came in is no export of Dora: it holds no list of overrides.")
        return [Imported(argv) if isinstance(argv, dict) else argv for argv in all_argv]

    return load_checked


def _is_argv(argv: Any) -> bool:
    return isinstance(argv, list) and all(isinstance(word, str) for word in argv)


def finite_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names; None for NaN and infinity, which `dora.hiplot` 0.1.13 sends as no browser can
    read them."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in flatten(metrics)
    }
