"""What a command says of an experiment as one JSON object on a line (`DORA_JSON=1`).

AGENTS.md documents the keys. They are an interface: keys may be added, none changes its meaning.
"""

import os
from typing import Any

from .. import output
from ..experiment.folder import Experiment
from ..experiment.records import State
from .logs import log_of
from .status import Status
from .usage import attempts_of, total


def say(command: str, experiment: Experiment, status: Status | None = None, **more: object) -> None:
    """Print the line of an experiment, if the user asked for JSON.

    Args:
        command: the verb: "run", "grid", "info" or "launch".
        status: as `look` finds it. None: as the experiment itself has written it, for a process
            that runs it.
        more: further keys.
    """
    if output.says_json():
        output.say_json({"command": command, **described(experiment, status), **more})


def described(experiment: Experiment, status: Status | None = None) -> dict[str, Any]:
    """An experiment by the documented keys. A value that is not known yet is None."""
    run, birth, job = experiment.state(), experiment.birth(), experiment.job()
    result = experiment.result() or {}
    codes = experiment.codes()
    log = log_of(experiment, job)
    state, cause, where = run.state, run.cause, run.host
    if status is not None:
        state, cause, where = status.state, status.cause, status.where
    return {
        "sig": experiment.sig,
        "state": str(state),
        "cause": cause or None,
        "overrides": dict(birth.delta) if birth else {},  # type: ignore[arg-type]  # pairs
        "argv": experiment.argv() or [],
        "folder": os.path.abspath(experiment.folder),
        "log": os.path.abspath(log) if log else None,
        "attempt": run.attempt,
        "epoch": run.epoch,
        "epochs": run.epochs,
        "steps": run.step,
        "best": result.get("best") or run.best or None,
        "test": result.get("test") or None,
        "code": codes[-1].code if codes else None,
        "tag": birth.config.get("tag") if birth else None,
        "where": where or None,
        "job": job.job_id if job and job.job_id else None,
        "started": run.started,
        "ended": run.ended,
        "used": _used(experiment, state),
    }


def _used(experiment: Experiment, state: State) -> dict[str, Any] | None:
    """What it has used, and what each attempt has. None: not known."""
    attempts = attempts_of(experiment, live=state == State.RUNNING)
    if not attempts:
        return None
    each = {str(number): used.values() for number, used in attempts.items()}
    return {**total(attempts.values()).values(), "attempts": each}
