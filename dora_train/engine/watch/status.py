"""What state an experiment is in: decided here and nowhere else, by one table.

`decide` is pure: it sees what the folder says (`state.json`, the last attempt's holder, the last
job, the result) and what the executor says of that job (facts.py). `look` does so for many
experiments, with one question to the executor. The plan, the table, `dora info` and `dora launch`
all show what this says.

The table; the first row that fits decides:

| the folder | the holder | the job | the experiment |
| --- | --- | --- | --- |
| its run said completed | | | completed, whoever ran it |
| | alive | | running |
| its run said an end, as this job or after it | | | that end |
| | | running | running |
| | | pending | waiting |
| | | an intent without an id | waiting: being submitted |
| | | the scheduler has no room for it | waiting: queued by us; cancelled where someone asked for it |
| | | unknown, or nobody here can ask | running if it said so last, else waiting; not certain |
| | cannot be asked | none, or over | running; not certain |
| said nothing as this job | | over | by the executor's word, see `WORDS` |
| said running or interrupted, as this job | gone | over | by the executor's word, see `WORDS` |
| said running, or nothing though it was started | gone | | interrupted |
| said interrupted | gone | | interrupted; cancelled where someone asked for it |
| nothing | | | new |

With DORA_TAKE=1, what nobody here can ask about counts as gone. "As this job, or after it" goes by
the numbers of attempts and submissions, since the clocks of two machines may differ.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..experiment import claims
from ..experiment.folder import Experiment
from ..experiment.records import Job, RunState, State
from ..jobs.executor import Executor, Phase
from .facts import Facts, facts_of, infos_of, is_completed
from .logs import log_of

# The executor's word for an end that the run itself did not speak of -> what the experiment is, and
# why.
WORDS = {
    "COMPLETED": (State.INTERRUPTED, "its job ended without a word"),
    "OUT_OF_MEMORY": (State.FAILED, "out of memory"),
    "TIMEOUT": (State.TIMED_OUT, "time limit"),
    "DEADLINE": (State.TIMED_OUT, "deadline"),
    "CANCELLED": (State.CANCELLED, "cancelled"),
    "PREEMPTED": (State.INTERRUPTED, "preempted"),
    "NODE_FAIL": (State.INTERRUPTED, "node lost"),
    "BOOT_FAIL": (State.INTERRUPTED, "its node did not start"),
    "LOST": (State.INTERRUPTED, "all its processes are gone"),  # the local queue's word
    "GONE": (State.INTERRUPTED, "its queue is gone"),  # a word of ours, as the next
    "TAKEN": (State.INTERRUPTED, "given up with DORA_TAKE=1"),
    "REVOKED": (State.INTERRUPTED, "moved to another cluster"),
    "": (State.INTERRUPTED, "its job is gone, and the scheduler does not know how"),
}
USUAL_WAITS = ("", "None", "Resources", "Priority")
STALLED = 10  # times the usual time between two signs of progress
BEAT = 10.0  # seconds: a run that steps faster writes its progress down this often


@dataclass(frozen=True)
class Status:
    """What an experiment is, and why."""

    state: State
    cause: str = ""
    where: str = ""  # "node7, job 8812"
    job_id: str = ""
    user: str = ""  # whose job it is
    certain: bool = True  # False: whoever knows could not be asked
    by_job: bool = False  # it runs, or waits, as a job that can be cancelled
    held: bool = False  # it waits with us: there is no room at the scheduler
    out_of_reach: bool = False  # nobody here can ever tell; DORA_TAKE=1 says that it is gone

    @property
    def live(self) -> bool:
        return self.state in (State.WAITING, State.RUNNING)

    @property
    def why(self) -> str:
        """The state with its cause: `interrupted: preempted`, but `interrupted by SIGINT`."""
        if not self.cause or self.cause.startswith(str(self.state)):
            return self.cause or str(self.state)
        return f"{self.state}: {self.cause}"

    def __str__(self) -> str:
        """In one or two words, for a table's cell: the cause where that says more than the
        state."""
        if self.state == State.FAILED and self.cause:
            return self.cause
        if self.state in (State.INTERRUPTED, State.WAITING) and self.cause:
            return self.why
        if self.state == State.RUNNING and self.cause.startswith("stalled"):
            return self.cause
        return str(self.state) + ("" if self.certain else " (?)")


def decide(facts: Facts) -> Status:
    """The table above, row by row; a run that makes no progress is shown as such, and nothing
    more."""
    status = _decide(facts)
    if (
        status.state == State.RUNNING
        and status.certain
        and facts.said == State.RUNNING
        and not status.cause
    ):
        return replace(status, cause=stalled(facts.run, facts.now))
    return status


def stalled(run: RunState, now: float) -> str:
    """`stalled 14 min`: no progress for ten times as long as ever before in this attempt.

    Empty: it goes on.

    A process that lives is no proof: a loader that waits for a dead disk lives too.
    """
    if run.gap is None or run.updated is None:  # it has not trained yet: nothing is usual
        return ""
    silent = now - run.updated
    return f"stalled {duration(silent)}" if silent > STALLED * max(run.gap, BEAT) else ""


def _decide(facts: Facts) -> Status:
    run, job, phase = facts.run, facts.job, facts.phase
    said = facts.said
    if said == State.COMPLETED:
        return _status(facts, State.COMPLETED, run.cause)
    if facts.last is not None and facts.alive:
        return _status(facts, State.RUNNING, where=facts.last.where())
    if said.ended and facts.spoke:
        return _status(facts, said, run.cause)
    if phase == Phase.RUNNING:
        return _status(facts, State.RUNNING, where=_job_where(facts), by_job=True)
    if phase == Phase.PENDING:
        assert facts.info is not None
        reason = facts.info.reason
        return _status(
            facts,
            State.WAITING,
            "" if reason in USUAL_WAITS else reason,
            _job_where(facts),
            by_job=True,
        )
    if job is not None and job.held and not facts.spoke:
        if job.cancelled:
            return _status(facts, State.CANCELLED, f"cancelled by {job.cancelled}")
        return replace(_status(facts, State.WAITING, "queued by us", by_job=True), held=True)
    if job is not None and phase is None and not facts.spoke:
        return _status(facts, State.WAITING, "being submitted", certain=False)
    if phase == Phase.UNKNOWN and not _has_ended(facts):
        return _unanswered(facts)
    if facts.last is not None and facts.alive is None:
        cause = "its process is hidden" if facts.last.same_boot() else "its machine cannot be asked"
        status = _status(facts, State.RUNNING, cause, facts.last.where(), certain=False)
        return replace(status, out_of_reach=True)
    if phase == Phase.OVER and (facts.by_job or not facts.spoke):
        return _judged(facts, said)
    if said == State.RUNNING or (said == State.NEW and facts.last is not None):
        return _interrupted(facts, "its process is gone")
    if said == State.INTERRUPTED:
        return _interrupted(facts, run.cause)
    return _status(facts, said, run.cause)


def _has_ended(facts: Facts) -> bool:
    """Whether the last attempt is proven gone, and its job brings no other.

    SLURM may start a job again. The local queue never does.
    """
    assert facts.job is not None
    once = not facts.by_job or facts.job.cluster == "local"
    return facts.alive is False and facts.spoke and once


def _unanswered(facts: Facts) -> Status:
    """Of a job whose scheduler is silent for now, or that nobody here can ask about."""
    job = facts.job
    assert job is not None
    state = State.RUNNING if facts.by_job and facts.said == State.RUNNING else State.WAITING
    cause = "its scheduler does not answer"
    if facts.info is None:
        cause = f"{_scheduler(job)} cannot be asked from here"
    status = _status(facts, state, cause, _job_where(facts), certain=False, by_job=True)
    return replace(status, out_of_reach=facts.info is None)


def _scheduler(job: Job) -> str:
    if job.cluster != "local":
        return f'cluster "{job.queue}"' if job.queue else "its cluster"
    owner = f" of {job.user}" if job.user and job.user != claims.user_name() else ""
    return f"the queue{owner} on {job.host or 'another machine'}"


def _judged(facts: Facts, said: State) -> Status:
    """By the executor's word on the job; where the run said that it was interrupted, and why, that
    is more precise."""
    info, job = facts.info, facts.job
    assert info is not None and job is not None
    word = info.word
    if job.cancelled and word != "COMPLETED":
        return _status(facts, State.CANCELLED, f"cancelled by {job.cancelled}")
    if said == State.INTERRUPTED and word in ("FAILED", "COMPLETED", "") and facts.run.cause:
        return _interrupted(facts, facts.run.cause)
    # A code that may be the number of a signal: a run that leaves by itself says so, as a rule.
    unsure = not info.exact and said == State.RUNNING and 0 < info.exit_code < 32
    signum = info.exit_code if unsure else info.signal
    if word == "FAILED" and signum:
        return _status(facts, State.INTERRUPTED, f"killed by signal {signum}")
    if word == "FAILED":
        return _status(
            facts, State.FAILED, facts.reason() or f"its job ended with code {info.exit_code}"
        )
    state, cause = WORDS.get(word, (State.INTERRUPTED, word.lower()))
    # nobody wanted its end, but another job in its place
    if state == State.CANCELLED and facts.in_vain:
        return _interrupted(facts, "its job gave way to another, which was never submitted")
    if state == State.CANCELLED and info.by:
        cause += f" by {info.by}"
    if word in ("NODE_FAIL", "BOOT_FAIL") and info.node:
        cause += f": {info.node}"
    return _status(facts, state, cause)


def _interrupted(facts: Facts, cause: str) -> Status:
    """Cancelled, where someone asked for the end."""
    if facts.cancelled:
        return _status(facts, State.CANCELLED, f"cancelled by {facts.cancelled}")
    return _status(facts, State.INTERRUPTED, cause)


def _status(
    facts: Facts,
    state: State,
    cause: str = "",
    where: str = "",
    certain: bool = True,
    by_job: bool = False,
) -> Status:
    job = facts.job
    running_job = by_job or (facts.by_job and state in (State.RUNNING, State.WAITING))
    user = (
        job.user
        if running_job and job
        else facts.last.user
        if facts.last and state == State.RUNNING
        else ""
    )
    job_id = job.job_id if job and (facts.by_job or running_job) else ""
    return Status(state, cause, where or _last_where(facts), job_id, user, certain, running_job)


def _last_where(facts: Facts) -> str:
    """Where it last was."""
    return facts.last.where() if facts.last else _job_where(facts)


def _job_where(facts: Facts) -> str:
    if facts.job is None or not facts.job.job_id:
        return ""
    node = facts.info.node if facts.info else ""
    return f"{node}, job {facts.job.job_id}" if node else f"job {facts.job.job_id}"


def look(
    experiments: Iterable[Experiment], executor: Executor | None, force: bool = False
) -> dict[str, Status]:
    """The status of each experiment, by signature; the executor is asked once for all of their
    jobs."""
    jobs = {experiment: experiment.job() for experiment in experiments}
    infos = infos_of(
        [job for experiment, job in jobs.items() if not is_completed(experiment)], executor, force
    )
    return {
        experiment.sig: decide(facts_of(experiment, job, infos)) for experiment, job in jobs.items()
    }


# --- in words ---


def duration(seconds: float | None) -> str:
    """`40 s`, `6 min`, `3 h 20`, `2 d 4 h`."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02}" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def when(seconds: float | None) -> str:
    """`23 Nov 14:02`, in local time."""
    return time.strftime("%d %b %H:%M", time.localtime(seconds)) if seconds else ""


def log_path(experiment: Experiment) -> Path | None:
    return log_of(experiment, experiment.job())
