"""`dora info`: one experiment on a dozen lines, its log, its metrics; or the end of its job.

It reads stored files only: nothing is composed for `-f SIG` and `-j JOB`, so it works when the configuration does not,
and changes nothing, unless `-C` asks for it.
"""

import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import claims
from ..clearing import what_was_cleared
from ..code import in_words
from ..errors import UserError, shortened
from ..find import closed, readable
from ..records import Birth, RunState, State
from ..shell import typed
from ..store import GRIDS, Experiment
from ..words import main_metric, shown_best, validated
from . import submission
from .board import epochs, seconds_left
from .executor import Executor
from .logs import follow, last_lines, log_of, print_log
from .places import asked
from .status import Status, duration, look, when


def info(main: Any, args: Any, executor: Executor | None = None) -> int:
    """Do what `dora info` was asked for.

    Returns:
        The exit code.

    Raises:
        UserError: there is no such experiment, job or log, or it cannot be cancelled.
    """
    executor = executor or asked()
    experiment = find(main, args)
    if args.cancel:
        print(cancel(experiment, executor))
    elif args.metrics:
        print(metrics_line(experiment))
    elif args.log:
        print_log(_log(experiment))
    elif args.tail:
        follow_experiment(experiment, executor)
    else:
        print("\n".join(lines(experiment, Path(main.dora.dir), executor)))
    return 0


def find(main: Any, args: Any) -> Experiment:
    """The experiment that the command names: `-j JOB`, `-f SIG`, or overrides.

    Raises:
        UserError: there is none.
    """
    if args.job_id is not None:
        if args.argv or args.from_sig:
            raise UserError("-j names the experiment: no overrides and no -f beside it.")
        return find_job(Path(main.dora.dir), args.job_id)
    if args.from_sig is not None and not args.argv:
        experiment = main.experiment(main.get_xp_from_sig(args.from_sig))
    else:
        argv = main.get_argv_from_sig(args.from_sig) + args.argv if args.from_sig else args.argv
        experiment = main.experiment(main.get_xp(argv))
    words = [*(["-f", args.from_sig] if args.from_sig else []), *args.argv]
    if not (experiment.exists() or experiment.argv() is not None):
        raise UserError(f"XP {experiment.sig} was never started.",
                        f"start it: dora run {shlex.join(words)}".rstrip())
    return experiment


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
        raise UserError(f'no experiment under {dora_dir} was job "{job_id}".',
                        f"you may not read: {shortened(hidden, 8)}." if hidden else "")
    sigs = sorted({experiment.sig for _, experiment in found})
    if len(sigs) == 1:
        return found[0][1]
    tasks = {known for known, _ in found}
    if len(tasks) > 1:
        raise UserError(f'job "{job_id}" is an array: name one of its tasks, e.g. {min(tasks)}.')
    raise UserError(f'several experiments were job "{job_id}": {shortened(sigs, 8)}.',
                    f"the id was given more than once; name the experiment: dora info -f {sigs[0]}")


# --- what is shown ---


def lines(experiment: Experiment, dora_dir: Path, executor: Executor | None) -> list[str]:
    """The dozen lines."""
    run, job, birth = experiment.state(), experiment.job(), experiment.birth()
    status = look([experiment], executor, force=True)[experiment.sig]
    log = log_of(experiment, job)
    pairs = [("state", _state(status, run)), ("cause", _cause(status)), ("epochs", _epochs(experiment, run, status)),
             ("metrics", _last(experiment)), ("best", _best(experiment, run, birth)),
             ("test", _test(experiment)),
             ("code", in_words(experiment.codes())), ("versions", _versions(birth)),
             ("folder", _shown(experiment.folder)), ("log", _shown(log) if log else ""),
             ("cleared", what_was_cleared(experiment))]
    return [_first(experiment, dora_dir, birth), *(f"{key:<10} {text}" for key, text in pairs if text),
            *_tail(status, log), *_commands(experiment, status, dora_dir)]


def _first(experiment: Experiment, dora_dir: Path, birth: Birth | None) -> str:
    grids = grids_of(experiment, dora_dir)
    return f"{experiment.sig}   {overrides(experiment, birth)}" + (f"    grids: {', '.join(grids)}" if grids else "")


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
        parts.append(f"at epoch {run.epoch}" + (f" of {run.epochs}" if run.epochs and run.epochs > 0 else "") + ",")
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
    text = epochs(run, len(experiment.history()))
    if not text:
        return ""
    if status.state == State.RUNNING and run.speed:
        left = duration(seconds_left(run))
        text += f"   {run.speed:.3g} it/s" + (f"   {left} left" if left else "")
    return text + (f"   last heard of {when(run.updated)}" if run.updated and status.state != State.COMPLETED else "")


def _last(experiment: Experiment) -> str:
    history = experiment.history()
    return f"epoch {len(history)}: {_in_words(history[-1])}" if history else ""


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
    plain = [f"{key} {_number(value)}" for key, value in metrics.items() if not isinstance(value, Mapping)]
    nested = [f"{key} {_in_words(value)}" for key, value in metrics.items() if isinstance(value, Mapping)]
    return " · ".join([" ".join(plain)] * bool(plain) + nested)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _versions(birth: Birth | None) -> str:
    return ", ".join(f"{name} {version}" for name, version in birth.versions.items()) if birth else ""


def _tail(status: Status, log: Path | None) -> list[str]:
    """A failure's last lines: the next step is always to read them."""
    return ["", *(f"  | {line}" for line in last_lines(log, 5)), ""] if status.state == State.FAILED and log else []


def _commands(experiment: Experiment, status: Status, dora_dir: Path) -> list[str]:
    """What one would do next."""
    sig = experiment.sig
    if status.out_of_reach:
        return [f"{'if gone':<10} DORA_TAKE=1 dora run -f {sig}"]
    if status.live:
        return [f"{'watch':<10} {typed()} info -f {sig} -t     stop   {typed()} info -f {sig} -C"]
    if status.state == State.COMPLETED:
        return [f"{'curves':<10} {typed('tensorboard')} --logdir {shlex.quote(_shown(experiment.folder))}"]
    grids = grids_of(experiment, dora_dir)
    again = f"     as grid   {typed()} grid {grids[0]} --retry" if grids else ""
    return [f"{'again':<10} {typed()} run -f {sig}{again}"]


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)


def metrics_line(experiment: Experiment) -> str:
    """As Dora prints it: the number of epochs, and the last one's metrics."""
    history = experiment.history()
    return f"Metrics[{len(history)}]: {json.dumps(history[-1]) if history else ''}".rstrip()


def _log(experiment: Experiment) -> Path:
    path = log_of(experiment, experiment.job())
    if path is None:
        raise UserError(f"XP {experiment.sig} has no log yet.")
    return path


def follow_experiment(experiment: Experiment, executor: Executor) -> None:
    """Its log as it grows, until it neither waits nor runs, or Ctrl-C."""
    try:
        follow(lambda: log_of(experiment, experiment.job()),
               lambda: not look([experiment], executor)[experiment.sig].live)
    except KeyboardInterrupt:
        sys.exit(130)


# --- its end ---


def cancel(experiment: Experiment, executor: Executor) -> str:
    """Stop it, as a job or as a process of this machine; what was done, in words.

    Raises:
        UserError: it is not ours, or cannot be reached from here.
    """
    sig = experiment.sig
    status = look([experiment], executor, force=True)[sig]
    if not status.live:
        return f"XP {sig} neither waits nor runs: it is {status.state}."
    if status.user and status.user != claims.user_name():
        raise UserError(f"XP {sig} is {status.state} on {status.where}, of {status.user}: only they can stop it.")
    if status.by_job:
        job = experiment.job()
        if job is None or not executor.answers_for(job):
            queue = f"{job.cluster} ({job.queue}), submitted from {job.host}" if job else "nowhere"
            raise UserError(f"XP {sig} is {status.where} of {queue}, out of reach from here: stop it there.",
                            f"if you know that it is gone: DORA_TAKE=1 dora run -f {sig}")
        ids = submission.cancel([experiment], executor)
        return f"XP {sig}: job {', '.join(ids)} cancelled."
    return _stop_process(experiment)


def _stop_process(experiment: Experiment) -> str:
    """SIGTERM to a run of this machine: it saves a checkpoint, and leaves."""
    last, _ = claims.holder(experiment)
    if last is None or not last.in_reach():
        where = last.where() if last else "nowhere we know of"
        raise UserError(f"XP {experiment.sig} is on {where}, which cannot be reached from here: stop it there.")
    experiment.cancel_attempt(last.attempt, claims.user_name())
    try:
        os.kill(last.pid, signal.SIGTERM)
    except PermissionError:
        user = last.user or "another user"
        raise UserError(f"process {last.pid} belongs to {user}: only they can stop it.") from None
    except ProcessLookupError:
        pass
    return f"XP {experiment.sig}: process {last.pid} was asked to stop; it saves a checkpoint first."
