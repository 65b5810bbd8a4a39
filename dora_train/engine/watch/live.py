"""Watching a grid until all of it is done: in place on a terminal, a line for each change in a
pipe.

The files of the experiments are read every few seconds; the scheduler is asked seldom. What the
scheduler had no room for goes in from here, and a search is told of each end, unless another
command is in charge of the grid by then: a monitor that is still open after the grid file was
edited does no harm.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rich.live import Live

from ..experiment.folder import Experiment
from ..experiment.records import ILL, Job
from ..jobs.executor import Executor
from ..shell import typed
from .board import Board, console, in_place
from .status import Status, look

REDRAW = 2.0  # seconds; more where reading the files takes long
# minutes: Dora's default of --interval, up to which the scheduler is asked as often as is polite
DORA_INTERVAL = 5.0
POLITE = 30.0  # seconds


class Watched(Protocol):
    """One experiment of a table."""

    experiment: Experiment
    status: Status  # as of the last look

    @property
    def job(self) -> Job | None: ...


class Table(Protocol):
    """What can be watched: see table.py, and the report's."""

    name: str

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def sheep(self) -> Sequence[Any]:
        """Each is `Watched`."""

    def rows(self, trim: int | None = None, trim_last: bool = False) -> Any: ...

    def draw(self, rows: Any, most: int | None = None) -> Board: ...


@dataclass(frozen=True)
class Charge:
    """What a monitor may do for its grid, and whether it still may."""

    holds: Callable[[], bool]
    refill: Callable[[Sequence[Any]], None]  # puts in what waits with us
    # of a search: asks for more; the table of all, and anew
    go_on: Callable[[], tuple[Table, "Charge"]] | None = None


class Monitor:
    """What `dora grid` shows after it has acted, and `python -m dora_train.report --watch` without
    acting.

    Args:
        moves: whether jobs that wait in this machine's queue are let start; False: nothing is ever
            touched.
    """

    def __init__(self, table: Table, executor: Executor | None, args: Any, moves: bool = True):
        self.table, self.executor, self.args, self.moves = table, executor, args, moves
        self.charge: Charge | None = None  # None: it only watches
        command = (
            f"{typed()} grid {{}}"
            if moves
            else f"{typed('python')} -m dora_train.report {{}} --watch"
        )
        self.again = command.format(table.name)
        self._asked = float("-inf")
        self._period = POLITE if args.interval <= DORA_INTERVAL else args.interval * 60

    def refresh(self) -> None:
        """Look at every experiment that may have changed, and ask the scheduler where it is
        time."""
        ask = time.monotonic() - self._asked >= self._period
        moving = [sheep for sheep in self.table.sheep if sheep.status.live] or self.table.sheep
        statuses = look([sheep.experiment for sheep in moving], self.executor, force=ask)
        for sheep in moving:
            sheep.status = statuses[sheep.experiment.sig]
        if ask:
            self._asked = time.monotonic()
            self._let_in()
        if not all(sheep.status.live for sheep in moving):
            self._go_on()

    def _let_in(self) -> None:
        """Start what waits and can."""
        charge = self._still_in_charge()
        held = [sheep for sheep in self.table.sheep if sheep.status.held]
        if held and charge is not None:
            charge.refill(held)
        if self.executor is not None and self.moves:
            self.executor.move()

    def _go_on(self) -> None:
        """An experiment has ended: a search asks for what is to follow."""
        charge = self._still_in_charge()
        if charge is not None and charge.go_on is not None:
            self.table, self.charge = charge.go_on()

    def _still_in_charge(self) -> Charge | None:
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
        """The table, once."""
        if self.args.jupyter:
            from IPython import display  # type: ignore[import-not-found]

            display.clear_output(wait=True)
        console().print(self.board())

    def run(self) -> None:
        """Until nothing waits or runs.

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
            go_on = (
                "1 experiment goes on; watch it"
                if live == 1
                else f"{live} experiments go on; watch them"
            )
            print(f"\n{go_on} again: {self.again}", file=sys.stderr)
            sys.exit(130)

    def _in_place(self) -> None:
        """As many lines as the screen has, so that it never scrolls; all of it at the end."""
        screen = console()
        with Live(self.board(screen.height), console=screen, auto_refresh=False) as live:
            self._until_done(lambda: live.update(self.board(screen.height), refresh=True))
        if len(self.table.sheep) > len(self.board(screen.height).chosen()):
            self.show()

    def _line_by_line(self) -> None:
        before = {sheep.experiment.sig: sheep.status for sheep in self.table.sheep}
        self._until_done(lambda: self._print_changes(before))
        if not self.args.silent:
            self.show()

    def _until_done(self, step: Callable[[], None]) -> None:
        while True:
            started = time.monotonic()
            step()
            if not any(self._is_worth_waiting(sheep) for sheep in self.table.sheep):
                return
            self.refresh()
            time.sleep(
                max(REDRAW, 10 * (time.monotonic() - started)) if self.args.interval else 0.1
            )

    def _is_worth_waiting(self, sheep: Watched) -> bool:
        """Of a job that nobody here can be asked about, nothing will ever be heard."""
        if not sheep.status.live or sheep.status.certain:
            return sheep.status.live
        return (
            self.executor is not None
            and sheep.job is not None
            and self.executor.answers_for(sheep.job)
        )

    def _print_changes(self, before: dict[str, Status]) -> None:
        """`14:02:31  77c01b9e  running on node7, job 8812   lr=0.3`."""
        for sheep, name in zip(self.table.sheep, self.table.names, strict=True):
            sig = sheep.experiment.sig
            old, new = before.get(sig), sheep.status
            if (
                old is None or (old.state, old.cause) != (new.state, new.cause)
            ) and not self.args.silent:
                print(f"{time.strftime('%H:%M:%S')}  {sig}  {_news(new)}   {name}", flush=True)
            before[sig] = new


def _news(status: Status) -> str:
    """`running on node7, job 8812`, `interrupted by SIGTERM`."""
    if not (status.live and status.where):
        return status.why
    return f"{status.state} on {status.where}" + (f": {status.cause}" if status.cause else "")


def exit_code(sheep: Sequence[Watched]) -> int:
    """0: all is well, or on its way; 1: something failed."""
    return int(any(one.status.state in ILL for one in sheep))
