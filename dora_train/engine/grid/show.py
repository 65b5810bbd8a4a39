"""A plan as it is printed, and the question before running work ends or results go.

`sync.py` calls both.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from ..errors import UserError
from ..shell import typed
from .plan import SIGNS, Action, noteworthy, summary


def print_plan(grid: str, actions: Sequence[Action], names: Mapping[str, str], where: str) -> None:
    """Its sum and where it goes, then a line for each experiment that something is done about.

    Args:
        names: of the experiments, by signature.
    """
    print(f"{grid}: {summary(actions)}   {where}".rstrip())
    width = max((len(names.get(action.sig, "")) for action in noteworthy(actions)), default=0)
    for action in noteworthy(actions):
        name = names.get(action.sig, "")
        print(f"  {SIGNS[action.verb]} {action.sig}  {name:<{width}}  {action.reason}".rstrip())
    older = sum(action.older for action in actions)
    if older:
        print(f"  {older} that wait run older code; today's: DORA_UPDATE=1 {typed()} grid {grid}")
    unknown = sum(action.out_of_reach for action in actions)
    if unknown:
        print(
            f"  {unknown} cannot be asked about from here; "
            f"if you know that they are gone: DORA_TAKE=1 {typed()} grid {grid}"
        )
    sys.stdout.flush()


def confirm(grid: str, stops: int, lost: int, alarm: str, clear: bool) -> None:
    """Ask, on a terminal, once.

    Args:
        stops: experiments that wait or run, and would be cancelled.
        lost: experiments whose results would be removed.
        alarm: why the plan looks like a mistake; empty: it does not.
        clear: it is `--clear` that removes them.

    Raises:
        UserError: the answer is no, or nobody is there to be asked and the plan looks like a
            mistake.
    """
    if os.environ.get("DORA_YES") == "1":
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        questions = [f"cancel {stops} experiments that wait or run"] * bool(stops)
        questions += [f"remove the results of {lost} experiments"] * bool(lost)
        questions += [f"{alarm}: go on"] * bool(alarm and not stops)
        if questions and not _yes(f"{' and '.join(questions)}? [y/N] "):
            raise UserError("nothing was done.")
    elif alarm or (lost and clear):
        raise UserError(
            f"stopped: {alarm or f'it would remove the results of {lost} experiments'}.",
            f"if that is meant: DORA_YES=1 dora grid {grid}",
        )


def _yes(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False
