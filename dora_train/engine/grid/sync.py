"""`dora grid`: run the grid file, look at its experiments, plan, confirm, act, and show them.

`run_grid` has the parameters of Dora's function, so that notebooks written for Dora work. The
command may be killed at any point: the next one goes on from the files on disk.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dora.conf import SlurmConfig, SubmitRules
from dora.explore import Explorer
from dora.grid import RunGridArgs

from .. import output
from ..errors import UserError
from ..experiment import claims
from ..experiment.records import State
from ..experiments import Experiments
from ..jobs.choose import chosen
from ..jobs.executor import Executor, nowhere
from ..jobs.resources import parameters, refuse_dev, stored
from ..machine import without_collections
from ..upstream.dora import from_command_line
from ..watch import json_lines
from ..watch.info import overrides
from ..watch.status import look
from .apply import Applier, updates_code
from .command import Command
from .grids import Wants, find_explorer
from .inventory import Inventory, collect
from .job_count import number_of_jobs
from .memory import more_for
from .plan import Action, Verb, Wanted, limited, make_plan
from .selection import at, show_one, shown_index
from .sheep import Sheep, located
from .show import confirm, print_plan
from .summary import is_alarming, stopped
from .watching import Watching, report_refused

__all__ = ["find_explorer", "run_grid"]


def run_grid(
    main: Experiments,
    explorer: Explorer,
    grid_name: str,
    rules: SubmitRules = SubmitRules(),  # noqa: B008 (Dora's)
    slurm: SlurmConfig | None = None,
    args: RunGridArgs = RunGridArgs(),  # noqa: B008
) -> list[Sheep]:
    """Bring the experiments of a grid in line with its file, and show them.

    This is the function behind `dora grid`.

    Args:
        main: the project's `main`, decorated with `hydra_main`.
        grid_name: a unique name for the grid. Its folder below `outputs/grids` gets this name.
        rules: which experiments are submitted again.
        slurm: resources that are used instead of those of the configuration.
        args: see `dora.grid.RunGridArgs`.

    Returns:
        The sheep that the patterns select.

    Raises:
        UserError: the user asks for something that is not possible.
        SystemExit: something failed. Only the command line raises it.
    """
    if "/" in grid_name or grid_name in ("", ".", ".."):
        raise UserError(
            f'grid_name="{grid_name}": it names a folder, so it is not empty and holds no "/".'
        )
    slurm = slurm or main.get_slurm_config()
    wants = Wants(Path(main.dora.dir), grid_name)
    command = Command(main, explorer, grid_name, rules, slurm, args, wants, args.clear)
    sync = Sync(command)
    try:
        sheep, code = sync.run()
    finally:
        sync.say_json()
    if code and from_command_line(args):
        sys.exit(code)
    return sheep


class Sync:
    """One call of `dora grid`.

    Attributes:
        executor: where the jobs of the grid go. It is the configuration's until the grid file has
            run.
    """

    def __init__(self, command: Command):
        self.command = command
        self.executor: Executor = chosen(command.main.composer.compose([]).values)
        self.applier = Applier(command)
        self.inventory: Inventory | None = None
        self.actions: Sequence[Action] = ()
        self.watching = Watching(command, self.applier.refill, self.applier.resume, self.next_round)

    def run(self) -> tuple[list[Sheep], int]:
        """Do what the command asks for.

        Returns:
            (the sheep, the exit code)

        Raises:
            UserError: the user asks for something that is not possible.
        """
        command, args = self.command, self.command.args
        refuse_dev(command.slurm)
        with without_collections():
            inventory = self._collect()
        index = shown_index(args)
        if index is not None:
            show_one(at(command.grid, inventory.sheep, index), args, self.executor)
            return inventory.sheep, 0
        with without_collections():
            actions = plan(command, inventory)
        check(command, inventory, actions)
        self.inventory, self.actions = inventory, actions
        missing = self._missing()
        needs_executor = any(action.verb.submits or action.stops for action in actions)
        blocked = bool(missing) and needs_executor
        if not args.silent and (args.dry_run or not blocked):
            submitted = [action.sig for action in actions if action.verb.submits]
            gpus = {inventory.slurm[sig].gpus for sig in submitted}
            where = "" if missing else self.executor.where(gpus)
            jobs = number_of_jobs(inventory, actions)
            print_plan(command.grid, actions, _names(command, inventory), where, jobs)
        if args.dry_run:
            self.watching.show_plan(inventory)
            return inventory.sheep, 0
        if args.init:  # Dora's flag: the experiments are created, also if none can be submitted
            for sheep in inventory.sheep:
                command.main.create(sheep.xp)
        if blocked:
            if not args.monitor:
                self.watching.show(inventory)
            raise UserError(*nowhere(self.executor))
        if from_command_line(args):  # a notebook is not asked
            _confirm(command, inventory, actions)
        outcomes = self.applier.apply(inventory, actions)
        if args.cancel:
            return inventory.sheep, 0
        if command.search is None:
            return inventory.sheep, self.watching.watch(inventory, actions, outcomes)
        with self.executor.more_to_come():
            return inventory.sheep, self.watching.watch(inventory, actions, outcomes)

    def say_json(self) -> None:
        """Print a line of JSON for each experiment of the plan, if the user asked for it."""
        if self.inventory is None or not output.says_json():
            return
        experiments = self.inventory.experiments
        statuses = look(experiments.values(), self.executor, force=True)
        for action in self.actions:
            json_lines.say(
                "grid",
                experiments[action.sig],
                statuses[action.sig],
                grid=self.command.grid,
                action=action.verb.value,
                reason=action.reason or None,
                other_code=action.other_code,
            )

    def next_round(self) -> Inventory:
        """Submit the experiments of a search that follow one that has ended.

        Returns:
            All experiments of the search.
        """
        self.command = replace(self.command, rules=SubmitRules(), clear=False)
        inventory = self._collect()
        actions = [self._left_to_heal(inventory, one) for one in plan(self.command, inventory)]
        check(self.command, inventory, actions)
        report_refused(self.applier.apply(inventory, actions))
        return inventory

    def _left_to_heal(self, inventory: Inventory, action: Action) -> Action:
        """The action, but an interrupted trial waits for its time (healing.py)."""
        status = inventory.known[action.sig].status if action.sig in inventory.known else None
        if action.verb != Verb.RESUME or status is None:
            return action
        if self.watching.healing.minds(inventory.experiments[action.sig], status):
            return replace(action, verb=Verb.KEEP)
        return action

    def _collect(self) -> Inventory:
        inventory = collect(self.command, self.executor)
        self.executor = inventory.executor
        return inventory

    def _missing(self) -> str:
        """Why nothing can be submitted. Empty: something can."""
        # The local queue makes its folder to find out. A dry run leaves no trace.
        if self.command.args.dry_run and self.executor.name == "local":
            return ""
        return self.executor.missing()


def plan(command: Command, inventory: Inventory) -> list[Action]:
    """What to do about each experiment of a grid.

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
    actions = make_plan(
        wanted,
        inventory.known,
        command.rules,
        claims.user_name(),
        inventory.leaving,
        command.args.cancel,
        command.clear,
        updates_code(),
    )
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


def _names(command: Command, inventory: Inventory) -> Mapping[str, str]:
    """The names that the plan prints, by signature."""
    names = {}
    if inventory.sheep:
        found, _ = command.main.get_names([sheep.xp for sheep in inventory.sheep])
        for sheep, name in zip(inventory.sheep, found, strict=True):
            names[sheep.xp.sig] = name
    for sig in inventory.leaving:
        experiment = inventory.experiments[sig]
        names[sig] = overrides(experiment, experiment.birth())
    return names


def _confirm(command: Command, inventory: Inventory, actions: Sequence[Action]) -> None:
    """Ask before running work ends or results are removed.

    Raises:
        UserError: the answer is no.
    """
    alarm = ""
    if not command.args.cancel:
        alarm = is_alarming(actions, inventory.known)
    restarts = [action for action in actions if action.anew]
    lost = sum(experiment.exists() for experiment in inventory.experiments_of(restarts))
    confirm(command.grid, len(stopped(actions)), lost, alarm, command.args.clear)
