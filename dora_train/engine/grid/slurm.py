"""SLURM as an executor: sbatch through submitit, squeue and sacct for what became of a job.

Schedulers are slow, absent, or wrong for a minute; nothing but `submit` raises because of that. It is said once, and
the answer is `UNKNOWN`, which nobody takes for an end. One `Slurm` serves one command.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from ..store import Job
from .executor import JobInfo, NoRoom, NotSubmitted, Order, Phase, Receipt, Unanswered, outside, tokens
from .slurm_text import SACCT_FORMAT, SQUEUE_FORMAT, read_sacct, read_squeue

TIMEOUT = 30  # seconds that a question to the scheduler may take
PERIOD = 30  # seconds between two questions about the same jobs, however often the table is drawn
LAG = 2  # seconds that accounting may be behind the queue
CHUNK = 1000  # job ids in one command line
MAYBE_SUBMITTED = ("timed out", "timeout", "unable to contact", "connection", "zero bytes", "communication")
# AssocMaxSubmitJobLimit, QOSGrpSubmitJobsLimit ...: by name, since the sentence beside it speaks of sizes and times too
FULL = re.compile(r"(Assoc|QOS)\w*Submit\w*Limit|resource temporarily unavailable", re.IGNORECASE)
TOO_MANY = "invalid job array specification"  # more tasks than the cluster's MaxArraySize


class Slurm:
    """Submits, cancels and asks."""

    name = "slurm"

    def __init__(self, clock: Callable[[], float] = time.monotonic, why: str = "sbatch found"):
        self._clock, self._why = clock, why
        self._infos: dict[str, JobInfo] = {}
        self._asked = float("-inf")
        self._said: set[str] = set()

    # --- is there a cluster? ---

    @cached_property
    def _config(self) -> tuple[str, str]:
        """(the cluster's name, why there is none)."""
        for program in ("sbatch", "srun"):  # submitit wants srun
            if shutil.which(program) is None:
                return "", f"no {program}"
        text, trouble = _run(["scontrol", "show", "config"])
        names = [line.partition("=")[2].strip() for line in text.splitlines() if line.startswith("ClusterName")]
        if not names:
            return "", f"sbatch is here, but no cluster answers ({trouble or 'no ClusterName'})"
        return names[0], ""

    @property
    def queue(self) -> str:
        return self._config[0]

    def where(self) -> str:
        return f'on SLURM ({self._why}, cluster "{self.queue}")'

    def missing(self) -> str:
        return self._config[1]

    def answers_for(self, job: Job) -> bool:
        return job.cluster != "local" and not self.missing() and job.queue in ("", self.queue)

    # --- submit ---

    def submit(self, order: Order) -> Receipt:
        """Give one order to sbatch.

        Raises:
            NotSubmitted: it was refused.
            Unanswered: whether there is a job now, is not known.
        """
        order.folder.mkdir(parents=True, exist_ok=True)
        after = f"afterany:{':'.join(order.after)}" if order.after else None
        with _interrupts_wait(), _clean_environment():
            first = self._sbatch(order, after, requeue=not order.dependents)
            chain = [first]
            for number in range(order.dependents):
                last = number == order.dependents - 1
                chain.append(self._sbatch(order, f"afternotok:{chain[-1]}", requeue=last))
        for job_id in [first] if order.tasks is None else [f"{first}_{task}" for task in order.tasks]:
            self._infos[job_id] = JobInfo(job_id, Phase.PENDING, "PENDING", name=order.name)
        return Receipt(first, chain[1:])

    def _sbatch(self, order: Order, dependency: str | None, requeue: bool) -> str:
        more: dict[str, Any] = {"requeue" if requeue else "no-requeue": True}
        if dependency:
            more |= {"dependency": dependency, "kill-on-invalid-dep": "yes"}
        chosen = dict(order.parameters)
        if order.tasks is not None:
            more["array"] = f"{_ranges(order.tasks)}%{chosen.get('array_parallelism', 256)}"
        if "nodelist" in chosen:
            more["nodelist"] = chosen.pop("nodelist")
        setup = [*chosen.pop("setup", []), *order.setup]
        given = chosen.pop("additional_parameters", {})
        chosen = {key: value for key, value in chosen.items() if key.replace("_", "-") not in given}
        more |= {key: value for key, value in given.items() if value not in (None, "", False)}
        from .. import upstream  # here: it imports Dora, and with it torch; whoever only asks has no need of it

        try:
            return upstream.sbatch(
                order.folder, order.command, array=len(order.tasks or ()),
                parameters=chosen | {"job_name": order.name, "stderr_to_stdout": True, "setup": setup,
                                     "additional_parameters": more})
        except subprocess.CalledProcessError as error:
            raise _refusal(str(error.stderr), error.returncode, array=order.tasks is not None) from error

    def log_path(self, order: Order, job_id: str, task: int | None) -> Path:
        """submitit's name for it: `123_0_log.out`, in an array `123_7_0_log.out`."""
        return order.folder / (f"{job_id}_0_log.out" if task is None else f"{job_id}_{task}_0_log.out")

    # --- cancel ---

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Ids that the scheduler does not know (any more) are passed over."""
        for chunk in _chunks(sorted(self._still_ours(tokens(job_ids)))):
            _, trouble = _run(["scancel", *chunk])
            if trouble and "Invalid job id" not in trouble:
                self._say("scancel", trouble)
        self._asked = float("-inf")

    def _still_ours(self, wanted: Mapping[str, str]) -> set[str]:
        """The ids whose jobs' names hold their token: an id may be another's by now."""
        named = {job_id for job_id, token in wanted.items() if token}
        queued = self._squeue(named) if named else {}
        if queued is None:  # said by now, and nothing is cancelled that may be another's
            return set(wanted) - named
        return {job_id for job_id in wanted if job_id not in named
                or (job_id in queued and wanted[job_id] in queued[job_id].name)}

    def lost(self, job: Job) -> bool:
        """A cluster that does not answer here may come back."""
        return False

    def move(self) -> None:
        """SLURM does so by itself."""

    # --- ask ---

    def jobs(self, job_ids: Iterable[str], force: bool = False) -> dict[str, JobInfo]:
        """What is known of these jobs, asked at most every 30 seconds but for jobs that are new to us."""
        wanted = set(job_ids)
        due = self._clock() - self._asked >= PERIOD
        if wanted - set(self._infos) or ((force or due) and any(self._may_change(job_id) for job_id in wanted)):
            self._ask({job_id for job_id in wanted if self._may_change(job_id)})
        return {job_id: self._infos.get(job_id, JobInfo(job_id, Phase.UNKNOWN)) for job_id in wanted}

    def _may_change(self, job_id: str) -> bool:
        info = self._infos.get(job_id)
        return info is None or info.phase != Phase.OVER or not info.word

    def _ask(self, job_ids: set[str]) -> None:
        self._asked = self._clock()
        queued = self._squeue(job_ids)
        ended = self._sacct({job_id for job_id in job_ids if job_id not in (queued or {})})
        if queued is not None and any(info.phase != Phase.OVER for info in (ended or {}).values()):
            time.sleep(LAG)  # it left the queue a moment ago, and accounting has yet to hear of it
            ended = self._sacct({job_id for job_id in job_ids if job_id not in queued})
        for job_id in job_ids:
            self._infos[job_id] = _judged(job_id, queued, ended)

    def _squeue(self, job_ids: set[str]) -> dict[str, JobInfo] | None:
        """The jobs that wait or run; None: no answer."""
        found: dict[str, JobInfo] = {}
        for chunk in _chunks(_main_ids(job_ids)):
            text, trouble = _run(["squeue", "--array", f"--format={SQUEUE_FORMAT}", f"--jobs={','.join(chunk)}"])
            if trouble and "Invalid job id" in trouble:  # so it answers where it knows none of them
                continue
            part = None if trouble else read_squeue(text)
            if part is None:
                self._say("squeue", trouble)
                return None
            found |= part
        return found

    def _sacct(self, job_ids: set[str]) -> dict[str, JobInfo] | None:
        """The jobs that accounting knows; None: no answer."""
        found: dict[str, JobInfo] = {}
        for chunk in _chunks(_main_ids(job_ids)):
            text, trouble = _run(["sacct", "--parsable2", f"--format={SACCT_FORMAT}",
                                  f"--jobs={','.join(chunk)}"])
            part = None if trouble else read_sacct(text)
            if part is None:
                self._say("sacct", trouble)
                return None
            found |= part
        return found

    def is_running(self, job_id: str, token: str = "") -> bool | None:
        """Whether a job runs now, and its name holds the token; None: SLURM cannot say.

        One that waits (again) has no process.
        """
        if not job_id or shutil.which("squeue") is None:
            return None
        phase = self.jobs([job_id])[job_id].of(token).phase
        return None if phase == Phase.UNKNOWN else phase == Phase.RUNNING

    def find(self, names: Iterable[str]) -> dict[str, str] | None:
        """Ids by name, of jobs that wait or run, or ended today; an array's id is that of the whole array."""
        wanted = sorted(set(names))
        found: dict[str, str] = {}
        for chunk in _chunks(wanted):
            text, trouble = _run(["squeue", f"--format={SQUEUE_FORMAT}", f"--name={','.join(chunk)}"])
            queued = None if trouble else read_squeue(text)
            if queued is None:
                self._say("squeue", trouble)
                return None
            text, trouble = _run(["sacct", "--allocations", "--parsable2", f"--format={SACCT_FORMAT}",
                                  "--starttime=now-2days", f"--name={','.join(chunk)}"])
            ended = None if trouble else read_sacct(text)
            for info in [*(ended or {}).values(), *queued.values()]:
                if info.name in chunk:
                    found.setdefault(info.name, info.job_id.partition("_")[0])
        return found

    def _say(self, program: str, trouble: str) -> None:
        """One line on standard error, the first time."""
        if program not in self._said:
            self._said.add(program)
            print(f"{program} does not answer ({trouble or 'it printed nothing'}): nothing is assumed.",
                  file=sys.stderr)


def _refusal(text: str, code: int, array: bool) -> NotSubmitted | Unanswered:
    """What sbatch's complaint means, with the line of it that says most."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Try ")] or [f"code {code}"]
    if FULL.search(text) or (array and TOO_MANY in text.lower()):
        return NoRoom(next((line for line in lines if FULL.search(line)), lines[-1]))
    kind = Unanswered if any(word in text.lower() for word in MAYBE_SUBMITTED) else NotSubmitted
    return kind(f"SLURM refused the job: {lines[-1]}")


def _judged(job_id: str, queued: dict[str, JobInfo] | None, ended: dict[str, JobInfo] | None) -> JobInfo:
    """The queue knows what is alive; accounting knows how the rest ended."""
    if queued is not None and job_id in queued:
        return queued[job_id]
    past = (ended or {}).get(job_id)
    if past is not None and (past.phase == Phase.OVER or queued is None):
        return past
    if queued is None:
        return JobInfo(job_id, Phase.UNKNOWN)
    return JobInfo(job_id, Phase.OVER)  # not in the queue, and accounting has nothing on it, or a runaway


def _run(command: Sequence[str]) -> tuple[str, str]:
    """(standard output, what went wrong); the second is empty where nothing did."""
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT,
                              check=False)
    except subprocess.TimeoutExpired:
        return "", f"no answer within {TIMEOUT} s"
    except OSError as error:
        return "", error.strerror or str(error)
    text, trouble = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    if done.returncode == 0:
        return text, ""
    lines = [line for line in trouble.splitlines() if line.strip()]
    return text, lines[-1] if lines else f"code {done.returncode}"


def _main_ids(job_ids: Iterable[str]) -> list[str]:
    return sorted({job_id.partition("_")[0] for job_id in job_ids})


def _chunks(words: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(words), CHUNK):
        yield words[start:start + CHUNK]


def _ranges(tasks: Sequence[int]) -> str:
    """`0-3,7`: an array of 1,000 in a few letters.

    >>> _ranges([0, 1, 2, 3, 7])
    '0-3,7'
    """
    runs: list[list[int]] = []
    for task in tasks:
        if runs and task == runs[-1][1] + 1:
            runs[-1][1] = task
        else:
            runs.append([task, task])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the id of a job is known: a job that nobody wrote down would be the price."""
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Without what an outer job, or a rank, left in the environment: sbatch hands all of it to the new job."""
    taken = {key: value for key, value in os.environ.items() if outside(key)}
    for key in taken:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(taken)
