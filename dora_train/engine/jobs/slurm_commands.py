"""SLURM's commands (squeue, sacct, scontrol, scancel), each with a time limit.

A scheduler may be slow, absent, or wrong for a minute. None of these functions raises because of
that. It is reported once, and the answer is None. slurm.py judges the answers.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from .executor import JobInfo
from .slurm_text import SACCT_FORMAT, SQUEUE_FORMAT, read_sacct, read_scontrol, read_squeue

TIMEOUT = 30  # seconds that a question to the scheduler may take
CHUNK = 1000  # job ids in one command line, which must not get too long
# what squeue, scancel and scontrol say of a job that the controller does not know
NO_SUCH_JOB = "Invalid job id"

Jobs = dict[str, JobInfo]  # by job id


class Commands:
    """The commands of one cluster."""

    def __init__(self) -> None:
        # the controller said that there is no such job; ids do not come back
        self.gone: set[str] = set()
        self._reported: set[str] = set()

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel jobs. Ids that the scheduler does not know, or knows no more, are ignored."""
        for chunk in _chunks(sorted(job_ids)):
            _, trouble = _run(["scancel", *chunk])
            if trouble and NO_SUCH_JOB not in trouble:
                self._report("scancel", trouble)

    def queued(self, job_ids: set[str]) -> Jobs | None:
        """The jobs that the controller knows: they wait, run, or ended minutes ago.

        None: no answer.
        """
        found: Jobs = {}
        for chunk in _chunks(_main_ids(job_ids)):
            part, trouble = _squeue("--array", f"--jobs={','.join(chunk)}")
            if NO_SUCH_JOB in trouble:  # squeue's answer if it knows none of them
                if len(chunk) == 1:  # of several, scontrol is asked about each
                    self.gone |= {job_id for job_id in job_ids if _main_ids([job_id]) == chunk}
                continue
            if part is None:
                self._report("squeue", trouble)
                return None
            found |= part
        return found

    def shown(self, job_id: str) -> Jobs:
        """The controller's answer on one job. If there is no such job, it is noted as gone."""
        text, trouble = _run(["scontrol", "show", "job", "--oneliner", job_id])
        if trouble and (NO_SUCH_JOB in trouble or f"Job {job_id} not found" in text):
            self.gone.add(job_id)
            return {}
        found = {} if trouble else read_scontrol(_whole_lines(text))
        if not found:
            self._report("scontrol", trouble)
        return found

    def ended(self, job_ids: set[str]) -> Jobs | None:
        """The jobs that accounting knows. None: no answer."""
        found: Jobs = {}
        for chunk in _chunks(_main_ids(job_ids)):
            part, trouble = _sacct(f"--jobs={','.join(chunk)}")
            if part is None:
                self._report("sacct", trouble)
                return None
            found |= part
        return found

    def find(self, names: Iterable[str]) -> dict[str, str] | None:
        """Job ids by name, of jobs that wait or run, or ended today. None: no answer.

        The id of an array's job is that of the whole array. A name is taken for unknown only if
        squeue and scontrol agree on that, as the answer of either may be cut off.
        """
        wanted = sorted(set(names))
        found: dict[str, str] = {}
        for chunk in _chunks(wanted):
            by_name = f"--name={','.join(chunk)}"
            queued, trouble = _squeue(by_name)
            if queued is None:
                self._report("squeue", trouble)
                return None
            # sacct looks at today only, and a job may have ended just before midnight
            ended, _ = _sacct("--allocations", "--starttime=now-2days", by_name)
            _note_names([*queued.values(), *(ended or {}).values()], chunk, found)
        if set(wanted) <= set(found):
            return found
        text, trouble = _run(["scontrol", "show", "job", "--oneliner"])
        if trouble or not text.strip():
            self._report("scontrol", trouble)
            return None
        _note_names(read_scontrol(_whole_lines(text)).values(), wanted, found)
        return found

    def _report(self, program: str, trouble: str) -> None:
        """Print one line on standard error, the first time that a program does not answer."""
        if program not in self._reported:
            self._reported.add(program)
            print(
                f"{program} does not answer ({trouble or 'it printed nothing'}): nothing is assumed.",
                file=sys.stderr,
            )


def cluster() -> tuple[str, str]:
    """(the cluster's name, why there is none). One of the two is empty."""
    for program in ("sbatch", "srun"):  # submitit wants srun
        if shutil.which(program) is None:
            return "", f"no {program}"
    text, trouble = _run(["scontrol", "show", "config"])
    for line in text.splitlines():
        if line.startswith("ClusterName"):
            return line.partition("=")[2].strip(), ""
    return "", f"sbatch is here, but no cluster answers ({trouble or 'no ClusterName'})"


def _note_names(jobs: Iterable[JobInfo], names: Iterable[str], found: dict[str, str]) -> None:
    """Add the jobs with these names to `found`. Of several with one name, the first submitted."""
    wanted = set(names)
    for info in jobs:
        main_id = info.job_id.partition("_")[0]
        before = found.get(info.name)
        if info.name in wanted and (before is None or int(main_id) < int(before)):
            found[info.name] = main_id


def _squeue(*options: str) -> tuple[Jobs | None, str]:
    """(the jobs by id, or None without an answer, and what went wrong)."""
    # all states: else a job that ended minutes ago would be missing in the answer
    command = ["squeue", "--states=all", f"--format={SQUEUE_FORMAT}", *options]
    return _read(read_squeue, command)


def _sacct(*options: str) -> tuple[Jobs | None, str]:
    """(the jobs by id, or None without an answer, and what went wrong)."""
    return _read(read_sacct, ["sacct", "--parsable2", f"--format={SACCT_FORMAT}", *options])


def _read(reader: Callable[[str], Jobs | None], command: list[str]) -> tuple[Jobs | None, str]:
    text, trouble = _run(command)
    if trouble:
        return None, trouble
    return reader(_whole_lines(text)), ""


def _run(command: Sequence[str]) -> tuple[str, str]:
    """(standard output, what went wrong). The second is empty if nothing did."""
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {TIMEOUT} s"
    except OSError as error:
        return "", error.strerror or str(error)
    text = done.stdout.decode(errors="replace")
    if done.returncode == 0:
        return text, ""
    lines = list(filter(str.strip, done.stderr.decode(errors="replace").splitlines()))
    return text, lines[-1] if lines else f"code {done.returncode}"


def _whole_lines(text: str) -> str:
    """The text without a last line that was cut off."""
    return text[: text.rfind("\n") + 1]


def _main_ids(job_ids: Iterable[str]) -> list[str]:
    """The ids of the jobs, and of the whole arrays: `12` of `12_3`."""
    return sorted({job_id.partition("_")[0] for job_id in job_ids})


def _chunks(words: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(words), CHUNK):
        yield words[start : start + CHUNK]
