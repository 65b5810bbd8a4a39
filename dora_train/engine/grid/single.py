"""Experiments that no grid names, through the same plan and the same submission as a grid's.

`dora launch` (launch.py) has one, Dora's Shepherd in a notebook (shepherd.py) has several.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dora.conf import SlurmConfig, SubmitRules

from ..errors import UserError
from ..experiment import claims
from ..experiment.clearing import other_owner
from ..experiment.xp import XP
from ..experiments import Experiments
from ..jobs.executor import Executor, nowhere
from ..jobs.resources import Shape, parameters, stored
from ..watch.status import look
from . import submission
from .plan import Action, Known, Verb, Wanted, make_plan
from .request import Outcome, Request, alike, code_before, kept


@dataclass(frozen=True)
class Wish:
    """An experiment to submit, unless it is not needed.

    Args:
        slurm: as `main.resources` gives it.
        clear: begin anew.
    """

    xp: XP
    slurm: SlurmConfig
    rules: SubmitRules
    clear: bool = False


@dataclass(frozen=True)
class Decision:
    """What is done about a wish, by what was known at that moment."""

    wish: Wish
    action: Action
    seen: int  # the number of its submissions
    job_ids: Sequence[str]  # of its last job


def decide(main: Experiments, wish: Wish, executor: Executor) -> Decision:
    """Look at the experiment, and plan.

    Raises:
        UserError: no job can have these resources.
    """
    experiment, shape = main.experiment(wish.xp), Shape.of(wish.xp.values)
    parameters(wish.slurm, shape)
    if not executor.missing():
        submission.settle([experiment], executor)
    seen, job = experiment.job_number(), experiment.job()
    status = look([experiment], executor, force=True)[experiment.sig]
    drift = [str(item) for item in main.drift(wish.xp)]
    wanted = Wanted(experiment.sig, stored(wish.slurm, shape), drift)
    owner = other_owner(experiment)
    known = {experiment.sig: Known(status, job.resources if job else {}, owner=owner)}
    action = make_plan([wanted], known, wish.rules, claims.user_name(), clear=wish.clear)[0]
    return Decision(wish, action, seen, job.ids if job else [])


def request(main: Experiments, decision: Decision, executor: Executor) -> Request:
    """Make the experiment, and what is asked of its submission.

    Raises:
        UserError: it cannot be made; then nothing has changed.
    """
    xp, slurm, action = decision.wish.xp, decision.wish.slurm, decision.action
    experiment = main.experiment(xp)
    seen, replaces = decision.seen, decision.job_ids if action.stops else []
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
    return Request(
        experiment,
        slurm,
        Shape.of(xp.values),
        seen,
        Path(root),
        code,
        main.excluded(xp, slurm),
        "",
        replaces,
    )


def submit(
    main: Experiments, batches: Sequence[Sequence[Decision]], executor: Executor
) -> list[Outcome]:
    """Do what was decided. The experiments of a batch that ask for the same are one array.

    Raises:
        UserError: an experiment cannot be made, or nothing can be submitted from here.
    """
    if executor.missing() and any(one.action.verb.submits for batch in batches for one in batch):
        raise UserError(*nowhere(executor))
    groups: list[list[Request]] = []
    for batch in batches:
        asked = [request(main, one, executor) for one in batch if one.action.verb.submits]
        groups += alike(asked)
    outcomes = submission.submit_all(groups, executor, Path(main.dora.dir))
    anew = [one.wish.xp.sig for batch in batches for one in batch if one.action.anew]
    executor.move()
    return submission.put_back(outcomes, anew)
