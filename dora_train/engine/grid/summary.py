"""A plan as a whole: its summary, the actions to name one by one, and whether it looks like a bug."""

from collections.abc import Mapping, Sequence

from .plan import SIGNS, Action, Known, Verb


def summary(actions: Sequence[Action], jobs: int | None = None) -> str:
    """`+ 3 new  ~ 1 retry  = 12 kept  - 2 cancel`. With a number of jobs: `+ 30 new in 4 jobs`.

    Args:
        jobs: all that is submitted goes into so many. None: each experiment has its own.
    """
    counts, left = dict.fromkeys(Verb, 0), 0
    for action in actions:
        if action.leaves and action.verb == Verb.KEEP:
            left += 1
        else:
            counts[action.verb] += 1
    parts, submitted = [], 0
    for verb, count in counts.items():
        if count:
            parts.append(f"{SIGNS[verb]} {count} {verb.value}")
        if count and verb.submits:
            submitted = len(parts)
    if jobs is not None and submitted:
        parts[submitted - 1] += f" in {jobs} {'job' if jobs == 1 else 'jobs'}"
    if left:
        parts.append(f"({left} no longer named)")
    return "  ".join(parts) or "nothing to do"


def noteworthy(actions: Sequence[Action]) -> list[Action]:
    """The actions that a plan prints one by one: all but experiments that are kept and well."""
    return [action for action in actions if action.verb != Verb.KEEP or action.wrong]


def stopped(actions: Sequence[Action]) -> list[Action]:
    """The actions that cancel a job that waits or runs."""
    return [action for action in actions if action.stops]


def is_alarming(actions: Sequence[Action], known: Mapping[str, Known]) -> str:
    """Why a plan looks like the result of a bug in the grid file, and must be confirmed.

    Empty: it does not.
    """
    if actions and all(action.leaves for action in actions):
        return "the grid came out empty"
    live = sum(now.status.live for now in known.values())
    lost = sum(action.verb == Verb.CANCEL and action.leaves for action in actions)
    if lost > live / 2:
        return f"it would cancel {lost} of {live} experiments that wait or run"
    return ""
