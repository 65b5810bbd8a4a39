"""SLURM as an executor: sbatch.py submits; squeue, sacct and scontrol say what became of a job.

Schedulers are slow, absent, or wrong for a minute; nothing but `submit` raises because of that. It
is said once, and the answer is `UNKNOWN`, which nobody takes for an end. Nor is a job over because
it is missing in an answer, which may have been cut off: somebody must say so, squeue or sacct with
a line, or scontrol that there is no such job. One `Slurm` serves one command.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from ..experiment.records import Job
from . import sbatch
from .executor import JobInfo, Order, Phase, Receipt, tokens
from .slurm_text import SACCT_FORMAT, SQUEUE_FORMAT, read_sacct, read_scontrol, read_squeue

TIMEOUT = 30  # seconds that a question to the scheduler may take
PERIOD = 30  # seconds between two questions about the same jobs, however often the table is drawn
LAG = 2  # seconds that accounting may be behind the queue
CHUNK = 1000  # job ids in one command line
# what squeue and scontrol say of one that the controller does not know
NO_SUCH_JOB = "Invalid job id"


class Slurm:
    """Submits, cancels and asks."""

    name = "slurm"

    def __init__(self, clock: Callable[[], float] = time.monotonic, why: str = "sbatch found"):
        self._clock, self._why = clock, why
        self._infos: dict[str, JobInfo] = {}
        self._asked = float("-inf")
        # the controller said that there is no such job; ids do not come back
        self._gone: set[str] = set()
        self._said: set[str] = set()

    # --- is there a cluster? ---

    @cached_property
    def _config(self) -> tuple[str, str]:
        """(the cluster's name, why there is none)."""
        for program in ("sbatch", "srun"):  # submitit wants srun
            if shutil.which(program) is None:
                return "", f"no {program}"
        text, trouble = _run(["scontrol", "show", "config"])
        names = [
            line.partition("=")[2].strip()
            for line in text.splitlines()
            if line.startswith("ClusterName")
        ]
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
        receipt = sbatch.submit(order)
        for task in [None] if order.tasks is None else order.tasks:
            job_id = receipt.job_id if task is None else f"{receipt.job_id}_{task}"
            self._infos[job_id] = JobInfo(job_id, Phase.PENDING, "PENDING", name=order.name)
        return receipt

    def log_path(self, order: Order, job_id: str, task: int | None) -> Path:
        """submitit's name for it: `123_0_log.out`, in an array `123_7_0_log.out`."""
        return order.folder / (
            f"{job_id}_0_log.out" if task is None else f"{job_id}_{task}_0_log.out"
        )

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
        return {
            job_id
            for job_id in wanted
            if job_id not in named or (job_id in queued and wanted[job_id] in queued[job_id].name)
        }

    def lost(self, job: Job) -> bool:
        """A cluster that does not answer here may come back."""
        return False

    def move(self) -> None:
        """SLURM does so by itself."""

    # --- ask ---

    def jobs(self, job_ids: Iterable[str], force: bool = False) -> dict[str, JobInfo]:
        """What is known of these jobs, asked at most every 30 seconds but for jobs that are new to
        us."""
        wanted = set(job_ids)
        due = self._clock() - self._asked >= PERIOD
        if wanted - set(self._infos) or (
            (force or due) and any(self._may_change(job_id) for job_id in wanted)
        ):
            self._ask({job_id for job_id in wanted if self._may_change(job_id)})
        return {
            job_id: self._infos.get(job_id, JobInfo(job_id, Phase.UNKNOWN)) for job_id in wanted
        }

    def _may_change(self, job_id: str) -> bool:
        info = self._infos.get(job_id)
        return info is None or info.phase != Phase.OVER or not info.word

    def _ask(self, job_ids: set[str]) -> None:
        self._asked = self._clock()
        queued = self._squeue(job_ids)
        alive = {job_id for job_id, info in (queued or {}).items() if info.phase != Phase.OVER}
        ended = self._sacct(job_ids - alive)
        told = {job_id for job_id, info in (ended or {}).items() if info.phase == Phase.OVER}
        if queued is not None and len(told) < len(ended or {}):
            time.sleep(LAG)  # it ended a moment ago, and accounting has yet to hear of it
            ended = self._sacct(job_ids - alive)
            told = {job_id for job_id, info in (ended or {}).items() if info.phase == Phase.OVER}
        known = dict(queued or {})
        if queued is None:
            known |= ended or {}
        for job_id in job_ids - told - known.keys() - self._gone:
            if queued is not None:
                known |= self._scontrol(job_id)
        for job_id in job_ids:
            self._infos[job_id] = _judged(job_id, known, ended or {}, self._gone)

    def _squeue(self, job_ids: set[str]) -> dict[str, JobInfo] | None:
        """The jobs that the controller knows: they wait, run, or ended minutes ago.

        None: no answer.
        """
        found: dict[str, JobInfo] = {}
        for chunk in _chunks(_main_ids(job_ids)):
            text, trouble = _run(
                [
                    "squeue",
                    "--array",
                    "--states=all",
                    f"--format={SQUEUE_FORMAT}",
                    f"--jobs={','.join(chunk)}",
                ]
            )
            if trouble and NO_SUCH_JOB in trouble:  # so it answers where it knows none of them
                if len(chunk) == 1:
                    self._gone |= {job_id for job_id in job_ids if _main_ids([job_id]) == chunk}
                continue
            part = None if trouble else read_squeue(_whole_lines(text))
            if part is None:
                self._say("squeue", trouble)
                return None
            found |= part
        return found

    def _scontrol(self, job_id: str) -> dict[str, JobInfo]:
        """What the controller says of one job; if there is no such job, that is noted."""
        text, trouble = _run(["scontrol", "show", "job", "--oneliner", job_id])
        if NO_SUCH_JOB in trouble or (trouble and f"Job {job_id} not found" in text):
            self._gone.add(job_id)
        found = {} if trouble else read_scontrol(_whole_lines(text))
        if not found and job_id not in self._gone:
            self._say("scontrol", trouble)
        return found

    def _sacct(self, job_ids: set[str]) -> dict[str, JobInfo] | None:
        """The jobs that accounting knows; None: no answer."""
        found: dict[str, JobInfo] = {}
        for chunk in _chunks(_main_ids(job_ids)):
            text, trouble = _run(
                ["sacct", "--parsable2", f"--format={SACCT_FORMAT}", f"--jobs={','.join(chunk)}"]
            )
            part = None if trouble else read_sacct(_whole_lines(text))
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
        """Ids by name, of jobs that wait or run, or ended today; an array's id is that of the whole
        array.

        A name is taken for unknown if squeue and scontrol agree on that: either may be cut off.
        """
        wanted = sorted(set(names))
        found: dict[str, str] = {}
        for chunk in _chunks(wanted):
            text, trouble = _run(
                ["squeue", "--states=all", f"--format={SQUEUE_FORMAT}", f"--name={','.join(chunk)}"]
            )
            queued = None if trouble else read_squeue(_whole_lines(text))
            if queued is None:
                self._say("squeue", trouble)
                return None
            text, trouble = _run(
                [
                    "sacct",
                    "--allocations",
                    "--parsable2",
                    f"--format={SACCT_FORMAT}",
                    "--starttime=now-2days",
                    f"--name={','.join(chunk)}",
                ]
            )
            ended = None if trouble else read_sacct(_whole_lines(text))
            _note_names([*queued.values(), *(ended or {}).values()], chunk, found)
        if set(wanted) <= set(found):
            return found
        text, trouble = _run(["scontrol", "show", "job", "--oneliner"])
        if trouble or not text.strip():
            self._say("scontrol", trouble)
            return None
        _note_names(read_scontrol(_whole_lines(text)).values(), wanted, found)
        return found

    def _say(self, program: str, trouble: str) -> None:
        """One line on standard error, the first time."""
        if program not in self._said:
            self._said.add(program)
            print(
                f"{program} does not answer ({trouble or 'it printed nothing'}): nothing is assumed.",
                file=sys.stderr,
            )


def _judged(
    job_id: str, known: dict[str, JobInfo], ended: dict[str, JobInfo], gone: set[str]
) -> JobInfo:
    """The controller knows what is alive; accounting knows best how the rest ended."""
    now, past = known.get(job_id), ended.get(job_id)
    if now is not None and now.phase != Phase.OVER:
        return now
    if past is not None and past.phase == Phase.OVER:
        return past
    if now is not None:
        return now
    return JobInfo(job_id, Phase.OVER if job_id in gone else Phase.UNKNOWN)


def _note_names(jobs: Iterable[JobInfo], names: Iterable[str], found: dict[str, str]) -> None:
    """Add the jobs with these names to `found`; of several jobs of one name, the first
    submitted."""
    wanted = set(names)
    for info in jobs:
        main_id = info.job_id.partition("_")[0]
        before = found.get(info.name)
        if info.name in wanted and (before is None or int(main_id) < int(before)):
            found[info.name] = main_id


def _run(command: Sequence[str]) -> tuple[str, str]:
    """(standard output, what went wrong); the second is empty where nothing did."""
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {TIMEOUT} s"
    except OSError as error:
        return "", error.strerror or str(error)
    text, trouble = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    if done.returncode == 0:
        return text, ""
    lines = [line for line in trouble.splitlines() if line.strip()]
    return text, lines[-1] if lines else f"code {done.returncode}"


def _whole_lines(text: str) -> str:
    """Without a last line that was cut off."""
    return text[: text.rfind("\n") + 1]


def _main_ids(job_ids: Iterable[str]) -> list[str]:
    return sorted({job_id.partition("_")[0] for job_id in job_ids})


def _chunks(words: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(words), CHUNK):
        yield words[start : start + CHUNK]
