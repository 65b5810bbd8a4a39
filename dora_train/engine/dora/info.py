"""`dora info`: finds the experiment that the command names, and shows what was asked for.

Nothing is composed for `-f SIG` and `-j JOB`. Nothing changes, unless `-C` asks for it.
"""

import shlex
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..experiment.folder import Experiment
from ..experiments import Experiments
from ..grid.stop import cancel
from ..jobs.choose import asked
from ..jobs.executor import Executor
from ..watch.info import find_job, follow_experiment, lines, log_to_show, metrics_line
from ..watch.logs import print_log


def info(main: Experiments, args: Any, executor: Executor | None = None) -> int:
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
        print_log(log_to_show(experiment))
    elif args.tail:
        follow_experiment(experiment, executor)
    else:
        print("\n".join(lines(experiment, Path(main.dora.dir), executor)))
    return 0


def find(main: Experiments, args: Any) -> Experiment:
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
        raise UserError(
            f"XP {experiment.sig} was never started.",
            f"start it: dora run {shlex.join(words)}".rstrip(),
        )
    return experiment
