"""One experiment on a dozen lines, its log and its metrics: what `dora info` shows.

It reads stored files only, so it works when the configuration does not.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from .board import epochs, seconds_left
from .logs import follow, last_lines, log_of
from .status import Status, duration, look, when


def find_job(dora_dir: Path, job_id: str) -> Experiment:
    """The experiment that was, or is, this job: `8812`, or `8812_3` in an array.

    Raises:
        UserError: none, or several.
    """
    found: list[tuple[str, Experiment]] = []
    for experiment in readable(dora_dir):
        jobs = (experiment.job_at(number) for number in range(1, experiment.job_number() + 1))
        ids = [known for job in jobs for known in (job.ids if job else [])]
        mine = [known for known in ids if job_id in (known, known.partition("_")[0])]
        found += [(known, experiment) for known in mine]
    if not found:
        hidden = closed(dora_dir)
        raise UserError(
            f'no experiment under {dora_dir} was job "{job_id}".',
            f"you may not read: {shortened(hidden, 8)}." if hidden else "",
        )
    sigs = sorted({experiment.sig for _, experiment in found})
    if len(sigs) == 1:
        return found[0][1]
    tasks = {known for known, _ in found}
    if len(tasks) > 1:
        raise UserError(f'job "{job_id}" is an array: name one of its tasks, e.g. {min(tasks)}.')
    raise UserError(
        f'several experiments were job "{job_id}": {shortened(sigs, 8)}.',
        f"the id was given more than once; name the experiment: dora info -f {sigs[0]}",
    )


# --- what is shown ---


def lines(experiment: Experiment, dora_dir: Path, executor: Executor | None) -> list[str]:
    """The dozen lines."""
    run, job, birth = experiment.state(), experiment.job(), experiment.birth()
    status = look([experiment], executor, force=True)[experiment.sig]
    log = log_of(experiment, job)
    pairs = [
        ("state", _state(status, run)),
        ("cause", _cause(status)),
        ("epochs", _epochs(experiment, run, status)),
        ("metrics", _last(experiment)),
        ("best", _best(experiment, run, birth)),
        ("test", _test(experiment)),
        ("code", in_words(experiment.codes())),
        ("versions", _versions(birth)),
        ("folder", _shown(experiment.folder)),
        ("log", _shown(log) if log else ""),
        ("cleared", what_was_cleared(experiment)),
    ]
    return [
        _first(experiment, dora_dir, birth),
        *(f"{key:<10} {text}" for key, text in pairs if text),
        *_tail(status, log),
        *_commands(experiment, status, dora_dir),
    ]


def _first(experiment: Experiment, dora_dir: Path, birth: Birth | None) -> str:
    grids = grids_of(experiment, dora_dir)
    return f"{experiment.sig}   {overrides(experiment, birth)}" + (
        f"    grids: {', '.join(grids)}" if grids else ""
    )


def overrides(experiment: Experiment, birth: Birth | None) -> str:
    """What makes it differ from the defaults, as one would type it."""
    words = [f"{key}={value}" for key, value in birth.delta] if birth else experiment.argv() or []
    return shlex.join(words) or "(the defaults)"


def grids_of(experiment: Experiment, dora_dir: Path) -> list[str]:
    """The grids that name it."""
    return sorted(path.parent.name for path in (dora_dir / GRIDS).glob(f"*/{experiment.sig}"))


def _state(status: Status, run: RunState) -> str:
    """`failed 23 Nov 13:20 at epoch 3 of 30, attempt 2 on node4, job 8815`."""
    parts = [str(status.state) + ("" if status.certain else " (not certain)")]
    if not status.live and run.ended:
        parts.append(when(run.ended))
    if run.attempt:
        parts.append(
            f"at epoch {run.epoch}"
            + (f" of {run.epochs}" if run.epochs and run.epochs > 0 else "")
            + ","
        )
        parts.append(f"attempt {run.attempt}")
    if status.where:
        parts.append(f"on {status.where}")
    if status.user and status.user != claims.user_name():
        parts.append(f"of {status.user}")
    return " ".join(parts)


def _cause(status: Status) -> str:
    """Why it is so; the usual end needs no reason, and `cancelled` is none of `cancelled`."""
    usual = status.state == State.COMPLETED and status.cause == "max_epochs"
    return "" if usual or status.cause == str(status.state) else status.cause


def _epochs(experiment: Experiment, run: RunState, status: Status) -> str:
    text = epochs(run, epochs_in(experiment.history()))
    if not text:
        return ""
    if status.state == State.RUNNING and run.speed:
        left = duration(seconds_left(run))
        text += f"   {run.speed:.3g} it/s" + (f"   {left} left" if left else "")
    return text + (
        f"   last heard of {when(run.updated)}"
        if run.updated and status.state != State.COMPLETED
        else ""
    )


def _last(experiment: Experiment) -> str:
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
    metric = main_metric(birth.config if birth else {})[0]
    rest = validated(best) if metric else {}
    rest.pop(metric.removeprefix("valid."), None)
    return shown_best(best, metric, _number) + (f" · valid {_in_words(rest)}" if rest else "")


def _test(experiment: Experiment) -> str:
    test = (experiment.result() or {}).get("test")
    return _in_words(test) if isinstance(test, Mapping) else ""


def _in_words(metrics: Mapping[str, Any]) -> str:
    """`train loss 1.71 · valid loss 1.6 acc 0.411`."""
    plain = [
        f"{key} {_number(value)}"
        for key, value in metrics.items()
        if not isinstance(value, Mapping)
    ]
    nested = [
        f"{key} {_in_words(value)}" for key, value in metrics.items() if isinstance(value, Mapping)
    ]
    return " · ".join([" ".join(plain)] * bool(plain) + nested)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _versions(birth: Birth | None) -> str:
    return (
        ", ".join(f"{name} {version}" for name, version in birth.versions.items()) if birth else ""
    )


def _tail(status: Status, log: Path | None) -> list[str]:
    """A failure's last lines: the next step is always to read them."""
    return (
        ["", *(f"  | {line}" for line in last_lines(log, 5)), ""]
        if status.state == State.FAILED and log
        else []
    )


def _commands(experiment: Experiment, status: Status, dora_dir: Path) -> list[str]:
    """What one would do next."""
    sig = experiment.sig
    if status.out_of_reach:
        return [f"{'if gone':<10} DORA_TAKE=1 dora run -f {sig}"]
    if status.live:
        return [f"{'watch':<10} {typed()} info -f {sig} -t     stop   {typed()} info -f {sig} -C"]
    if status.state == State.COMPLETED:
        return [
            f"{'curves':<10} {typed('tensorboard')} --logdir {shlex.quote(_shown(experiment.folder))}"
        ]
    grids = grids_of(experiment, dora_dir)
    again = f"     as grid   {typed()} grid {grids[0]} --retry" if grids else ""
    return [f"{'again':<10} {typed()} run -f {sig}{again}"]


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)


def metrics_line(experiment: Experiment) -> str:
    """As Dora prints it: the number of epochs, and the last one's metrics."""
    history = experiment.history()
    return f"Metrics[{len(history)}]: {json.dumps(history[-1]) if history else ''}".rstrip()


def log_to_show(experiment: Experiment) -> Path:
    path = log_of(experiment, experiment.job())
    if path is None:
        raise UserError(f"XP {experiment.sig} has no log yet.")
    return path


def follow_experiment(experiment: Experiment, executor: Executor) -> None:
    """Its log as it grows, until it neither waits nor runs, or Ctrl-C."""
    try:
        follow(
            lambda: log_of(experiment, experiment.job()),
            lambda: not look([experiment], executor)[experiment.sig].live,
        )
    except KeyboardInterrupt:
        sys.exit(130)
