"""`dora run -d`: starts the ranks of one run on this machine, and ends them together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from omegaconf import DictConfig

from ...children import Parent, end_with
from .. import environment
from ..config.values import key_of, never_counts
from ..errors import UserError
from ..experiment import claims
from ..experiment.folder import Experiment
from ..experiment.xp import XP
from ..experiments import Experiments, ask, refuse_if_waiting
from .entering import enter, is_finished
from .ranks import free_port
from .signals import Signals

GRACE = 30.0  # seconds from asking the other ranks to leave to ending them


def run_ranks(
    main: Experiments,
    xp: XP,
    argv: Sequence[str],
    workers: int | None,
    clear: bool,
    signals: Signals,
) -> NoReturn:
    """Make the experiment, start its ranks by its signature, and leave with their exit code.

    Args:
        argv: the overrides of the command. The ranks get only those that do not count in the
            signature: the others are in the folder.
        workers: the number of ranks. None: one for each GPU.
        clear: begin anew.

    Raises:
        SystemExit: always, with the exit code of the ranks.
        UserError: it runs elsewhere, or its configuration asks for something that does not exist.
    """
    experiment = main.experiment(xp)
    world_size = workers or _gpus(xp.cfg)
    if not clear and is_finished(main, xp, experiment):
        sys.exit(0)
    # Before `enter`, which takes seconds, and before any rank is started.
    claims.refuse_if_held(experiment, ask)
    refuse_if_waiting(experiment)
    _refuse_missing_gpus(xp.cfg, world_size)
    enter(main, xp, clear=clear)
    excluded = [arg for arg in argv if never_counts(key_of(arg), main.dora.exclude)]
    # By its signature: what counts is in the folder, and is not composed again.
    command = [
        sys.executable,
        "-m",
        "dora",
        "-P",
        main.package,
        "--main_module",
        main.main_module,
        "run",
        "-f",
        xp.sig,
        *excluded,
    ]
    ranks = _start(command, world_size, experiment)
    sys.exit(_watch(ranks, signals))


def _gpus(cfg: DictConfig) -> int:
    """Return the number of GPUs that torch sees.

    Raises:
        UserError: there is no GPU to count.
    """
    import torch

    if not torch.cuda.device_count() or cfg.trainer.accelerator == "cpu":
        raise UserError(
            "dora run -d: how many ranks? There is no GPU to count.",
            "on the CPU: dora run -d --ddp_workers 2",
        )
    return torch.cuda.device_count()


def _refuse_missing_gpus(cfg: DictConfig, world_size: int) -> None:
    """Refuse more ranks than there are GPUs, if the ranks would train on GPUs.

    Raises:
        UserError: there are too few, or the GPU is a Mac's, which several ranks cannot share.
    """
    import torch

    found = torch.cuda.device_count()
    has_gpu = found > 0 or torch.backends.mps.is_available()
    if not has_gpu or world_size <= max(found, 1) or str(cfg.trainer.accelerator) == "cpu":
        return
    raise UserError(
        f"dora run -d: {world_size} ranks need as many GPUs; torch sees {max(found, 1)} here.",
        f"on the CPU: dora run -d --ddp_workers {world_size} trainer.accelerator=cpu",
    )


def end_with_parent() -> bool:
    """Let this rank save and leave if the process that started the ranks is killed.

    Returns:
        Whether `dora run -d` started this process.
    """
    # Commands that this process starts must not have the variable: they are no ranks.
    parent = environment.take_parent()
    if parent:
        end_with(Parent(int(parent)), signal.SIGTERM, GRACE)
    return bool(parent)


def _start(command: list[str], world_size: int, experiment: Experiment) -> list[subprocess.Popen]:
    """Start the ranks. Rank 0 keeps the terminal, and the others write to worker_N.log."""
    port, parent = free_port(), str(os.getpid())
    ranks = []
    for rank in range(world_size):
        env = environment.variables() | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            environment.PARENT: parent,
            **environment.short_spins(),
        }
        if rank == 0:
            ranks.append(subprocess.Popen(command, env=env))
            continue
        # Several readers of one terminal would take each other's keys, so these have no input.
        with open(experiment.worker_log(rank), "w", encoding="utf-8") as log:
            ranks.append(
                subprocess.Popen(
                    command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            )
    return ranks


def _watch(ranks: list[subprocess.Popen], signals: Signals) -> int:
    """Wait for all ranks, and return the exit code of the first one that failed, or 0.

    A signal is passed on to the ranks, which leave after their step and its checkpoint. If one of
    them dies, the others are asked to leave, and are killed after GRACE seconds.
    """
    failed, told, deadline = 0, False, float("inf")
    while any(rank.poll() is None for rank in ranks):
        failed = failed or _first_failure(ranks)
        if (signals.signum or failed) and not told:
            # Ctrl-C on a terminal has reached the ranks already. A second signal does not change
            # their flag.
            _tell(ranks, signals.signum or signal.SIGTERM)
            told = True
        if failed and deadline == float("inf"):
            deadline = time.monotonic() + GRACE
        if time.monotonic() > deadline:
            _tell(ranks, signal.SIGKILL)
        time.sleep(0.05)
    failed = failed or _first_failure(ranks)
    # A negative code is the number of the signal that killed the rank. A shell adds it to 128.
    return 128 - failed if failed < 0 else failed


def _first_failure(ranks: list[subprocess.Popen]) -> int:
    """Return the exit code of the first rank in the list that failed, or 0."""
    for rank in ranks:
        code = rank.poll()
        if code:
            return code
    return 0


def _tell(ranks: list[subprocess.Popen], signum: int) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(signum)
