"""One experiment on a dozen lines, its log and its metrics: what `dora info` shows.

It reads stored files only, so it works if the configuration does not.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...best_so_far import epochs_in, metrics_of
from ..errors import UserError, shortened
from ..experiment import claims
from ..experiment.clearing import what_was_cleared
from ..experiment.code import in_words
from ..experiment.find import closed, readable
from ..experiment.folder import GRIDS, Experiment
from ..experiment.records import Birth, RunState, State
from ..jobs.executor import Executor
from ..shell import typed
from ..words import main_metric, shown_best, validated
from . import curves
from .logs import follow, last_lines, log_of
from .progress import duration, epochs, seconds_left, when
from .status import Status, look
from .times import times_of
from .usage import used_by


def find_job(dora_dir: Path, job_id: str) -> Experiment:
    """The experiment of a job, present or past: `8812`, or `8812_3` in an array.

    Raises:
        UserError: no experiment was this job, or several were.
    """
    found: dict[str, Experiment] = {}
    tasks: set[str] = set()
    for experiment in readable(dora_dir):
        for known in _job_ids(experiment):
            if job_id in (known, known.partition("_")[0]):
                found[experiment.sig] = experiment
                tasks.add(known)
    if not found:
        hidden = closed(dora_dir)
        hint = ""
        if hidden:
            hint = f"you may not read: {shortened(hidden, 8)}."
        raise UserError(f'no experiment under {dora_dir} was job "{job_id}".', hint)
    sigs = sorted(found)
    if len(sigs) == 1:
        return found[sigs[0]]
    if len(tasks) > 1:
        raise UserError(f'job "{job_id}" is an array: name one of its tasks, e.g. {min(tasks)}.')
    raise UserError(
        f'several experiments were job "{job_id}": {shortened(sigs, 8)}.',
        f"the id was given more than once; name the experiment: dora info -f {sigs[0]}",
    )


def _job_ids(experiment: Experiment) -> Iterator[str]:
    """The ids of all jobs that an experiment was submitted as, dependents included."""
    for number in range(1, experiment.job_number() + 1):
        job = experiment.job_at(number)
        if job is not None:
            yield from job.ids


# --- what is shown ---


def lines(experiment: Experiment, dora_dir: Path, executor: Executor | None) -> list[str]:
    """The dozen lines that `dora info` shows of an experiment."""
    run, job, birth = experiment.state(), experiment.job(), experiment.birth()
    status = look([experiment], executor, force=True)[experiment.sig]
    log = log_of(experiment, job)
    pairs = {
        "state": _state(status, run),
        "cause": _cause(status),
        "used": str(used_by(experiment, status.live) or ""),
        "began": str(times_of(experiment, run, birth, status)),
        "epochs": _epochs(experiment, run, status),
        "metrics": _last(experiment),
        "best": _best(experiment, run, birth),
        "test": _test(experiment),
        "bits": run.bits,
        "code": in_words(experiment.codes()),
        "versions": _versions(birth),
        "folder": _shown(experiment.folder),
        "log": _shown(log),
        "cleared": what_was_cleared(experiment),
    }
    return [
        _first(experiment, dora_dir, birth),
        *(f"{key:<10} {text}" for key, text in pairs.items() if text),
        *_tail(status, log),
        _next(experiment, status, dora_dir),
    ]


def _first(experiment: Experiment, dora_dir: Path, birth: Birth | None) -> str:
    """`5f3a91c2   optim.lr=0.1    grids: mysweep`."""
    text = f"{experiment.sig}   {overrides(experiment, birth)}"
    grids = grids_of(experiment, dora_dir)
    if grids:
        text += f"    grids: {', '.join(grids)}"
    return text


def overrides(experiment: Experiment, birth: Birth | None) -> str:
    """The values that differ from the defaults, as they would be typed."""
    if birth is None:  # stock Dora made it, and stores no more than its argv
        words = experiment.argv() or []
    else:
        words = [f"{key}={value}" for key, value in birth.delta]
    return shlex.join(words) or "(the defaults)"


def grids_of(experiment: Experiment, dora_dir: Path) -> list[str]:
    """The names of the grids that have the experiment."""
    return sorted(path.parent.name for path in (dora_dir / GRIDS).glob(f"*/{experiment.sig}"))


def _state(status: Status, run: RunState) -> str:
    """`failed 23 Nov 13:20 at epoch 3 of 30, attempt 2 on node4, job 8815`."""
    parts = [str(status.state)]
    if not status.certain:
        parts.append("(not certain)")
    if not status.live and run.ended:
        parts.append(when(run.ended))
    if run.attempt:
        epoch = f"at epoch {run.epoch}"
        if run.epochs and run.epochs > 0:
            epoch += f" of {run.epochs}"
        parts.append(f"{epoch}, attempt {run.attempt}")
    if status.where:
        parts.append(f"on {status.where}")
    if status.user and status.user != claims.user_name():
        parts.append(f"of {status.user}")
    return " ".join(parts)


def _cause(status: Status) -> str:
    """The cause, unless it says no more than the state: `max_epochs` is the usual end."""
    usual = status.state == State.COMPLETED and status.cause == "max_epochs"
    if usual or status.cause == str(status.state):
        return ""
    return status.cause


def _epochs(experiment: Experiment, run: RunState, status: Status) -> str:
    """`12/30   45.2 it/s   6 min left   last heard of 23 Nov 14:02`."""
    text = epochs(run, epochs_in(experiment.history()))
    if not text:
        return ""
    if status.state == State.RUNNING and run.speed:
        text += f"   {run.speed:.3g} it/s"
        left = duration(seconds_left(run))
        if left:
            text += f"   {left} left"
    if run.updated and status.state != State.COMPLETED:
        text += f"   last heard of {when(run.updated)}"
    return text


def _last(experiment: Experiment) -> str:
    """`epoch 12: train loss 1.71 · valid loss 1.6 acc 0.411`, from the last entry."""
    history = experiment.history()
    if not history:
        return ""
    step = history[-1].get("step")
    place = f"epoch {len(history)}" if step is None else f"step {step}"
    return f"{place}: {_in_words(metrics_of(history[-1]))}"


def _best(experiment: Experiment, run: RunState, birth: Birth | None) -> str:
    """`valid acc 0.411 @2 · valid loss 1.6`: the main metric, then the others of that epoch."""
    best = run.best or (experiment.result() or {}).get("best")
    if not isinstance(best, Mapping) or not best:
        return ""
    metric = main_metric(birth.config)[0] if birth else ""
    text = shown_best(best, metric, _number)
    if not metric:  # then all metrics of the epoch are in the text
        return text
    others = validated(best)
    others.pop(metric.removeprefix("valid."), None)
    if others:
        text += f" · valid {_in_words(others)}"
    return text


def _test(experiment: Experiment) -> str:
    test = (experiment.result() or {}).get("test")
    if isinstance(test, Mapping):
        return _in_words(test)
    return ""


def _in_words(metrics: Mapping[str, object]) -> str:
    """`train loss 1.71 · valid loss 1.6 acc 0.411`."""
    plain: list[str] = []
    splits: list[str] = []
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            splits.append(f"{key} {_in_words(value)}")
        else:
            plain.append(f"{key} {_number(value)}")
    if plain:
        splits.insert(0, " ".join(plain))
    return " · ".join(splits)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _versions(birth: Birth | None) -> str:
    if birth is None:
        return ""
    return ", ".join(f"{name} {version}" for name, version in birth.versions.items())


def _tail(status: Status, log: Path | None) -> list[str]:
    """The last lines of a failure's log, as reading them is always the next step."""
    if status.state != State.FAILED or log is None:
        return []
    return ["", *(f"  | {line}" for line in last_lines(log, 5)), ""]


def _next(experiment: Experiment, status: Status, dora_dir: Path) -> str:
    """The command that is most likely the next one."""
    sig = experiment.sig
    if status.out_of_reach:
        return f"{'if gone':<10} DORA_TAKE=1 dora run -f {sig}"
    if status.live:
        return f"{'watch':<10} {typed()} info -f {sig} -t     stop   {typed()} info -f {sig} -C"
    if status.state == State.COMPLETED:
        return f"{'curves':<10} {curves.command(experiment)}"
    command = f"{'again':<10} {typed()} run -f {sig}"
    grids = grids_of(experiment, dora_dir)
    if grids:
        command += f"     as grid   {typed()} grid {grids[0]} --retry"
    return command


def _shown(path: Path | None) -> str:
    """A path as text: relative to the working directory if it lies below it. Empty for None."""
    if path is None:
        return ""
    if path.absolute().is_relative_to(Path.cwd()):
        return os.path.relpath(path)
    return str(path)


def metrics_line(experiment: Experiment) -> str:
    """The number of epochs and the last one's metrics, in Dora's format: `Metrics[3]: {...}`."""
    history = experiment.history()
    if not history:
        return "Metrics[0]:"
    return f"Metrics[{len(history)}]: {json.dumps(history[-1])}"


def log_to_show(experiment: Experiment) -> Path:
    """The log of an experiment.

    Raises:
        UserError: it has none yet.
    """
    path = log_of(experiment, experiment.job())
    if path is None:
        raise UserError(f"XP {experiment.sig} has no log yet.")
    return path


def follow_experiment(experiment: Experiment, executor: Executor) -> None:
    """Print the log as it grows, until the experiment neither waits nor runs.

    Raises:
        SystemExit: 130, on Ctrl-C.
    """
    try:
        follow(
            lambda: log_of(experiment, experiment.job()),
            lambda: not look([experiment], executor)[experiment.sig].live,
        )
    except KeyboardInterrupt:
        sys.exit(130)
