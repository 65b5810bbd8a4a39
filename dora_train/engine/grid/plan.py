"""What to do about each experiment of a grid, and why: (wanted, known) -> actions. Pure, no I/O.

This is what `--dry_run` prints, what the tests feed with odd cases, and what then runs. The table
of what each verb does with each state is in the README.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from dora.conf import SubmitRules

from ..experiment.records import State
from ..jobs.resources import changes
from ..watch.status import Status


class Verb(str, Enum):
    """What happens to one experiment."""

    NEW = "new"
    RETRY = "retry"  # it ended badly, and goes on from its last checkpoint
    RESUME = "resume"  # it was interrupted, and goes on
    REPLACE = "replace"  # its job, or its results, give way to a new job
    KEEP = "kept"
    CANCEL = "cancel"

    @property
    def submits(self) -> bool:
        return self in (Verb.NEW, Verb.RETRY, Verb.RESUME, Verb.REPLACE)


SIGNS = {
    Verb.NEW: "+",
    Verb.RETRY: "~",
    Verb.RESUME: "~",
    Verb.REPLACE: "~",
    Verb.KEEP: "=",
    Verb.CANCEL: "-",
}


@dataclass(frozen=True)
class Wanted:
    """An experiment that the grid file names."""

    sig: str
    resources: Mapping[str, Any] = field(default_factory=dict)
    drift: Sequence[str] = ()  # what its values would mean now; empty: the same
    code: str = ""  # the snapshot that a job submitted now would run; empty: not asked
    searched: bool = False  # by a search, which keeps what it has stopped


@dataclass(frozen=True)
class Known:
    """An experiment as it is."""

    status: Status
    resources: Mapping[str, Any] = field(default_factory=dict)  # of its last job
    grids: Collection[str] = ()  # the other grids that name it
    code: str = ""  # the snapshot that its last job runs; empty: the live files
    owner: str = ""  # the other user who made it; empty: we did


@dataclass(frozen=True)
class Action:
    """What to do about one experiment, and why."""

    sig: str
    verb: Verb
    reason: str = ""
    anew: bool = False  # its results are removed first
    wrong: bool = False  # something the user must see to
    refused: bool = False  # what the user asked for is not done: the exit code is not 0
    stops: bool = False  # a job that waits or runs is cancelled by it
    leaves: bool = False  # the grid does not name it any more
    older: bool = False  # it waits, with code that is not today's
    out_of_reach: bool = False  # nobody here can tell what it does (Status.out_of_reach)


NOTHING_KNOWN = Known(Status(State.NEW))


def make_plan(
    wanted: Iterable[Wanted],
    known: Mapping[str, Known],
    rules: SubmitRules,
    user: str,
    leaving: Iterable[str] = (),
    cancel: bool = False,
    clear: bool = False,
    update: bool = False,
) -> list[Action]:
    """One action for each experiment, the wanted ones first, in their order.

    Args:
        known: what is known, by signature; an experiment that is not in it is new.
        user: who asks: another user's jobs are left alone.
        leaving: signatures that the grid named before, and does no more.
        cancel, clear: the flags of the command.
        update: jobs that wait with older code are replaced.
    """
    actions = []
    for want in wanted:
        now = known.get(want.sig, NOTHING_KNOWN)
        actions.append(
            _cancelled(want.sig, now, user)
            if cancel
            else _wanted(want, now, rules, user, clear, update)
        )
    return actions + [_leaving(sig, known.get(sig, NOTHING_KNOWN), user) for sig in leaving]


def _wanted(
    want: Wanted, now: Known, rules: SubmitRules, user: str, clear: bool, update: bool
) -> Action:
    sig, status = want.sig, now.status
    foreign = _not_ours(status, user)
    if status.out_of_reach:
        return _unreachable(sig, status)
    if foreign:
        return Action(sig, Verb.KEEP, foreign)
    if now.owner and (clear or (rules.replace_done and status.state == State.COMPLETED)):
        return Action(
            sig,
            Verb.KEEP,
            f"{status.state}; made by {now.owner}, who alone can clear it; "
            "a run of your own: tag=WORD",
            wrong=True,
            refused=True,
        )
    if clear:
        return Action(
            sig,
            Verb.REPLACE if status.live else Verb.NEW,
            "from scratch (--clear)",
            anew=True,
            stops=status.live,
        )
    if want.drift:
        return Action(sig, Verb.KEEP, f"drifted: {want.drift[0]}", wrong=True, refused=True)
    if status.held:
        return Action(sig, Verb.NEW, "queued by us before")
    if status.live:
        return _living(want, now, rules, update)
    if status.state == State.NEW:
        return Action(sig, Verb.NEW)
    if status.state == State.COMPLETED:
        return (
            Action(sig, Verb.REPLACE, "completed; from scratch (--replace_done)", anew=True)
            if rules.replace_done
            else Action(sig, Verb.KEEP, "completed")
        )
    if status.state == State.INTERRUPTED:
        return Action(sig, Verb.RESUME, status.why)
    if status.state == State.STOPPED and want.searched:
        return (
            Action(sig, Verb.RETRY, "stopped by this search (--retry)")
            if rules.retry
            else Action(sig, Verb.KEEP, "stopped by this search")
        )
    if status.state == State.STOPPED:
        return Action(sig, Verb.RESUME, "stopped by a search")
    reason = status.cause if status.state == State.FAILED and status.cause else str(status.state)
    if rules.retry:
        return Action(sig, Verb.RETRY, f"{reason} (--retry)")
    return Action(sig, Verb.KEEP, f"{reason}; again: --retry", wrong=True)


def _living(want: Wanted, now: Known, rules: SubmitRules, update: bool) -> Action:
    """What waits or runs: left alone, unless a rule says otherwise and it is a job."""
    status = now.status
    changed = changes(now.resources, want.resources)
    pending = status.state == State.WAITING
    if not (status.by_job and status.certain):
        return Action(want.sig, Verb.KEEP, _in_words(status))
    if rules.replace:
        return Action(want.sig, Verb.REPLACE, f"{_in_words(status)} (--replace)", stops=True)
    if changed and (pending or rules.update):
        return Action(
            want.sig,
            Verb.REPLACE,
            f"{status.state}, with other resources: {', '.join(changed)}",
            stops=True,
        )
    older = pending and bool(now.code and want.code) and now.code != want.code
    if older and update:
        return Action(
            want.sig, Verb.REPLACE, "waiting, with older code (DORA_UPDATE=1)", stops=True
        )
    return Action(want.sig, Verb.KEEP, _in_words(status), older=older)


def _cancelled(sig: str, now: Known, user: str) -> Action:
    status = now.status
    if not status.live:
        return Action(sig, Verb.KEEP, str(status.state))
    if status.out_of_reach:
        return _unreachable(sig, status)
    foreign = _not_ours(status, user)
    return (
        Action(sig, Verb.KEEP, foreign)
        if foreign
        else Action(sig, Verb.CANCEL, f"{_in_words(status)} (--cancel)", stops=True)
    )


def _unreachable(sig: str, status: Status) -> Action:
    """Left alone, whatever is asked for: whether it still waits or runs, only the user can know."""
    reason = f"{_in_words(status)}; if it is gone: DORA_TAKE=1"
    return Action(sig, Verb.KEEP, reason, out_of_reach=True)


def _leaving(sig: str, now: Known, user: str) -> Action:
    status = now.status
    if not status.live:
        return Action(sig, Verb.KEEP, f"no longer in the grid; {status.state}", leaves=True)
    if now.grids:
        return Action(
            sig,
            Verb.KEEP,
            f"no longer in the grid; still in {', '.join(sorted(now.grids))}",
            leaves=True,
        )
    foreign = _not_ours(status, user)
    if foreign or status.out_of_reach:
        why = foreign or _in_words(status)
        return Action(sig, Verb.KEEP, f"no longer in the grid; {why}", leaves=True)
    return Action(
        sig, Verb.CANCEL, f"no longer in the grid; {_in_words(status)}", stops=True, leaves=True
    )


def _not_ours(status: Status, user: str) -> str:
    """Why a live experiment cannot be stopped from here; empty where it can."""
    if not status.live:
        return ""
    if status.user and status.user != user:
        return f"{_in_words(status)}, of {status.user}"
    if not status.by_job and status.state == State.RUNNING:
        return f"{_in_words(status)}, not as a job of a grid"
    return ""


def _in_words(status: Status) -> str:
    where = f" on {status.where}" if status.where and status.state == State.RUNNING else ""
    return f"{status.state}{where}" + (
        f" ({status.cause})" if status.cause and not status.certain else ""
    )


def limited(actions: Sequence[Action], known: Mapping[str, Known], most: int) -> list[Action]:
    """The same plan with at most `most` experiments that wait or run; the rest wait for their
    turn."""
    free = most - sum(
        known[action.sig].status.live and not action.verb == Verb.CANCEL
        for action in actions
        if action.sig in known and not action.leaves
    )
    kept = []
    for action in actions:
        starts = action.verb.submits and not known.get(action.sig, NOTHING_KNOWN).status.live
        free -= starts
        kept.append(
            replace(
                action,
                verb=Verb.KEEP,
                reason=f"its turn comes ({action.reason or action.verb.value})",
            )
            if starts and free < 0
            else action
        )
    return kept


# --- what a plan says as a whole ---


def summary(actions: Sequence[Action]) -> str:
    """`+ 3 new  ~ 1 retry  = 12 kept  - 2 cancel`."""
    staying = [action for action in actions if not (action.leaves and action.verb == Verb.KEEP)]
    counts = {verb: sum(action.verb == verb for action in staying) for verb in Verb}
    left = len(actions) - len(staying)
    parts = [f"{SIGNS[verb]} {counts[verb]} {verb.value}" for verb in Verb if counts[verb]]
    return "  ".join(parts + ([f"({left} no longer named)"] if left else [])) or "nothing to do"


def noteworthy(actions: Sequence[Action]) -> list[Action]:
    """The actions to name one by one: whatever is done, and what is kept though it is not well."""
    return [action for action in actions if action.verb != Verb.KEEP or action.wrong]


def stopped(actions: Sequence[Action]) -> list[Action]:
    return [action for action in actions if action.stops]


def is_alarming(actions: Sequence[Action], known: Mapping[str, Known]) -> str:
    """Why a plan must not go through unasked: what a bug in a grid file would look like.

    Empty: it may.
    """
    live = sum(now.status.live for now in known.values())
    lost = sum(action.verb == Verb.CANCEL and action.leaves for action in actions)
    if actions and all(action.leaves for action in actions):
        return "the grid came out empty"
    return (
        f"it would cancel {lost} of {live} experiments that wait or run" if lost > live / 2 else ""
    )
