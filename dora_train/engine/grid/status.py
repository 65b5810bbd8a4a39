"""What state an experiment is in: decided here and nowhere else, by one table.

`decide` is pure: it sees what the folder says (`state.json`, the last attempt's holder, the last job, the result) and
what the executor says of that job. `look` gathers that for many experiments with one question to the executor. The
plan, the table, `dora info` and `dora launch` all show what this says.

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
| | | unknown | running if it said so last, else waiting; not certain |
| | cannot be asked | none, or over | running; not certain |
| said nothing as this job | | over | by the executor's word, see `WORDS` |
| said running or interrupted, as this job | gone | over | by the executor's word, see `WORDS` |
| said running, or nothing though it was started | gone | | interrupted |
| said interrupted | gone | | interrupted; cancelled where someone asked for it |
| nothing | | | new |
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import claims
from ..claims import Holder
from ..store import Experiment, Job, RunState, State
from .executor import Executor, JobInfo, Phase
from .logs import log_of, reason_in

# The executor's word for an end that the run itself did not speak of -> what the experiment is, and why.
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
        """In one or two words, for a table's cell: the cause where that says more than the state."""
        if self.state == State.FAILED and self.cause:
            return self.cause
        if self.state in (State.INTERRUPTED, State.WAITING) and self.cause:
            return self.why
        if self.state == State.RUNNING and self.cause.startswith("stalled"):
            return self.cause
        return str(self.state) + ("" if self.certain else " (?)")


@dataclass(frozen=True)
class Facts:
    """All that the table looks at."""

    run: RunState = field(default_factory=RunState)
    last: Holder | None = None  # who made the last attempt
    alive: bool | None = False  # whether it still runs; None: it cannot be asked
    job: Job | None = None
    info: JobInfo | None = None
    cancelled: str = ""  # who asked for the end of the last attempt
    in_vain: bool = False  # a submission after the job was begun, and there never was a job of it
    reason: Callable[[], str] = lambda: ""  # the last word of the log
    now: float = field(default_factory=time.time)

    @property
    def said(self) -> State:
        """What the last attempt said of itself; in a copied folder the claims are void, and words are all there is."""
        return self.run.state if self.last is None or self.run.attempt == self.last.attempt else State.NEW

    @property
    def by_job(self) -> bool:
        """The last attempt was made by the last job."""
        return self.job is not None and self.last is not None and bool(self.job.token) and (
            self.last.token == self.job.token)

    @property
    def spoke(self) -> bool:
        """What the run said is newer than the last submission."""
        return self.job is None or self.by_job or (self.last is not None and self.last.since > self.job.submitted)

    @property
    def phase(self) -> Phase | None:
        if self.job is None or not self.job.job_id:
            return None
        return self.info.phase if self.info else Phase.UNKNOWN


def decide(facts: Facts) -> Status:
    """The table above, row by row; a run that makes no progress is shown as such, and nothing more."""
    status = _decide(facts)
    if status.state == State.RUNNING and status.certain and facts.said == State.RUNNING and not status.cause:
        return replace(status, cause=stalled(facts.run, facts.now))
    return status


def stalled(run: RunState, now: float) -> str:
    """`stalled 14 min`: no progress for ten times as long as ever before in this attempt. Empty: it goes on.

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
        return _status(facts, State.WAITING, "" if reason in USUAL_WAITS else reason, _job_where(facts), by_job=True)
    if job is not None and job.held and not facts.spoke:
        if job.cancelled:
            return _status(facts, State.CANCELLED, f"cancelled by {job.cancelled}")
        return replace(_status(facts, State.WAITING, "queued by us", by_job=True), held=True)
    if job is not None and phase is None and not facts.spoke:
        return _status(facts, State.WAITING, "being submitted", certain=False)
    if phase == Phase.UNKNOWN and not _ended_elsewhere(facts):
        state = State.RUNNING if facts.by_job and said == State.RUNNING else State.WAITING
        return _status(facts, state, "its scheduler does not answer", _job_where(facts), certain=False, by_job=True)
    if facts.last is not None and facts.alive is None:
        return _status(facts, State.RUNNING, "its machine cannot be asked", facts.last.where(), certain=False)
    if phase == Phase.OVER and (facts.by_job or not facts.spoke):
        return _judged(facts, said)
    if said == State.RUNNING or (said == State.NEW and facts.last is not None):
        return _interrupted(facts, "its process is gone")
    if said == State.INTERRUPTED:
        return _interrupted(facts, run.cause)
    return _status(facts, said, run.cause)


def _ended_elsewhere(facts: Facts) -> bool:
    """An attempt later than the job's, on a machine that could be asked, is gone: the job no longer counts."""
    return facts.spoke and not facts.by_job and facts.alive is False


def _judged(facts: Facts, said: State) -> Status:
    """By the executor's word on the job; where the run said that it was interrupted, and why, that is more precise."""
    info, job = facts.info, facts.job
    assert info is not None and job is not None
    word = info.word
    if job.cancelled and word != "COMPLETED":
        return _status(facts, State.CANCELLED, f"cancelled by {job.cancelled}")
    if said == State.INTERRUPTED and word in ("FAILED", "COMPLETED", "") and facts.run.cause:
        return _interrupted(facts, facts.run.cause)
    # sacct 22.05 takes 128 off a code above it: a killed process (137) shows as 9. A run that fails says so itself.
    signum = info.signal or (info.exit_code if said == State.RUNNING and 0 < info.exit_code < 32 else 0)
    if word == "FAILED" and signum:
        return _status(facts, State.INTERRUPTED, f"killed by signal {signum}")
    if word == "FAILED":
        return _status(facts, State.FAILED, facts.reason() or f"its job ended with code {info.exit_code}")
    state, cause = WORDS.get(word, (State.INTERRUPTED, word.lower()))
    if state == State.CANCELLED and facts.in_vain:  # nobody wanted its end, but another job in its place
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


def _status(facts: Facts, state: State, cause: str = "", where: str = "", certain: bool = True,
            by_job: bool = False) -> Status:
    job = facts.job
    running_job = by_job or (facts.by_job and state in (State.RUNNING, State.WAITING))
    user = job.user if running_job and job else facts.last.user if facts.last and state == State.RUNNING else ""
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


# --- gathering the facts ---

def look(experiments: Iterable[Experiment], executor: Executor | None, force: bool = False) -> dict[str, Status]:
    """The status of each experiment, by signature; the executor is asked once for all of their jobs."""
    jobs = {experiment: experiment.job() for experiment in experiments}
    infos = infos_of([job for experiment, job in jobs.items() if not is_completed(experiment)], executor, force)
    return {experiment.sig: decide(facts_of(experiment, job, infos)) for experiment, job in jobs.items()}


def is_completed(experiment: Experiment) -> bool:
    """Whether nothing else can matter: most experiments are, most of the time, and then nobody needs to be asked."""
    run = experiment.state()
    return run.state == State.COMPLETED and Facts(run, claims.latest(experiment)).said == State.COMPLETED


def infos_of(jobs: Iterable[Job | None], executor: Executor | None, force: bool = False) -> Mapping[str, JobInfo]:
    """What the executor says of these jobs; those of another cluster cannot be asked for here."""
    found = [job for job in jobs if job is not None and job.job_id]
    here = [job for job in found if executor is not None and executor.answers_for(job)]
    return executor.jobs([job_id for job in here for job_id in job.ids], force) if executor and here else {}


def facts_of(experiment: Experiment, job: Job | None, infos: Mapping[str, JobInfo]) -> Facts:
    """What the folder and `infos` say."""
    run, last = experiment.state(), claims.latest(experiment)
    if Facts(run, last).said == State.COMPLETED:
        return Facts(run, last, job=job)
    _, alive = claims.holder(experiment, lambda holder: _job_lives(infos.get(holder.job_id)))
    return Facts(run, last, alive, job, current(job, infos), experiment.attempt_cancelled(last.attempt) if last else "",
                 job is not None and experiment.job_number() > job.number, lambda: reason_in(log_of(experiment, job)))


def current(job: Job | None, infos: Mapping[str, JobInfo]) -> JobInfo | None:
    """Of a job and its dependents, the one that counts: the first that is not over, else the last that ran."""
    known = [infos[job_id] for job_id in (job.ids if job else []) if job_id in infos]
    if not known:
        return None
    live = [info for info in known if info.phase != Phase.OVER]
    ran = [info for info in known if info.word not in ("CANCELLED", "")]  # those not needed any more are cancelled
    return (live or ran[-1:] or known)[0]


def _job_lives(info: JobInfo | None) -> bool | None:
    """For a holder that is a job: a job that waits (again) has no process."""
    return None if info is None or info.phase == Phase.UNKNOWN else info.phase == Phase.RUNNING


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
