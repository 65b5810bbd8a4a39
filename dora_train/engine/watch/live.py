"""Watching a grid until all of it is done: in place on a terminal, a line for each change in a
pipe.

The files of the experiments are read every few seconds. The scheduler is asked seldom. Jobs that
were held back are submitted from here as slots free up, interrupted ones are submitted again
(grid/healing.py), and a search is told of each end. If
another command has taken charge of the grid, this one only watches. So an old monitor does no harm
after the grid file was edited.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from rich.live import Live

from ..experiment.folder import Experiment
from ..experiment.records import ILL, Job, State
from ..jobs.executor import Executor
from ..shell import typed
from .board import Board, console, in_place
from .status import Status, look

REDRAW = 1.0  # seconds between two drawings, at the least
DORA_INTERVAL = 5.0  # minutes: Dora's default of --interval
# Seconds between two questions to the scheduler, for intervals up to Dora's default. Any more often
# would be a burden to a cluster.
POLITE = 30.0

Row = TypeVar("Row")


class Watched(Protocol):
    """One experiment of a table."""

    experiment: Experiment
    status: Status  # as of the last look

    @property
    def job(self) -> Job | None: ...


class Table(Protocol[Row]):
    """What can be watched: see grid/table.py, and report/watch.py."""

    name: str

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def sheep(self) -> Sequence[Any]:
        """Each is `Watched`, and what else its grid needs."""

    def rows(self, trim: int | None = None, trim_last: bool = False) -> Sequence[Row]: ...

    def draw(self, rows: Sequence[Row], most: int | None = None) -> Board: ...


class Options(Protocol):
    """The options of a command that a monitor heeds, as in `dora.grid.RunGridArgs`."""

    interval: float  # minutes between two questions to the scheduler
    trim: int | None
    trim_last: bool
    silent: bool
    jupyter: bool


@dataclass(frozen=True)
class Charge:
    """What a monitor may do for its grid, and whether it still may."""

    holds: Callable[[], bool]
    refill: Callable[[Sequence[Any]], None]  # submits jobs that were held back
    # submits interrupted experiments again; tells whether one waits for that
    heal: Callable[[Sequence[Any]], bool] = lambda sheep: False
    # finds out what became of submissions that the scheduler did not answer
    settle: Callable[[Sequence[Any]], None] = lambda sheep: None
    # sends a message if the grid has ended, or needs a person
    tell: Callable[[Sequence[Any]], None] = lambda sheep: None
    # for a search: asks for more trials; gives the table of all of them, and a new charge
    go_on: Callable[[], tuple[Table, "Charge"]] | None = None
    # for a search: whether a trial has ended since the search looked
    missed: Callable[[Sequence[Any]], bool] = lambda sheep: False


class Monitor:
    """What `dora grid` shows after it has acted, and what `python -m dora_train.report --watch`
    shows without acting.

    Args:
        moves: whether to start jobs that wait in this machine's queue. If not, nothing is touched.
    """

    def __init__(
        self,
        table: Table,
        executor: Executor | None,
        args: Options | SimpleNamespace,
        moves: bool = True,
    ):
        self.table, self.executor, self.args, self.moves = table, executor, args, moves
        self.charge: Charge | None = None  # None: it only watches
        # the command that shows the same again
        self.again = f"{typed()} grid {table.name}"
        self._asked = float("-inf")
        self._took = 0.0  # seconds of the last look and its drawing
        self._heals = False  # an interrupted experiment will be submitted again from here
        self._period = POLITE
        if args.interval > DORA_INTERVAL:
            self._period = args.interval * 60

    def refresh(self) -> None:
        """Look at every experiment that may have changed, and ask the scheduler if it is time."""
        ask = time.monotonic() - self._asked >= self._period
        live = [sheep for sheep in self.table.sheep if sheep.status.live]
        moving = live or self.table.sheep
        statuses = look([sheep.experiment for sheep in moving], self.executor, force=ask)
        for sheep in moving:
            sheep.status = statuses[sheep.experiment.sig]
        if ask:
            self._asked = time.monotonic()
            self._start_waiting()
        # While nothing is live but something is to be submitted again, there is no end to tell of.
        has_ended = not all(sheep.status.live for sheep in moving) and (live or not self._heals)
        if has_ended or self._has_missed():
            self._go_on()
        charge = self._still_in_charge()
        self._heals = charge is not None and charge.heal(self.table.sheep)
        if charge is not None:
            charge.tell(self.table.sheep)

    def _start_waiting(self) -> None:
        """Submit jobs that were held back, and start those of this machine's queue."""
        charge = self._still_in_charge()
        held, unsure = [], []
        for sheep in self.table.sheep:
            if sheep.status.held:
                held.append(sheep)
            elif sheep.status.state == State.WAITING and not sheep.status.certain:
                unsure.append(sheep)
        if unsure and charge is not None:
            charge.settle(unsure)
        if held and charge is not None:
            charge.refill(held)
        if self.executor is not None and self.moves:
            self.executor.move()

    def _go_on(self) -> None:
        """Ask a search for its next trials, after an experiment has ended."""
        charge = self._still_in_charge()
        if charge is not None and charge.go_on is not None:
            self.table, self.charge = charge.go_on()

    def _has_missed(self) -> bool:
        """Whether a search must go on, although no end was seen here."""
        return self.charge is not None and self.charge.missed(self.table.sheep)

    def _still_in_charge(self) -> Charge | None:
        """The charge, unless another command has taken it over."""
        if self.charge is not None and not self.charge.holds():
            print(
                f"another command brought {self.table.name} in line since: this one only watches.",
                file=sys.stderr,
            )
            self.charge = None
        return self.charge

    def board(self, most: int | None = None) -> Board:
        return self.table.draw(self.table.rows(self.args.trim, self.args.trim_last), most)

    def show(self) -> None:
        """Print the table once."""
        if self.args.jupyter:
            from IPython import display  # type: ignore[import-not-found]

            display.clear_output(wait=True)
        console().print(self.board())

    def run(self) -> None:
        """Watch until nothing waits or runs.

        Raises:
            SystemExit: 130, on Ctrl-C. The jobs go on.
        """
        try:
            if in_place(console()) and not self.args.silent and not self.args.jupyter:
                self._in_place()
            else:
                self._line_by_line()
        except KeyboardInterrupt:
            live = sum(sheep.status.live for sheep in self.table.sheep)
            go_on = f"{live} experiments go on; watch them"
            if live == 1:
                go_on = "1 experiment goes on; watch it"
            print(f"\n{go_on} again: {self.again}", file=sys.stderr)
            sys.exit(130)

    def _in_place(self) -> None:
        """Draw at most as many lines as the screen has, so that it never scrolls.

        At the end the whole table is printed.
        """
        screen = console()
        with Live(self.board(screen.height), console=screen, auto_refresh=False) as live:
            self._until_done(lambda: live.update(self.board(screen.height), refresh=True))
        # rows were left out for want of room
        if len(self.table.sheep) > len(self.board(screen.height).chosen(screen.width)):
            self.show()

    def _line_by_line(self) -> None:
        """Print a line for each change, and the whole table at the end."""
        before = {sheep.experiment.sig: sheep.status for sheep in self.table.sheep}
        self._until_done(lambda: self._print_changes(before))
        if not self.args.silent:
            self.show()

    def _until_done(self, draw: Callable[[], None]) -> None:
        draw()
        while self._goes_on():
            pause = 0.1
            if self.args.interval:
                # reading many files takes long: then it is done less often
                pause = max(REDRAW, 10 * self._took)
            time.sleep(pause)
            started = time.monotonic()
            self.refresh()
            draw()
            self._took = time.monotonic() - started

    def _goes_on(self) -> bool:
        if self._heals or self._has_missed():
            return True
        return any(map(self._is_worth_waiting, self.table.sheep))

    def _is_worth_waiting(self, sheep: Watched) -> bool:
        """Whether the end of an experiment will be seen from here, and is yet to come."""
        if not sheep.status.live or sheep.status.certain:
            return sheep.status.live
        if self.executor is None or sheep.job is None:
            return False
        return self.executor.answers_for(sheep.job)

    def _print_changes(self, before: dict[str, Status]) -> None:
        """Print `14:02:31  77c01b9e  running on node7, job 8812   lr=0.3` for each change.

        Args:
            before: the last status of each experiment, which is brought up to date.
        """
        for sheep, name in zip(self.table.sheep, self.table.names, strict=True):
            sig = sheep.experiment.sig
            old, new = before.get(sig), sheep.status
            changed = old is None or (old.state, old.cause) != (new.state, new.cause)
            if changed and not self.args.silent:
                print(f"{time.strftime('%H:%M:%S')}  {sig}  {_news(new)}   {name}", flush=True)
            before[sig] = new


def _news(status: Status) -> str:
    """`running on node7, job 8812`, `interrupted by SIGTERM`."""
    if not (status.live and status.where):
        return status.why
    news = f"{status.state} on {status.where}"
    if status.cause:
        news += f": {status.cause}"
    return news


def exit_code(sheep: Sequence[Watched]) -> int:
    """1 if an experiment failed, timed out, was interrupted or was cancelled, else 0."""
    return int(any(one.status.state in ILL for one in sheep))
