"""`dora launch`: one experiment, with the same plan and submission as those of a grid."""

import argparse
import sys
import time
from pathlib import Path

from dora.conf import SubmitRules, update_from_args

from ..errors import UserError
from ..experiment.folder import Experiment
from ..experiment.records import ILL, State
from ..experiments import Experiments
from ..jobs.choose import chosen
from ..jobs.executor import Executor
from ..jobs.resources import refuse_dev
from ..shell import typed
from ..watch import json_lines
from ..watch.logs import follow, log_of
from ..watch.status import look
from .plan import SIGNS
from .single import Decision, Wish, decide, submit
from .stop import cancel


def launch(main: Experiments, args: argparse.Namespace) -> int:
    """Submit, cancel or follow one experiment, as the arguments say.

    Args:
        args: of `dora launch`, as Dora's own parser returns them.

    Returns:
        The exit code: 1 if the experiment was not submitted because the user must look at it first.
        With `--tail` or `--attach` it is 1 if the experiment did not reach its end, and 130 after
        Ctrl-C.

    Raises:
        UserError: it cannot be submitted.
    """
    argv = args.argv
    if args.from_sig:
        argv = main.get_argv_from_sig(args.from_sig) + argv
    xp = main.get_xp(argv)
    experiment = main.experiment(xp)
    executor = chosen(xp.values)
    if args.cancel:
        print(cancel(experiment, executor))
        return 0
    slurm, rules = main.get_slurm_config(), SubmitRules()
    update_from_args(slurm, args)
    update_from_args(rules, args)
    slurm = main.resources(xp, slurm)
    refuse_dev(slurm)
    try:
        return _decided(main, args, Wish(xp, slurm, rules, args.clear), executor)
    finally:
        status = look([experiment], executor, force=True)[experiment.sig]
        json_lines.say("launch", experiment, status)


def _decided(main: Experiments, args: argparse.Namespace, wish: Wish, executor: Executor) -> int:
    """Submit the experiment if the rules ask for it, and follow it if the arguments do.

    Returns:
        The exit code, see `launch`.

    Raises:
        UserError: it cannot be submitted.
    """
    xp, experiment = wish.xp, main.experiment(wish.xp)
    decision = decide(main, wish, executor)
    action = decision.action
    if action.verb.submits:
        _submit(main, decision, executor)
    else:
        print(f"= {experiment.sig}  {main.get_name(xp)}   {action.reason}".rstrip())
        if action.wrong:
            return 1
    if (args.tail or args.attach) and look([experiment], executor)[experiment.sig].live:
        return _follow(experiment, executor, args)
    return 0


def _submit(main: Experiments, decision: Decision, executor: Executor) -> None:
    """Submit the experiment, and print its job.

    Raises:
        UserError: there is no job of ours.
    """
    xp, action = decision.wish.xp, decision.action
    [outcome] = submit(main, [[decision]], executor)
    if not outcome.submitted:
        raise UserError(f"{xp.sig}: {outcome.trouble}")
    reason = f"   {action.reason}" if action.reason else ""
    job = f"job {outcome.job_id} {executor.where({decision.wish.slurm.gpus})}"
    print(f"{SIGNS[action.verb]} {xp.sig}  {main.get_name(xp)}   {job}{reason}", flush=True)


def _follow(experiment: Experiment, executor: Executor, args: argparse.Namespace) -> int:
    """Print the log until the experiment has ended, and return the exit code.

    Ctrl-C leaves the job running. With `--attach` it cancels the job.
    """

    def shown_log() -> Path | None:
        return log_of(experiment, experiment.job()) if args.tail else None

    try:
        follow(shown_log, lambda: not look([experiment], executor)[experiment.sig].live)
    except KeyboardInterrupt:
        if args.attach:
            print("\n" + cancel(experiment, executor), file=sys.stderr)
        else:
            print(
                f"\nXP {experiment.sig} goes on; watch it: {typed()} info -f {experiment.sig} -t     "
                f"stop it: {typed()} info -f {experiment.sig} -C",
                file=sys.stderr,
            )
        return 130
    time.sleep(0.1)
    status = look([experiment], executor)[experiment.sig]
    if status.state != State.COMPLETED:
        print(f"XP {experiment.sig}: {status.why}", file=sys.stderr)
    return int(status.state in ILL)
