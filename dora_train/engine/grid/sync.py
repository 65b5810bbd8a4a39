"""`dora grid`: run the grid file, look at its experiments, plan, confirm, act, and show them.

`run_grid` has the parameters of Dora's function, so that notebooks written for Dora work. The
command may be killed at any point: the next one goes on from the files on disk.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dora.conf import SlurmConfig, SubmitRules
from dora.explore import Explorer
from dora.grid import RunGridArgs

from .. import output
from ..errors import UserError
from ..experiments import Experiments
from ..jobs.choose import chosen
from ..jobs.executor import Executor, nowhere
from ..jobs.resources import refuse_dev
from ..machine import without_collections
from ..upstream.dora import from_command_line
from ..watch import json_lines
from ..watch.info import overrides
from ..watch.status import look
from .apply import Applier
from .command import Command
from .grids import Wants, find_explorer
from .inventory import Inventory, collect
from .job_count import number_of_jobs
from .plan import Action, Verb
from .planning import check, plan, put_off
from .selection import at, show_one, shown_index
from .sheep import Sheep
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
        self.retried: set[str] = set()  # by --retry, once a search has a free slot for them
        self.is_stuck = False  # whether the last round of a search could submit nothing
        self.watching = Watching(
            command,
            self.applier.refill,
            self.applier.resume,
            self.next_round,
            lambda: bool(self.retried) and not self.is_stuck,
        )

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
        if command.rules.retry:
            self.retried = put_off(actions)
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
        planned = plan(self.command, inventory, self.retried)
        self.retried &= put_off(planned)
        actions = [self._left_to_heal(inventory, one) for one in planned]
        check(self.command, inventory, actions)
        outcomes = self.applier.apply(inventory, actions)
        self.is_stuck = not any(one.submitted or one.held for one in outcomes)
        report_refused(outcomes)
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
