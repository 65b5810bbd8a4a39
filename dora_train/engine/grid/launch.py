"""`dora launch`: one experiment through the same plan and the same submission as a grid's."""

import sys
import time
from pathlib import Path
from typing import Any

from dora.conf import SubmitRules, update_from_args

from .. import claims
from ..clearing import other_owner
from ..errors import UserError
from ..store import ILL, Experiment, State
from . import submission
from .executor import Executor
from .info import cancel
from .logs import follow, log_of
from .places import chosen
from .plan import SIGNS, Action, Known, Verb, Wanted, make_plan
from .request import Request, code_before, kept
from .resources import Shape, parameters, stored
from .status import look
from .sync import nowhere, refuse_dev


def launch(main: Any, args: Any, executor: Executor | None = None) -> int:
    """Do what `dora launch` was asked for.

    Returns:
        The exit code: with a tail, 1 where the experiment did not reach its end.

    Raises:
        UserError: it cannot be submitted.
    """
    xp = main.get_xp(main.get_argv_from_sig(args.from_sig) + args.argv if args.from_sig else args.argv)
    experiment = main.experiment(xp)
    executor = executor or chosen(xp.values)
    if args.cancel:
        print(cancel(experiment, executor))
        return 0
    slurm, rules = main.get_slurm_config(), SubmitRules()
    update_from_args(slurm, args)
    update_from_args(rules, args)
    slurm = main.resources(xp, slurm)
    refuse_dev(slurm)
    if not executor.missing():
        submission.settle([experiment], executor)
    seen = experiment.job_number()
    job, status = experiment.job(), look([experiment], executor, force=True)[experiment.sig]
    shape = Shape.of(xp.values)
    parameters(slurm, shape)  # raises, if no job can have them
    wanted = Wanted(experiment.sig, stored(slurm, shape), [str(item) for item in main.drift(xp)])
    known = {experiment.sig: Known(status, job.resources if job else {}, owner=other_owner(experiment))}
    action = make_plan([wanted], known, rules, claims.user_name(), clear=args.clear)[0]
    if action.verb.submits:
        if executor.missing():
            raise UserError(*nowhere(executor))
        replaces = job.ids if job and action.stops else []
        _submit(main, xp, experiment, slurm, seen, replaces, action, executor)
    else:
        print(f"= {experiment.sig}  {main.get_name(xp)}   {action.reason}".rstrip())
        if action.wrong:
            return 1
    if (args.tail or args.attach) and look([experiment], executor)[experiment.sig].live:
        return _follow(experiment, executor, args)
    return 0


def _submit(main: Any, xp: Any, experiment: Experiment, slurm: Any, seen: int, replaces: list[str], action: Action,
            executor: Executor) -> None:
    """Raises: UserError if there is no job of ours afterwards."""
    if action.anew:
        main.check_anew(xp)
        main.code_for_jobs(xp)  # it may be refused
        submission.cancel([experiment] if action.stops else [], executor)
        submission.wait_until_over([experiment], executor)
        seen, replaces = 0, []
    main.create(xp, anew=action.anew)
    submission.fault("created")
    before = code_before(experiment, Path(main.dora.dir)) if action.verb == Verb.RESUME else None
    root, code = before or kept(main, experiment, main.code_for_jobs(xp))
    request = Request(experiment, slurm, Shape.of(xp.values), seen, Path(root), code,
                      main.excluded(xp, slurm), "", replaces)
    outcome = submission.submit([request], executor, Path(main.dora.dir))[0]
    if outcome.refused and action.anew:
        experiment.put_back()
    if not outcome.submitted:
        raise UserError(f"{experiment.sig}: {outcome.trouble}")
    reason = f"   {action.reason}" if action.reason else ""
    executor.move()
    job = f"job {outcome.job_id} {executor.where()}"
    print(f"{SIGNS[action.verb]} {experiment.sig}  {main.get_name(xp)}   {job}{reason}", flush=True)


def _follow(experiment: Experiment, executor: Executor, args: Any) -> int:
    """Its log until its end. Ctrl-C leaves the job running, with `--attach` it ends it."""
    show = (lambda: log_of(experiment, experiment.job())) if args.tail else (lambda: None)
    try:
        follow(show, lambda: not look([experiment], executor)[experiment.sig].live)
    except KeyboardInterrupt:
        if args.attach:
            print("\n" + cancel(experiment, executor), file=sys.stderr)
        else:
            print(f"\nXP {experiment.sig} goes on; watch it: dora info -f {experiment.sig} -t     "
                  f"stop it: dora info -f {experiment.sig} -C", file=sys.stderr)
        return 130
    time.sleep(0.1)
    status = look([experiment], executor)[experiment.sig]
    if status.state != State.COMPLETED:
        print(f"XP {experiment.sig}: {status.state}{': ' + status.cause if status.cause else ''}", file=sys.stderr)
    return int(status.state in ILL)
