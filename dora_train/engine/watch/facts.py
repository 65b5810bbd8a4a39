"""What is known of an experiment: its folder, the holder of its last attempt, and its last job.

`facts_of` gathers it, and `status.py` decides by it. The executor is asked once for many jobs.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..experiment import claims
from ..experiment.claims import Holder
from ..experiment.folder import Experiment
from ..experiment.records import Job, RunState, State
from ..jobs.executor import Executor, JobInfo, Phase
from .logs import log_of, reason_in

SKEW = 900.0  # seconds by which the clock of another machine may be off


@dataclass(frozen=True)
class Facts:
    """All that the table of status.py looks at."""

    run: RunState = field(default_factory=RunState)
    last: Holder | None = None  # who made the last attempt
    alive: bool | None = False  # whether it still runs; None: it cannot be asked
    job: Job | None = None
    info: JobInfo | None = None  # None: nobody here can ask about the job
    cancelled: str = ""  # who asked for the end of the last attempt
    in_vain: bool = False  # a submission after the job was begun, and there never was a job of it
    reason: Callable[[], str] = lambda: ""  # the last word of the log
    now: float = field(default_factory=time.time)  # by the clock of the run

    @property
    def said(self) -> State:
        """What the last attempt said of itself; in a copied folder, words are all there is."""
        if self.last is None or self.run.attempt == self.last.attempt:
            return self.run.state
        return State.NEW

    @property
    def by_job(self) -> bool:
        """The last attempt was made by the last job."""
        if self.job is None or self.last is None:
            return False
        return bool(self.job.token) and self.last.token == self.job.token

    @property
    def spoke(self) -> bool:
        """What the run said is newer than the last submission."""
        if self.job is None or self.by_job:
            return True
        return self.last is not None and self.last.is_after(self.job)

    @property
    def phase(self) -> Phase | None:
        if self.job is None or not self.job.job_id:
            return None
        return self.info.phase if self.info else Phase.UNKNOWN


def is_completed(experiment: Experiment) -> bool:
    """Whether nothing else can matter: most experiments are, and then nobody needs to be asked."""
    run = experiment.state()
    if run.state != State.COMPLETED:
        return False
    return Facts(run, claims.latest(experiment)).said == State.COMPLETED


def infos_of(
    jobs: Iterable[Job | None], executor: Executor | None, force: bool = False
) -> Mapping[str, JobInfo]:
    """What the executor says of these jobs, by their ids; nothing of those that it cannot ask
    about."""
    if executor is None:
        return {}
    found = [job for job in jobs if job is not None and job.job_id]
    here = [job for job in found if executor.answers_for(job)]
    ids = [job_id for job in here for job_id in job.ids]
    infos = dict(executor.jobs(ids, force)) if ids else {}
    for job in found:
        if job not in here and executor.lost(job):
            infos |= {job_id: JobInfo(job_id, Phase.OVER, "GONE") for job_id in job.ids}
    return infos


def facts_of(experiment: Experiment, job: Job | None, infos: Mapping[str, JobInfo]) -> Facts:
    """What the folder and `infos` say."""
    run, last = experiment.state(), claims.latest(experiment)
    if Facts(run, last).said == State.COMPLETED:
        return Facts(run, last, job=job)
    info = current(job, infos)
    _, alive = claims.holder(experiment, lambda holder: _job_lives(holder, infos))
    if claims.is_taken() and (info is None or info.phase != Phase.UNKNOWN):
        alive, info = alive is True, _given_up(job, info)
    return Facts(
        run,
        last,
        alive,
        job,
        info,
        cancelled=experiment.attempt_cancelled(last.attempt) if last else "",
        in_vain=job is not None and experiment.job_number() > job.number,
        reason=lambda: reason_in(log_of(experiment, job)),
        now=_now_there(run, last),
    )


def _given_up(job: Job | None, info: JobInfo | None) -> JobInfo | None:
    """With DORA_TAKE=1: a job that nobody here can ask about.

    One that is silent for now will answer.
    """
    if info is None and job is not None and job.job_id:
        return JobInfo(job.job_id, Phase.OVER, "TAKEN")
    return info


def _now_there(run: RunState, last: Holder | None) -> float:
    """The time by the clock of a run, at the least: nobody is called silent for a clock's sake."""
    if last is None or run.updated is None:
        return time.time()
    if not last.same_boot():
        return time.time() - SKEW
    if run.beat is None:  # of an earlier version
        return time.time()
    return run.updated + time.monotonic() - run.beat  # stands still while the machine sleeps


def current(job: Job | None, infos: Mapping[str, JobInfo]) -> JobInfo | None:
    """Of a job and its dependents, the one that counts: the first that is not over, or the last
    that ran."""
    if job is None:
        return None
    known = [infos[job_id].of(job.token) for job_id in job.ids if job_id in infos]
    if not known:
        return None
    live = [info for info in known if info.phase != Phase.OVER]
    ran = [info for info in known if info.word not in ("CANCELLED", "")]  # others were not needed
    return (live or ran[-1:] or known)[0]


def _job_lives(holder: Holder, infos: Mapping[str, JobInfo]) -> bool | None:
    """For a holder that is a job: a job that waits (again) has no process."""
    info = infos.get(holder.job_id)
    if info is None or info.phase == Phase.UNKNOWN:
        return None
    return info.of(holder.token).phase == Phase.RUNNING
