"""What to do about each experiment of a grid, and why: (wanted, known) -> actions.

It is pure: it reads and writes no file. `--dry_run` prints its result, `apply.py` carries it out.
docs/failures.md has the table of what each verb does with each state.
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
    RETRY = "retry"  # it ended badly, and resumes from its last checkpoint
    RESUME = "resume"  # it was interrupted, and resumes
    REPLACE = "replace"  # a new job takes the place of its job, or of its results
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
    drift: Sequence[str] = ()  # keys whose frozen value is another than today's
    code: str = ""  # the snapshot that a job submitted now would run; empty: it was not asked for
    searched: bool = False  # a search names it, and keeps the trials that it has stopped
    more: str = ""  # it failed for want of memory, and is to have so much more: "1.5 x memory"


@dataclass(frozen=True)
class Known:
    """An experiment as it is."""

    status: Status
    resources: Mapping[str, Any] = field(default_factory=dict)  # of its last job
    grids: Collection[str] = ()  # the other grids that name it
    code: str = ""  # the snapshot that its last job runs; empty: the live files, or no job
    owner: str = ""  # the other user who made it; empty: this user did
    other_code: bool = False  # it is finished, and today's code is another


@dataclass(frozen=True)
class Action:
    """What to do about one experiment, and why."""

    sig: str
    verb: Verb
    reason: str = ""
    anew: bool = False  # its results are removed first
    wrong: bool = False  # the user must look at it
    refused: bool = False  # what the user asked for is not done: the exit code is not 0
    stops: bool = False  # a job that waits or runs is cancelled
    leaves: bool = False  # the grid no longer names it
    older: bool = False  # it waits with code that is not today's
    other_code: bool = False  # it is kept, and finished with code that is not today's
    put_off: bool = False  # it is kept until a slot is free
    out_of_reach: bool = False  # nobody here can tell whether it still runs (Status.out_of_reach)


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
    """One action for each experiment. The wanted ones come first, in their order.

    Args:
        known: by signature. An experiment that is missing here is new.
        user: the user who asks. The jobs of other users are left alone.
        leaving: signatures that the grid named before, and no longer names.
        cancel, clear: the flags of the command.
        update: replace jobs that wait with older code.
    """
    actions = []
    for want in wanted:
        now = known.get(want.sig, NOTHING_KNOWN)
        if cancel:
            actions.append(_cancelled(want.sig, now, user))
        else:
            actions.append(_wanted(want, now, rules, user, clear, update))
    for sig in leaving:
        actions.append(_leaving(sig, known.get(sig, NOTHING_KNOWN), user))
    return actions


def _wanted(
    want: Wanted, now: Known, rules: SubmitRules, user: str, clear: bool, update: bool
) -> Action:
    """The action for an experiment that the grid names."""
    sig, status = want.sig, now.status
    if status.out_of_reach:
        return _unreachable(sig, status)
    foreign = _not_ours(status, user)
    if foreign:
        return Action(sig, Verb.KEEP, foreign)
    removes_results = clear or (rules.replace_done and status.state == State.COMPLETED)
    if now.owner and removes_results:
        reason = (
            f"{status.state}; made by {now.owner}, who alone can clear it; "
            "to make your own run: tag=WORD"
        )
        return Action(sig, Verb.KEEP, reason, wrong=True, refused=True)
    if clear:
        verb = Verb.REPLACE if status.live else Verb.NEW
        return Action(sig, verb, "from scratch (--clear)", anew=True, stops=status.live)
    if want.drift:
        return Action(sig, Verb.KEEP, f"drifted: {want.drift[0]}", wrong=True, refused=True)
    if status.held:  # the scheduler had no room before, and may have room now
        return Action(sig, Verb.NEW, "queued by us before")
    if status.live:
        return _live(want, now, rules, update)
    action = _not_live(want, status, rules)
    return replace(action, other_code=now.other_code and action.verb == Verb.KEEP)


def _live(want: Wanted, now: Known, rules: SubmitRules, update: bool) -> Action:
    """The action for an experiment that waits or runs: it is kept, unless it is a job and a rule
    replaces it."""
    sig, status = want.sig, now.status
    kept = Action(sig, Verb.KEEP, _in_words(status))
    # It is no job that we could replace, or its scheduler does not answer: a second job could run
    # beside the first.
    if not (status.by_job and status.certain):
        return kept
    if rules.replace:
        return Action(sig, Verb.REPLACE, f"{_in_words(status)} (--replace)", stops=True)
    waits = status.state == State.WAITING
    changed = changes(now.resources, want.resources)
    if changed and (waits or rules.update):
        reason = f"{status.state}, with other resources: {', '.join(changed)}"
        return Action(sig, Verb.REPLACE, reason, stops=True)
    older = waits and bool(now.code and want.code) and now.code != want.code
    if older and update:
        return Action(sig, Verb.REPLACE, "waiting, with older code (DORA_UPDATE=1)", stops=True)
    return replace(kept, older=older)


def _not_live(want: Wanted, status: Status, rules: SubmitRules) -> Action:
    """The action for an experiment that neither waits nor runs."""
    sig, state = want.sig, status.state
    if state == State.NEW:
        return Action(sig, Verb.NEW)
    if state == State.COMPLETED and rules.replace_done:
        return Action(sig, Verb.REPLACE, "completed; from scratch (--replace_done)", anew=True)
    if state == State.COMPLETED:
        return Action(sig, Verb.KEEP, "completed")
    if state == State.INTERRUPTED:
        return Action(sig, Verb.RESUME, status.why)
    if want.more and not rules.retry:
        return Action(sig, Verb.RESUME, f"{status.cause}; again with {want.more}")
    if state == State.STOPPED and not want.searched:
        return Action(sig, Verb.RESUME, "stopped by a search")
    if state == State.STOPPED and rules.retry:
        return Action(sig, Verb.RETRY, "stopped by this search (--retry)")
    if state == State.STOPPED:
        return Action(sig, Verb.KEEP, "stopped by this search")
    reason = str(state)
    if state == State.FAILED:
        reason = status.cause or reason
    if rules.retry:
        with_more = f", with {want.more}" if want.more else ""
        return Action(sig, Verb.RETRY, f"{reason} (--retry){with_more}")
    return Action(sig, Verb.KEEP, f"{reason}; again: --retry", wrong=True)


def _cancelled(sig: str, now: Known, user: str) -> Action:
    """The action for an experiment under `--cancel`."""
    status = now.status
    if not status.live:
        return Action(sig, Verb.KEEP, str(status.state))
    if status.out_of_reach:
        return _unreachable(sig, status)
    foreign = _not_ours(status, user)
    if foreign:
        return Action(sig, Verb.KEEP, foreign)
    return Action(sig, Verb.CANCEL, f"{_in_words(status)} (--cancel)", stops=True)


def _unreachable(sig: str, status: Status) -> Action:
    """The experiment is left alone, because only the user can know whether it still runs."""
    reason = f"{_in_words(status)}; if it is gone: DORA_TAKE=1"
    return Action(sig, Verb.KEEP, reason, out_of_reach=True)


def _leaving(sig: str, now: Known, user: str) -> Action:
    """The action for an experiment that the grid no longer names: its job is cancelled, if no other
    grid wants it and it is ours."""
    status = now.status
    if not status.live:
        why = str(status.state)
    elif now.grids:
        why = f"still in {', '.join(sorted(now.grids))}"
    else:
        why = _not_ours(status, user)
        if not why and status.out_of_reach:
            why = _in_words(status)
    if why:
        return Action(sig, Verb.KEEP, f"no longer in the grid; {why}", leaves=True)
    reason = f"no longer in the grid; {_in_words(status)}"
    return Action(sig, Verb.CANCEL, reason, stops=True, leaves=True)


def _not_ours(status: Status, user: str) -> str:
    """Why this user cannot stop a live experiment as a job. Empty: this user can."""
    if not status.live:
        return ""
    if status.user and status.user != user:
        return f"{_in_words(status)}, of {status.user}"
    if not status.by_job and status.state == State.RUNNING:
        return f"{_in_words(status)}, not as a job of a grid"
    return ""


def _in_words(status: Status) -> str:
    """`running on node7, job 8812`, `waiting (its scheduler does not answer)`."""
    words = str(status.state)
    if status.where and status.state == State.RUNNING:
        words += f" on {status.where}"
    if status.cause and not status.certain:
        words += f" ({status.cause})"
    return words


def limited(actions: Sequence[Action], known: Mapping[str, Known], at_once: int) -> list[Action]:
    """The same plan with at most `at_once` experiments that wait or run. The others wait for a slot."""
    free = at_once
    for action in actions:
        now = known.get(action.sig, NOTHING_KNOWN)
        if now.status.live and action.verb != Verb.CANCEL and not action.leaves:
            free -= 1
    limited_actions = []
    for action in actions:
        # The new job of a live experiment takes the slot of its old job.
        if action.verb.submits and not known.get(action.sig, NOTHING_KNOWN).status.live:
            free -= 1
            if free < 0:
                reason = f"waiting for a free slot (at_once={at_once})"
                action = replace(action, verb=Verb.KEEP, reason=reason, put_off=True)
        limited_actions.append(action)
    return limited_actions
