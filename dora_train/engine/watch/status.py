"""The state of an experiment: decided here and nowhere else, by one table.

`decide` is pure. It is given the facts of the folder (`state.json`, the holder of the last attempt,
the last job, the result) and the executor's answer on that job (facts.py). `look` does so for many
experiments, with one question to the executor. All verbs show this state.

In the table, the first row that fits decides:

| the folder | the holder | the job | the experiment |
| --- | --- | --- | --- |
| its run said completed | | | completed, by any process |
| | alive | | running |
| its run said an end, as this job or after it | | | that end |
| | | running | running |
| | | pending | waiting |
| | | an intent without an id | waiting: being submitted |
| | | the scheduler has no room for it | waiting: queued by us, or cancelled if a user asked for the end |
| | | unknown, or cannot be reached from this machine | running if it said so last, else waiting, not certain |
| | cannot be asked | none, or over | running, not certain |
| said nothing as this job | | over | by the executor's word, see `WORDS` |
| said running or interrupted, as this job | gone | over | by the executor's word, see `WORDS` |
| said running, or nothing though it was started | gone | | interrupted |
| said interrupted | gone | | interrupted, or cancelled if a user asked for the end |
| nothing | | | new |

For each experiment of a packed job (jobs/pack.py), the job is pending until its turn comes.

With DORA_TAKE=1, a holder or a job that cannot be asked about from here counts as gone. "As this
job, or after it" goes by the numbers of attempts and submissions, since the clocks of two machines
may differ.
"""

import signal
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..experiment import claims
from ..experiment.folder import Experiment
from ..experiment.records import Job, State
from ..jobs.executor import Executor, JobInfo, Phase
from .facts import Facts, facts_of, facts_of_completed, infos_of
from .progress import raised_in_words, stalled
from .progress import when as when  # the report takes it from here

# The executor's word for the end of a job -> the state of the experiment, and its cause. It counts
# if the run itself wrote no end.
WORDS = {
    "COMPLETED": (State.INTERRUPTED, "its job ended without reporting a result"),
    "OUT_OF_MEMORY": (State.FAILED, "out of memory"),
    "TIMEOUT": (State.TIMED_OUT, "time limit"),
    "DEADLINE": (State.TIMED_OUT, "deadline"),
    "CANCELLED": (State.CANCELLED, "cancelled"),
    "PREEMPTED": (State.INTERRUPTED, "preempted"),
    "NODE_FAIL": (State.INTERRUPTED, "node lost"),
    "BOOT_FAIL": (State.INTERRUPTED, "its node did not start"),
    "LOST": (State.INTERRUPTED, "all its processes are gone"),  # the local queue's word
    # these four are words of facts.py
    "LIMIT": (State.INTERRUPTED, "time limit of the job that it shares"),
    "LEFT": (State.INTERRUPTED, "its job ended before its turn came"),
    "GONE": (State.INTERRUPTED, "its queue is gone"),
    "TAKEN": (State.INTERRUPTED, "given up with DORA_TAKE=1"),
    "REVOKED": (State.INTERRUPTED, "moved to another cluster"),
    "": (State.INTERRUPTED, "its job is gone, and the scheduler does not know how"),
}
USUAL_WAITS = ("", "None", "Resources", "Priority")  # SLURM's reasons that need no mention


@dataclass(frozen=True)
class Status:
    """The state of an experiment, and why it is so."""

    state: State
    cause: str = ""
    where: str = ""  # "node7, job 8812"
    job_id: str = ""
    user: str = ""  # whose job it is
    certain: bool = True  # False: the machine or scheduler that knows did not answer
    by_job: bool = False  # it runs, or waits, as a job that can be cancelled
    held: bool = False  # not at the scheduler yet, which has no room
    more: str = ""  # what its job was given since an earlier one had too little: "1.5 x memory"
    out_of_reach: bool = False  # cannot be known from here; DORA_TAKE=1 counts it as gone

    @property
    def live(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (State.WAITING, State.RUNNING)

    @property
    def why(self) -> str:
        """The state with its cause: `interrupted: preempted`, but `interrupted by SIGINT`."""
        if not self.cause or self.cause.startswith(str(self.state)):
            return self.cause or str(self.state)
        return f"{self.state}: {self.cause}"

    def __str__(self) -> str:
        """One or two words for a table's cell: the cause if it says more than the state."""
        if self.state == State.FAILED and self.cause:
            return self.cause
        if self.state in (State.INTERRUPTED, State.WAITING) and self.cause:
            return self.why
        if self.state == State.RUNNING and self.cause.startswith("stalled"):
            return self.cause
        shown = str(self.state) if self.certain else f"{self.state} (?)"
        return f"{shown}, {self.more}" if self.more and self.live else shown


def decide(facts: Facts) -> Status:
    """The status of an experiment, by the table above.

    A run that makes no progress is marked as stalled. It still counts as running.
    """
    status = _decide(facts)
    running = status.state == State.RUNNING and facts.said == State.RUNNING
    if running and status.certain and not status.cause:
        return replace(status, cause=stalled(facts.run, facts.now))
    return status


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
        cause = "" if facts.info.reason in USUAL_WAITS else facts.info.reason
        return _status(facts, State.WAITING, cause, _job_where(facts), by_job=True)
    if job is not None and job.held and not facts.spoke:
        if job.cancelled:
            return _status(facts, State.CANCELLED, f"cancelled by {job.cancelled}")
        return replace(_status(facts, State.WAITING, "queued by us", by_job=True), held=True)
    if job is not None and phase is None and not facts.spoke:
        return _status(facts, State.WAITING, "being submitted", certain=False)
    if phase == Phase.UNKNOWN and not _has_ended(facts):
        return _unanswered(facts)
    if facts.last is not None and facts.alive is None:
        cause = "its machine cannot be asked"
        if facts.last.same_boot():
            cause = "its process is hidden"
        status = _status(facts, State.RUNNING, cause, facts.last.where(), certain=False)
        return replace(status, out_of_reach=True)
    if phase == Phase.OVER and (facts.by_job or not facts.spoke):
        return _judged(facts)
    if said == State.RUNNING or (said == State.NEW and facts.last is not None):
        return _interrupted(facts, "its process is gone")
    if said == State.INTERRUPTED:
        return _interrupted(facts, run.cause)
    return _status(facts, said, run.cause)


def _has_ended(facts: Facts) -> bool:
    """Whether the last attempt is proven gone, and its job will start no other one."""
    assert facts.job is not None
    # SLURM may start a job again. The local queue never does.
    starts_once = not facts.by_job or facts.job.cluster == "local"
    return facts.alive is False and facts.spoke and starts_once


def _unanswered(facts: Facts) -> Status:
    """The status if the job's scheduler does not answer, or cannot be reached from here."""
    job = facts.job
    assert job is not None
    state = State.WAITING
    if facts.by_job and facts.said == State.RUNNING:
        state = State.RUNNING
    out_of_reach = facts.info is None
    cause = "its scheduler does not answer"
    if out_of_reach:
        cause = f"{_scheduler(job)} cannot be reached from this machine"
    status = _status(facts, state, cause, _job_where(facts), certain=False, by_job=True)
    return replace(status, out_of_reach=out_of_reach)


def _scheduler(job: Job) -> str:
    """`cluster "big"`, or `the queue of jane on node7`."""
    if job.cluster != "local":
        return f'cluster "{job.queue}"' if job.queue else "its cluster"
    queue = "the queue"
    if job.user and job.user != claims.user_name():
        queue += f" of {job.user}"
    return f"{queue} on {job.host or 'another machine'}"


def _judged(facts: Facts) -> Status:
    """The status by the executor's word on a job that is over.

    If the run wrote that it was interrupted, and why, that is more precise.
    """
    info, job = facts.info, facts.job
    assert info is not None and job is not None
    word = info.word
    # The end of a shared job says nothing of the experiment that was cancelled in it.
    if job.cancelled and (word != "COMPLETED" or job.member is not None):
        return _status(facts, State.CANCELLED, f"cancelled by {job.cancelled}")
    if facts.said == State.INTERRUPTED and word in ("FAILED", "COMPLETED", "") and facts.run.cause:
        return _interrupted(facts, facts.run.cause)
    if word == "FAILED":
        return _failed(facts, info)
    state, cause = WORDS.get(word, (State.INTERRUPTED, word.lower()))
    # cancelled to be replaced by another job, so the user did not want an end
    if state == State.CANCELLED and facts.in_vain:
        return _interrupted(facts, "its job gave way to another, which was never submitted")
    if state == State.CANCELLED and info.by:
        cause += f" by {info.by}"
    if word in ("NODE_FAIL", "BOOT_FAIL") and info.node:
        cause += f": {info.node}"
    return _status(facts, state, cause)


def _failed(facts: Facts, info: JobInfo) -> Status:
    """The status if a job ended with a code other than 0: killed by a signal, or failed."""
    signum = info.signal
    # The code may be the number of a signal. A run that ends by itself writes so, and this did not.
    if not info.exact and facts.said == State.RUNNING and 0 < info.exit_code < 32:
        signum = info.exit_code
    if signum == signal.SIGKILL and facts.ran_out():
        return _status(facts, *WORDS["OUT_OF_MEMORY"])
    if signum:
        return _status(facts, State.INTERRUPTED, f"killed by signal {signum}")
    reason = facts.reason() or f"its job ended with code {info.exit_code}"
    return _status(facts, State.FAILED, reason)


def _interrupted(facts: Facts, cause: str) -> Status:
    """The status if an attempt is gone: cancelled if a user asked for the end, else interrupted."""
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
    """A status with its place, its job and its user.

    Args:
        where: "node7, job 8812". Empty: where the last attempt was, or the job.
        by_job: whether it is the job that runs or waits.
    """
    job, last = facts.job, facts.last
    by_job = by_job or (facts.by_job and state in (State.RUNNING, State.WAITING))
    job_id = user = ""
    if last is not None and state == State.RUNNING:
        user = last.user
    if job is not None and by_job:
        user = job.user
    if job is not None and (by_job or facts.by_job):
        job_id = job.job_id
    if not where and last is not None:
        where = last.where()
    where = where or _job_where(facts)
    if state == State.RUNNING and facts.info is not None:
        where = ", ".join([where, *(f"GPU {name}" for name in facts.info.gpus)])
    more = ""
    if job is not None and state in (State.RUNNING, State.WAITING):
        more = raised_in_words(job.raised)
        where = ", ".join(filter(None, [where, more]))
    return Status(state, cause, where, job_id, user, certain, by_job, more=more)


def _job_where(facts: Facts) -> str:
    """`node7, job 8812`, or `job 8812` if its node is not known."""
    if facts.job is None or not facts.job.job_id:
        return ""
    job = f"job {facts.job.job_id}"
    if facts.info is None or not facts.info.node:
        return job
    return f"{facts.info.node}, {job}"


def look(
    experiments: Iterable[Experiment], executor: Executor | None, force: bool = False
) -> dict[str, Status]:
    """The status of each experiment, by signature.

    The executor is asked once for all of their jobs.

    Args:
        force: ask the scheduler now, even if it was asked a moment ago.
    """
    jobs = {experiment: experiment.job() for experiment in experiments}
    completed = {one: facts_of_completed(one, job) for one, job in jobs.items()}
    infos = infos_of([jobs[one] for one in jobs if completed[one] is None], executor, force)
    return {
        one.sig: decide(completed[one] or facts_of(one, job, infos)) for one, job in jobs.items()
    }
