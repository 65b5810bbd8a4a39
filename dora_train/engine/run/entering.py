"""Before an attempt: whether the experiment is finished, and making its folder if it has none.

session.py and spawn.py call it. It must not import torch or Lightning at its top: a finished
experiment and a wrong value are to be answered without waiting for them.
"""

import os
import time

from ..errors import shortened
from ..experiment.folder import Experiment
from ..experiment.records import State
from ..experiment.xp import XP
from ..experiments import Experiments, refuse_clear
from ..words import main_metric, shown_best, shown_path
from .run_log import overrides_of, quieten_lightning


def is_finished(main: Experiments, xp: XP, experiment: Experiment, is_first: bool = True) -> bool:
    """Whether there is nothing left to do. If so, the first rank prints it.

    Raises:
        UserError: the signature means something else today, because a default has changed.
    """
    state = experiment.state()
    if state.state is not State.COMPLETED:
        return False
    if is_first:
        main.refuse_drift(xp)
        when = time.strftime("%d %b %H:%M", time.localtime(state.ended or state.updated or 0))
        finished = f"finished on {when}"
        if state.best:
            finished += f" (best {shown_best(state.best, main_metric(xp.values)[0])})"
        print(f"XP {xp.sig}  {overrides_of(xp)}  finished  {shown_path(experiment.folder)}")
        print(f"{finished} · nothing to do · to run anew: --clear")
        if differing := main.todays_code.differs(experiment, xp.values):
            print(
                f"it ran other code than today's: {shortened(differing, 3)} · "
                "to run today's: --clear, or tag=@code (another experiment)"
            )
    return True


def enter(main: Experiments, xp: XP, is_first: bool = True, clear: bool = False) -> None:
    """Make the folder, and give `xp` the values that the experiment was made with.

    Args:
        clear: begin anew. The earlier results are put aside once nothing can be refused any more.

    Raises:
        UserError: the configuration asks for something that does not exist, or the signature means
            something else today.
    """
    birth = None if clear else main.experiment(xp).birth()
    # Before Lightning is imported, which takes seconds.
    if is_first and birth is None:
        main.check(xp)
    elif is_first:
        main.todays_code.refuse_other(xp.values)
    from .checks import check_run

    quieten_lightning()
    if is_first:
        check_run(xp.cfg)
        # Another process may have started it in these seconds.
        if clear:
            refuse_clear(main.experiment(xp))
        main.create(xp, anew=clear)
    elif birth is not None:
        main.use_frozen(xp, birth)
    _use_threads(int(xp.cfg.get("threads") or 1))
    from . import determinism

    determinism.ask(xp.cfg)


def _use_threads(threads: int) -> None:
    """Set the number of CPU threads, which changes how sums are rounded."""
    import torch

    # For DDP, Lightning 2.6.6 would choose a number by the machine's cores if this were not set.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
