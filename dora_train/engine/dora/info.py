"""`dora info`: finds the experiment that the command names, and shows what its flags ask for.

Nothing is composed for `-f SIG` and `-j JOB`. Nothing changes, unless `-C` asks for it.
"""

import argparse
import shlex
from pathlib import Path

from .. import output
from ..errors import UserError
from ..experiment.folder import Experiment
from ..experiment.xp import XP
from ..experiments import Experiments
from ..grid.stop import cancel
from ..jobs.choose import asked
from ..jobs.executor import Executor
from ..watch import json_lines
from ..watch.info import find_job, follow_experiment, lines, log_to_show, metrics_line
from ..watch.logs import print_log
from ..watch.status import look


def info(main: Experiments, args: argparse.Namespace, executor: Executor | None = None) -> int:
    """Show one experiment, or cancel it, as the flags ask.

    Args:
        args: of `dora info`, as Dora's parser reads them.
        executor: the scheduler to ask. None: the one that the configuration names.

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
        print_log(log_to_show(experiment))
    elif args.tail:
        follow_experiment(experiment, executor)
    elif not output.says_json():
        print("\n".join(lines(experiment, Path(main.dora.dir), executor)))
    json_lines.say("info", experiment, look([experiment], executor, force=True)[experiment.sig])
    return 0


def find(main: Experiments, args: argparse.Namespace) -> Experiment:
    """The experiment that the command names: `-j JOB`, `-f SIG`, or overrides.

    Raises:
        UserError: there is none.
    """
    if args.job_id is not None:
        if args.argv or args.from_sig:
            raise UserError("-j names the experiment: no overrides and no -f beside it.")
        return find_job(Path(main.dora.dir), args.job_id)
    experiment = main.experiment(_named(main, args.from_sig, args.argv))
    if not (experiment.exists() or experiment.argv() is not None):
        words = list(args.argv)
        if args.from_sig:
            words = ["-f", args.from_sig, *words]
        raise UserError(
            f"XP {experiment.sig} was never started.",
            f"start it: dora run {shlex.join(words)}".rstrip(),
        )
    return experiment


def _named(main: Experiments, sig: str | None, argv: list[str]) -> XP:
    """The experiment of `-f SIG`, of overrides, or of both."""
    if sig is not None and not argv:
        return main.get_xp_from_sig(sig)
    if sig:
        return main.get_xp(main.get_argv_from_sig(sig) + argv)
    return main.get_xp(argv)
