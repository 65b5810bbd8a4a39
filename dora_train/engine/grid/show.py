"""Printing a plan, and the question before running work ends or results are removed.

`sync.py` calls both.
"""

import sys
from collections.abc import Mapping, Sequence

from .. import environment
from ..errors import UserError
from ..shell import typed
from .plan import SIGNS, Action
from .summary import noteworthy, summary


def print_plan(
    grid: str,
    actions: Sequence[Action],
    names: Mapping[str, str],
    where: str,
    jobs: int | None = None,
) -> None:
    """Print the summary of a plan, then a line for each experiment that something is done about.

    Args:
        names: of the experiments, by signature.
        where: where the jobs go, e.g. "on SLURM (sbatch found)".
        jobs: how many there will be. None: one for each experiment.
    """
    print(f"{grid}: {summary(actions, jobs)}   {where}".rstrip())
    shown = [(action, names.get(action.sig, "")) for action in noteworthy(actions)]
    width = max((len(name) for _, name in shown), default=0)
    for action, name in shown:
        print(f"  {SIGNS[action.verb]} {action.sig}  {name:<{width}}  {action.reason}".rstrip())
    older = sum(action.older for action in actions)
    if older:
        print(f"  {older} that wait run older code; today's: DORA_UPDATE=1 {typed()} grid {grid}")
    others = sum(action.other_code for action in actions)
    if others:
        print(
            f"  {others} finished with other code than today's (code: differs); what has changed: "
            f"python -m dora_train.snapshots --diff SIG     to count the code: tag=@code"
        )
    unknown = sum(action.out_of_reach for action in actions)
    if unknown:
        print(
            f"  {unknown} cannot be asked about from here; "
            f"if you know that they are gone: DORA_TAKE=1 {typed()} grid {grid}"
        )
    sys.stdout.flush()


def confirm(grid: str, stops: int, lost: int, alarm: str, clear: bool) -> None:
    """Ask once before running work ends or results are removed. It needs a terminal.

    Args:
        stops: the number of experiments that wait or run, and would be cancelled.
        lost: the number of experiments whose results would be removed.
        alarm: why the plan looks like a mistake. Empty: it does not.
        clear: `--clear` was given.

    Raises:
        UserError: the answer is no. Without a terminal: the plan looks like a mistake, or
            `--clear` would remove results.
    """
    if environment.says_yes():
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        questions = []
        if stops:
            questions.append(f"cancel {stops} experiments that wait or run")
        if lost:
            questions.append(f"remove the results of {lost} experiments")
        if alarm and not stops:
            questions.append(f"{alarm}: go on")
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
