"""What to do about each experiment of a grid: asks plan.py, and checks what it decides.

plan.py touches nothing. So what it must know is collected here: resources, drift, and the code of
today if a job may be replaced by it.
"""

from collections.abc import Collection, Sequence
from typing import Any

from dora.conf import SubmitRules

from ..experiment import claims
from ..experiment.records import State
from ..jobs.resources import parameters, stored
from .apply import updates_code
from .command import Command
from .inventory import Inventory
from .memory import more_for
from .plan import Action, Wanted, limited, make_plan
from .sheep import Sheep, located


def plan(command: Command, inventory: Inventory, retried: Collection[str] = ()) -> list[Action]:
    """What to do about each experiment of a grid.

    Args:
        retried: experiments that are submitted again if they have failed.

    Raises:
        UserError: no job can have the resources that an experiment asks for.
    """
    waits = any(now.code and now.status.state == State.WAITING for now in inventory.known.values())
    # To find the name of today's snapshot all files are read: only if a job may be replaced by it.
    code = command.main.todays_snapshot() if waits else ""
    search = command.search
    wanted = []
    for sheep in inventory.sheep:
        resources = _resources(inventory, sheep)
        drift = list(map(str, command.main.drift(sheep.xp, sheep.experiment)))
        more = ""
        if sheep.status.state == State.FAILED:
            more = more_for(sheep.experiment.job(), sheep.status, sheep.xp.values)
        is_trial = search is not None
        wanted.append(Wanted(sheep.xp.sig, resources, drift, code, is_trial, more))

    def planned(rules: SubmitRules) -> list[Action]:
        return make_plan(
            wanted,
            inventory.known,
            rules,
            claims.user_name(),
            inventory.leaving,
            command.args.cancel,
            command.clear,
            updates_code(),
        )

    actions = planned(command.rules)
    if retried:
        for at, action in enumerate(planned(SubmitRules(retry=True))):
            if action.sig in retried:
                actions[at] = action
    if search is not None:
        return limited(actions, inventory.known, search.at_once)
    return actions


def _resources(inventory: Inventory, sheep: Sheep) -> dict[str, Any]:
    """The resources of an experiment, as they are stored with a job.

    Only those of a job that waits or runs are compared. For others they are empty.

    Raises:
        UserError: no job can have them.
    """
    with located(sheep):
        slurm, shape = inventory.asked_by(sheep)
        parameters(slurm, shape)
        return stored(slurm, shape) if sheep.status.live else {}


def check(command: Command, inventory: Inventory, actions: Sequence[Action]) -> None:
    """Check each experiment that is about to be created, before anything is printed or done.

    Raises:
        UserError: one asks for something that does not exist.
    """
    by_sig = inventory.by_sig()
    for action in actions:
        if not action.verb.submits:
            continue
        sheep = by_sig[action.sig]
        with located(sheep):
            if action.anew:
                command.main.check_anew(sheep.xp)
            elif not sheep.experiment.exists():
                command.main.check(sheep.xp)


def put_off(actions: Sequence[Action]) -> set[str]:
    """The experiments that a search submits when a slot is free."""
    return {action.sig for action in actions if action.put_off}
