"""The facts about an experiment: its folder, the holder of its last attempt, and its last job.

`facts_of` gathers them, and `status.py` decides by them. The executor is asked once for many jobs.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..experiment import claims
from ..experiment.claims import Holder
from ..experiment.finished import said
from ..experiment.folder import Experiment
from ..experiment.records import Job, RunState, State
from ..jobs.executor import Executor, JobInfo, Phase
from .logs import log_of, reason_in, says_out_of_memory

SKEW = 900.0  # seconds by which the clock of another machine may be off


@dataclass(frozen=True)
class Facts:
    """Everything that the table of status.py looks at."""

    run: RunState = field(default_factory=RunState)
    last: Holder | None = None  # who made the last attempt
    alive: bool | None = False  # whether it still runs; None: it cannot be asked
    job: Job | None = None
    info: JobInfo | None = None  # None: the job cannot be asked about from here
    cancelled: str = ""  # who asked for the end of the last attempt
    # whether a later submission was begun that never became a job
    in_vain: bool = False
    reason: Callable[[], str] = lambda: ""  # the last message of the log, read only if needed
    ran_out: Callable[[], bool] = lambda: False  # whether the log says that memory ran out
    now: float = field(default_factory=time.time)  # by the clock of the run

    @property
    def said(self) -> State:
        """As `finished.said`."""
        return said(self.run, self.last)

    @property
    def by_job(self) -> bool:
        """Whether the last job made the last attempt."""
        if self.job is None or self.last is None:
            return False
        return bool(self.job.token) and self.last.token == self.job.token

    @property
    def spoke(self) -> bool:
        """Whether the state of the run is newer than the last submission."""
        if self.job is None or self.by_job:
            return True
        return self.last is not None and self.last.is_after(self.job)

    @property
    def phase(self) -> Phase | None:
        """The phase of the last job. None if no job was submitted."""
        if self.job is None or not self.job.job_id:
            return None
        return self.info.phase if self.info else Phase.UNKNOWN


def infos_of(
    jobs: Iterable[Job | None], executor: Executor | None, force: bool = False
) -> Mapping[str, JobInfo]:
    """The executor's answer on each job, by job id.

    A job that the executor cannot be asked about has none, unless it is proven gone.
    """
    if executor is None:
        return {}
    ids: list[str] = []
    gone: list[str] = []
    for job in jobs:
        if job is None or not job.job_id:
            continue
        if executor.answers_for(job):
            ids += job.ids
        elif executor.lost(job):
            gone += job.ids
    infos: dict[str, JobInfo] = {}
    if ids:
        infos |= executor.jobs(ids, force)
    for job_id in gone:
        infos[job_id] = JobInfo(job_id, Phase.OVER, "GONE")
    return infos


def facts_of_completed(experiment: Experiment, job: Job | None) -> Facts | None:
    """The facts about an experiment that is completed by its folder alone. None if it is not.

    Most experiments are, and then no process and no executor needs to be asked.
    """
    run = experiment.state()
    if run.state != State.COMPLETED:  # then no claim needs to be read
        return None
    last = claims.latest(experiment)
    return Facts(run, last, job=job) if said(run, last) == State.COMPLETED else None


def facts_of(experiment: Experiment, job: Job | None, infos: Mapping[str, JobInfo]) -> Facts:
    """The facts about one experiment, from its folder and from the executor's answers."""
    completed = facts_of_completed(experiment, job)
    if completed is not None:
        return completed
    run, last = experiment.state(), claims.latest(experiment)
    info = current(job, infos)
    _, alive = claims.holder(experiment, lambda holder: _is_job_running(holder, infos))
    if info is not None and job is not None and job.member is not None:
        info = _of_member(experiment, job, info, Facts(run, last, alive, job))
    # DORA_TAKE=1 gives up what cannot be asked about, but a scheduler that is silent may answer yet
    if claims.is_taken() and (info is None or info.phase != Phase.UNKNOWN):
        alive = alive is True
        if info is None and job is not None and job.job_id:
            info = JobInfo(job.job_id, Phase.OVER, "TAKEN")
    return Facts(
        run,
        last,
        alive,
        job,
        info,
        cancelled=experiment.attempt_cancelled(last.attempt) if last else "",
        in_vain=job is not None and experiment.job_number() > job.number,
        reason=lambda: reason_in(log_of(experiment, job)),
        ran_out=lambda: says_out_of_memory(log_of(experiment, job)),
        now=_now_there(run, last),
    )


def _now_there(run: RunState, last: Holder | None) -> float:
    """The time by the clock of the run, in seconds since the epoch. Rather too early than too late.

    A clock that is wrong must not make a run look stalled.
    """
    if last is None or run.updated is None:
        return time.time()
    if not last.same_boot():
        return time.time() - SKEW
    if run.beat is None:  # written by an earlier version
        return time.time()
    # the monotonic clock stands still while the machine sleeps, as the run does
    return run.updated + time.monotonic() - run.beat


def current(job: Job | None, infos: Mapping[str, JobInfo]) -> JobInfo | None:
    """The answer that counts, of a job and its dependents.

    It is the first that is not over, else the last that ran.
    """
    if job is None:
        return None
    known = [infos[job_id].of(job.token) for job_id in job.ids if job_id in infos]
    if not known:
        return None
    for info in known:
        if info.phase != Phase.OVER:
            return info
    for info in reversed(known):
        # a dependent that was not needed is cancelled, and one without a word never ran
        if info.word not in ("CANCELLED", ""):
            return info
    return known[0]


def _of_member(experiment: Experiment, job: Job, info: JobInfo, facts: Facts) -> JobInfo:
    """The answer on one experiment of a packed job.

    Args:
        info: the executor's answer on the whole job.
        facts: what is known without the executor.
    """
    end = experiment.job_end(job.token)
    if end is not None:
        code, signum = end.get("code", 0), end.get("signal", 0)
        ended = replace(info, phase=Phase.OVER, word=str(end.get("word")), reason="", exact=True)
        return replace(ended, exit_code=code, signal=signum)
    has_begun = facts.by_job
    if info.phase in (Phase.PENDING, Phase.RUNNING) and job.cancelled and not has_begun:
        return replace(info, phase=Phase.OVER, word="CANCELLED")  # its turn will not come
    # It said so if the job was started again, and its turn has not come yet.
    waits = not has_begun or (facts.said == State.INTERRUPTED and facts.alive is False)
    if info.phase == Phase.RUNNING and waits:
        return replace(info, phase=Phase.PENDING)
    if info.phase == Phase.OVER and info.word in ("TIMEOUT", "DEADLINE"):
        return replace(info, word="LIMIT")
    if info.phase == Phase.OVER and info.word == "OUT_OF_MEMORY" and not has_begun:
        return replace(info, word="LEFT")
    return info


def _is_job_running(holder: Holder, infos: Mapping[str, JobInfo]) -> bool | None:
    """Whether the job of a holder runs. None if this cannot be known here.

    A job that waits, perhaps after a requeue, has no process.
    """
    info = infos.get(holder.job_id)
    if info is None:
        return None
    return info.is_running(holder.token)
