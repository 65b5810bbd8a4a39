"""Counts the jobs that a plan submits if experiments share jobs (`job.pack`). sync.py prints it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..jobs.packing import Packing
from .apply import runs_code_before
from .inventory import Inventory
from .packs import jobs_of
from .plan import Action
from .request import kind_of


@dataclass(frozen=True)
class Planned:
    """An experiment that a plan submits: see `packs.Packable`."""

    kind: str
    packing: Packing


def number_of_jobs(inventory: Inventory, actions: Sequence[Action]) -> int | None:
    """The number of jobs that a plan submits. None if no experiment may share a job."""
    sheep, planned = inventory.by_sig(), {}
    for action in actions:
        if not action.verb.submits:
            continue
        one, code = sheep[action.sig], ""
        # Experiments with different code cannot share a job.
        if runs_code_before(one, action):
            code = inventory.known[action.sig].code
        kind = kind_of(*inventory.asked_by(one))
        planned[action.sig] = Planned(f"{code}\0{kind}", inventory.packing_of(one))
    if all(one.packing.size == 1 for one in planned.values()):
        return None
    return sum(map(len, jobs_of(inventory.herd.job_arrays, planned)))
