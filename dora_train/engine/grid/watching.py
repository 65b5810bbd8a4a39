"""What `dora grid` shows after it has acted: the table, once or until all experiments are over.

Until then, experiments that were held are submitted, interrupted ones are submitted again, and the
next trials of a search follow.
"""

import sys
from collections.abc import Callable, Sequence

from ..experiment.folder import Experiment
from ..experiment.records import State
from ..shell import typed
from ..watch.board import heading
from ..watch.live import Charge, Monitor, exit_code
from ..watch.status import Status, look
from ..watch.usage import total, used_by
from .channels import channels
from .command import Command
from .healing import Healing
from .inventory import Inventory, update
from .open_ended import Growing
from .plan import Action
from .request import Outcome
from .selection import at
from .settlement import settle
from .sheep import Sheep
from .table import GridTable
from .telling import Messages, Telling

MOST_OF_A_PLAN = 1000  # experiments in the table of a dry run


class Watching:
    """Shows the experiments of a grid.

    Args:
        refill: submits experiments that were held.
        resume: submits experiments that were interrupted.
        next_round: submits the next trials of a search, and returns all trials.
        has_more: whether trials of a search wait for a free slot.
    """

    def __init__(
        self,
        command: Command,
        refill: Callable[[Inventory, Sequence[Sheep]], None],
        resume: Callable[[Inventory, Sequence[Sheep]], Sequence[Outcome]],
        next_round: Callable[[], Inventory],
        has_more: Callable[[], bool],
    ):
        self.command, self.refill, self.resume = command, refill, resume
        self.next_round, self.has_more = next_round, has_more
        self.healing = Healing(command.grid, command.args.silent)
        messages = Messages(command.grid, command.wants.folder)
        self.telling = Telling(messages, command.search is not None)

    def show(self, inventory: Inventory) -> None:
        """Print the table as it is now."""
        if inventory.sheep and not self.command.args.silent:
            self._monitor(inventory).show()

    def show_plan(self, inventory: Inventory) -> None:
        """Print the table as it is now. Of many experiments, say how to see it.

        To draw the table of thousands takes longer than to plan them.
        """
        args = self.command.args
        if len(inventory.sheep) <= MOST_OF_A_PLAN:
            self.show(inventory)
        elif not args.silent:
            grid = self.command.grid
            print(heading(grid, [one.status for one in inventory.sheep]))
            print(f"  the table of all of them: {typed('python')} -m dora_train.report {grid}")

    def watch(
        self, inventory: Inventory, actions: Sequence[Action], outcomes: Sequence[Outcome]
    ) -> int:
        """Report what came of the submissions, and show the table, if asked for until the end.

        Returns:
            The exit code: 1 if an experiment failed or something was refused.
        """
        command, args = self.command, self.command.args
        report_refused(outcomes)
        held = sum(outcome.held for outcome in outcomes)
        if held and not args.silent:
            print(
                f"{held} queued by us: the scheduler takes no more at the moment. They go in as there is room, while "
                f"`dora grid {command.grid}` is open, or at its next call."
            )
        update(inventory, command)
        if not inventory.sheep:
            if not args.silent:
                print("no experiment to show.")
            return 0
        monitor = self._monitor(inventory)
        monitor.charge = self._charge(inventory)
        if not args.patterns:
            submitted = any(outcome.submitted or outcome.held for outcome in outcomes)
            statuses = statuses_of(inventory.sheep)
            self.telling.begin(notify_of(inventory.sheep), statuses, submitted)
        if args.monitor:
            monitor.run()
            self._say_used(monitor.table.sheep)
        elif not args.silent:
            monitor.show()
        self._tell(monitor.table.sheep)
        if any(action.refused for action in actions) or any(one.refused for one in outcomes):
            return 1
        return _exit_code(monitor.table.sheep, command.search)

    def _say_used(self, sheep: Sequence[Sheep]) -> None:
        """Print one line: what the grid has used."""
        used = total(used_by(one.experiment, one.status.live) for one in sheep)
        if used.wall and not self.command.args.silent:
            print(f"used: {used}")

    def _monitor(self, inventory: Inventory) -> Monitor:
        args = self.command.args
        if args.trim is not None:
            at(self.command.grid, inventory.sheep, args.trim)  # refuses a wrong index
        return Monitor(self._table(inventory), inventory.executor, args)

    def _table(self, inventory: Inventory) -> GridTable:
        command = self.command
        note = command.search.note() if command.search is not None else ""
        return GridTable(command.grid, command.explorer, command.main, inventory.sheep, note)

    def _charge(self, inventory: Inventory) -> Charge:
        """What the monitor may do for this grid."""
        grows = self.command.search is not None and not self.command.args.patterns
        return Charge(
            self.command.wants.in_charge,
            refill=lambda held: self.refill(inventory, held),
            settle=lambda unsure: settle([one.experiment for one in unsure], inventory.executor),
            heal=lambda sheep: self.healing.heal(
                sheep, inventory.executor, lambda due: self.resume(inventory, due)
            ),
            tell=self._tell,
            go_on=self._go_on if grows else None,
            missed=self._missed,
        )

    def _tell(self, sheep: Sequence[Sheep]) -> None:
        # Patterns select a part of the grid, whose end is not the end of the grid.
        if self.command.args.patterns or not self.command.wants.in_charge():
            return
        pending = self.healing.pending()
        healing = [one.experiment for one in sheep if one.xp.sig in pending]
        self.telling.look(statuses_of(sheep), healing)

    def _missed(self, sheep: Sequence[Sheep]) -> bool:
        """Whether a search has not seen the end of a trial, or has a free slot for one.

        The next look lets it go on.
        """
        search = self.command.search
        if search is None or self.command.args.patterns:
            return False
        statuses = {one.xp.sig: one.status for one in sheep}
        live = sum(status.live for status in statuses.values())
        return search.has_missed(statuses) or (self.has_more() and live < search.at_once)

    def _go_on(self) -> tuple[GridTable, Charge]:
        """Submit the next trials of a search, because one has ended, and show all from here on."""
        inventory = self.next_round()
        # Only the trials that were submitted just now are looked at. Another one may have ended
        # since the monitor's last look. If we saw that here, the monitor would not see a change,
        # and the search would not be told.
        begun = [sheep for sheep in inventory.sheep if not sheep.status.live]
        experiments = [sheep.experiment for sheep in begun]
        statuses = look(experiments, inventory.executor, force=True)
        for sheep in begun:
            sheep.status = statuses[sheep.xp.sig]
        return self._table(inventory), self._charge(inventory)


def notify_of(sheep: Sequence[Sheep]) -> list[str]:
    """Where the messages of a grid go: the channels of all its experiments, each once."""
    found: list[str] = []
    for one in sheep:
        found += channels(one.xp.values.get("notify"))
    return list(dict.fromkeys(found))


def statuses_of(sheep: Sequence[Sheep]) -> dict[Experiment, Status]:
    return {one.experiment: one.status for one in sheep}


def report_refused(outcomes: Sequence[Outcome]) -> None:
    """Print why experiments could not be submitted."""
    for outcome in outcomes:
        if not outcome.submitted and not outcome.held:
            print(f"{outcome.experiment.sig}: {outcome.trouble}", file=sys.stderr)


def _exit_code(sheep: Sequence[Sheep], search: Growing | None) -> int:
    """1 if an experiment failed. In a search a failed trial is a valid answer.

    The code of a search is 1 only if all of its first trials failed.
    """
    if search is None:
        return exit_code(sheep)
    if search.has_given_up():
        return 1
    return exit_code([one for one in sheep if one.status.state != State.FAILED])
