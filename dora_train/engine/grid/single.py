"""Submitting experiments that no grid names, with the same plan and submission as those of a grid.

`dora launch` (launch.py) submits one, Dora's Shepherd in a notebook (shepherd.py) several.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
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
from .cancellation import cancel, is_member, wait_until_over
from .faults import fault
from .packs import Jobs, arrays_of
from .plan import Action, Known, Verb, Wanted, make_plan
from .request import Outcome, Request, code_before, kept
from .settlement import settle


@dataclass(frozen=True)
class Wish:
    """An experiment to submit, if the rules ask for a job."""

    xp: XP
    slurm: SlurmConfig  # as main.resources returns it
    rules: SubmitRules
    clear: bool = False  # start from scratch


@dataclass(frozen=True)
class Decision:
    """What is done about a wish, decided from what was known at one moment."""

    wish: Wish
    action: Action
    seen: int  # the number of submissions at that moment
    job_ids: Sequence[str]  # of the last job


def decide(main: Experiments, wish: Wish, executor: Executor) -> Decision:
    """Look at an experiment, and plan what to do about it.

    Raises:
        UserError: no job can have these resources.
    """
    experiment, shape = main.experiment(wish.xp), Shape.of(wish.xp.values)
    parameters(wish.slurm, shape)
    if not executor.missing():
        settle([experiment], executor)
    # The number comes before the look. If another command submits in between, the number that we
    # would use is taken, and our intent fails.
    seen, job = experiment.job_number(), experiment.job()
    status = look([experiment], executor, force=True)[experiment.sig]
    drift = list(map(str, main.drift(wish.xp)))
    wanted = Wanted(experiment.sig, stored(wish.slurm, shape), drift)
    known, job_ids = Known(status, owner=other_owner(experiment)), []
    if job is not None:
        known, job_ids = replace(known, resources=job.resources), job.ids
    [action] = make_plan(
        [wanted], {experiment.sig: known}, wish.rules, claims.user_name(), clear=wish.clear
    )
    return Decision(wish, action, seen, job_ids)


def request(main: Experiments, decision: Decision, executor: Executor) -> Request:
    """Create the experiment, and return the request to submit it.

    Raises:
        UserError: it cannot be created. Nothing has changed then.
    """
    xp, slurm, action = decision.wish.xp, decision.wish.slurm, decision.action
    experiment = main.experiment(xp)
    seen = decision.seen
    replaces: Sequence[str] = ()
    if action.anew:
        main.check_anew(xp)
        main.code_for_jobs(xp)  # if it is refused, nothing has been cancelled yet
        if action.stops:
            cancel([experiment], executor)
        wait_until_over([experiment], executor)
        seen = 0
    elif action.stops and is_member(experiment):
        # A new job cannot wait for a member of a job: the scheduler knows the whole job only.
        cancel([experiment], executor)
        wait_until_over([experiment], executor)
    elif action.stops:
        replaces = decision.job_ids
    main.create(xp, anew=action.anew)
    fault("created")
    job_code = None
    if action.verb == Verb.RESUME:
        job_code = code_before(experiment, Path(main.dora.dir))
    if job_code is None:
        main.todays_code.refuse_other(xp.values)
        job_code = kept(main, experiment, main.code_for_jobs(xp))
    root, code = job_code
    return Request(
        experiment,
        slurm,
        Shape.of(xp.values),
        seen,
        root,
        code,
        main.excluded(xp, slurm),
        replaces=replaces,
    )


def submit(
    main: Experiments, batches: Sequence[Sequence[Decision]], executor: Executor
) -> list[Outcome]:
    """Submit what was decided. The experiments of a batch that are alike become one array.

    Raises:
        UserError: an experiment cannot be created, or nothing can be submitted from here.
    """
    decisions = list(chain.from_iterable(batches))
    if executor.missing() and any(one.action.verb.submits for one in decisions):
        raise UserError(*nowhere(executor))
    groups: list[Jobs[Request]] = []
    for batch in batches:
        requests = []
        for one in batch:
            if one.action.verb.submits:
                requests.append(request(main, one, executor))
        groups += arrays_of(requests)
    outcomes = submission.submit_all(groups, executor, Path(main.dora.dir))
    anew = [one.wish.xp.sig for one in decisions if one.action.anew]
    executor.move()
    return submission.put_back(outcomes, anew)
