"""Reads the output of squeue, sacct and scontrol into `JobInfo`.

The functions take plain text, so that tests give them the real output of clusters.

squeue and sacct are called with their header line. A wrapper or a broken cluster may print nothing
at all, and the header tells this from a cluster that does not know a job. An answer may be cut off.
So a line counts only if it is whole, and a missing line says nothing (slurm.py).
"""

import pwd
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .executor import JobInfo, Phase

SQUEUE_FORMAT = "%i|%T|%r|%N|%u|%j"  # the name is last, as only it could hold a bar
SACCT_FORMAT = "JobID,State,ExitCode,DerivedExitCode,NodeList,User,JobName"
PENDING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {
    "RUNNING",
    "COMPLETING",
    "CONFIGURING",
    "SUSPENDED",
    "STOPPED",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
}
SIGNALS = 65  # Linux has no signal of this number or above
SCONTROL = re.compile(r"\b(JobId|ArrayJobId|ArrayTaskId|JobName|JobState)=(\S+)")
ARRAY = re.compile(r"(\d+)_\[([^\]%]*)(?:%\d+)?\]?")


def expand(job_id: str) -> list[str]:
    """The ids that one printed id stands for: those of an array's tasks.

    >>> expand("123_[0-2,7%2]")
    ['123_0', '123_1', '123_2', '123_7']
    >>> expand("123+1")  # a part of a heterogeneous job
    ['123']
    """
    match = ARRAY.match(job_id)
    if match is None:
        return [job_id.partition("+")[0].partition(".")[0]]
    found = []
    for part in match[2].split(","):
        first, _, rest = part.partition("-")
        last, _, step = (rest or first).partition(":")
        if first.isdigit() and last.isdigit():  # squeue cuts long lists short: "0-3,..."
            for index in range(int(first), int(last) + 1, int(step or 1)):
                found.append(f"{match[1]}_{index}")
    return found


def phase_of(word: str) -> Phase:
    """The phase for SLURM's word. An unknown word counts as an end."""
    if word in PENDING:
        return Phase.PENDING
    if word in RUNNING:
        return Phase.RUNNING
    return Phase.OVER


def read_squeue(text: str) -> dict[str, JobInfo] | None:
    """The jobs of squeue's answer by their ids. None if the text is not squeue's answer."""
    lines = text.splitlines()
    if lines and lines[0].startswith("CLUSTER:"):  # with SLURM_CLUSTERS, also for a single one
        del lines[0]
    if not lines or not lines[0].startswith("JOBID|"):
        return None
    jobs = {}
    for line in lines[1:]:
        fields = line.split("|", 5)
        if len(fields) == 6:
            ids, word, reason, node, user, name = fields
            for job_id in expand(ids):
                jobs[job_id] = JobInfo(
                    job_id, phase_of(word), word, reason=reason, node=node, user=user, name=name
                )
    return jobs


def read_sacct(text: str) -> dict[str, JobInfo] | None:
    """The jobs of sacct's answer by their ids. None if the text is not sacct's answer.

    The lines of the steps help to tell how a job ended.
    """
    lines = text.splitlines()
    if not lines or not lines[0].startswith("JobID|"):
        return None
    columns = lines[0].split("|")
    rows = []
    for line in lines[1:]:
        fields = line.split("|", len(columns) - 1)  # the name is last, as in squeue
        if len(fields) == len(columns):
            rows.append(dict(zip(columns, fields)))
    steps = _steps(rows)
    jobs = {}
    for row in rows:
        if "." in row["JobID"]:  # a step
            continue
        word, by = _word(row["State"])
        ended = [row.get("DerivedExitCode", ""), *steps[row["JobID"]]]
        code, signal, exact = _exit(row["ExitCode"], ended)
        for job_id in expand(row["JobID"]):
            jobs[job_id] = JobInfo(
                job_id,
                phase_of(word),
                word,
                node=_node(row["NodeList"]),
                exit_code=code,
                signal=signal,
                exact=exact,
                user=row["User"],
                by=by,
                name=_accounted_name(row["JobName"]),
            )
    return jobs


def _accounted_name(name: str) -> str:
    """The name of a job. Empty if accounting does not know it yet.

    If a step's start reaches the database before its job's does, slurmdbd 22.05 makes a row for the
    job that is named "allocation", for a second or so.
    """
    return "" if name == "allocation" else name


def _steps(rows: Iterable[Mapping[str, str]]) -> Mapping[str, list[str]]:
    """The exit codes of srun's tasks by job id. Their steps have a number, and others a word."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        job_id, _, step = row["JobID"].partition(".")
        if step.isdigit():
            found[job_id].append(row["ExitCode"])
    return found


def read_scontrol(text: str) -> dict[str, JobInfo]:
    """The jobs that `scontrol show job --oneliner` prints, by id. Other lines are ignored."""
    jobs = {}
    for line in text.splitlines():
        # the first value of a key counts, as a comment further on may hold any text
        values = dict(reversed(SCONTROL.findall(line)))
        if not {"JobId", "JobName", "JobState"} <= values.keys():
            continue
        ids = values["JobId"]
        if "ArrayTaskId" in values:  # one line for all tasks that wait: "0-3,7%2"
            ids = f"{values['ArrayJobId']}_[{values['ArrayTaskId']}]"
        for job_id in expand(ids):
            jobs[job_id] = JobInfo(
                job_id, phase_of(values["JobState"]), values["JobState"], name=values["JobName"]
            )
    return jobs


def _word(state: str) -> tuple[str, str]:
    """(the word, the user's name or empty) of `CANCELLED by 1000` or `CANCELLED+`."""
    word, _, by = state.strip().partition(" by ")
    return word.rstrip("+").strip(), _user(by.strip())


def _user(uid: str) -> str:
    if not uid.isdigit():
        return uid
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except KeyError:  # a user of another machine
        return f"user {uid}"


def _exit(batch: str, tasks: Sequence[str]) -> tuple[int, int, bool]:
    """(the exit code of a job, the signal that ended it, whether the code is surely no signal).

    srun ends with 128 + signal if a signal ended its task, and SLURM 22.05 subtracts 128 from that.
    So 9:0 is the end of a killed task, and also of a task that ended with code 9. The tasks tell
    the two apart.

    Args:
        batch: `code:signal` of the job's script.
        tasks: the highest `code:signal` of the steps, then that of each step. Accounting may not
            know all of them yet.
    """
    code, signal = _pair(batch)
    highest = killed = 0
    for task in tasks:
        task_code, task_signal = _pair(task)
        highest, killed = max(highest, task_code), max(killed, task_signal)
    if killed and code in (killed, 128 + killed):
        return 0, killed, True
    if highest > 128 and code == highest - 128:
        code = highest
    if 128 < code < 128 + SIGNALS:
        return 0, code - 128, True
    if code > 128:
        return code, 0, True
    return code, signal, highest > 0 or code == 0


def _pair(text: str) -> tuple[int, int]:
    """`3:9` as (3, 9). Any other text is (0, 0)."""
    code, _, signal = text.partition(":")
    if code.isdigit() and signal.isdigit():
        return int(code), int(signal)
    return 0, 0


def _node(text: str) -> str:
    return "" if text in ("None assigned", "(null)") else text
