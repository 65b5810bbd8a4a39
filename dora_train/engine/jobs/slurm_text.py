"""What squeue and sacct print, read into `JobInfo`.

Pure text in, so that tests feed it what clusters really print.

Both are asked with their header line: a wrapper, or a broken cluster, that prints nothing at all is
then told from one that knows nothing of a job. An answer may be cut off: a line counts if it is
whole, and a line that is not there says nothing (slurm.py).
"""

import pwd
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .executor import JobInfo, Phase

SQUEUE_FORMAT = "%i|%T|%r|%N|%u|%j"  # the name last: it is the only one that could hold a bar
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
SIGNALS = 65  # and above there is none
SCONTROL = re.compile(r"\b(JobId|ArrayJobId|ArrayTaskId|JobName|JobState)=(\S+)")
ARRAY = re.compile(r"(\d+)_\[([^\]%]*)(?:%\d+)?\]?")


def expand(job_id: str) -> list[str]:
    """The ids that one printed id stands for.

    >>> expand("123_[0-2,7%2]")
    ['123_0', '123_1', '123_2', '123_7']
    >>> expand("123+1")  # a part of a heterogeneous job
    ['123']
    """
    match = ARRAY.match(job_id)
    if match is None:
        return [job_id.partition("+")[0].partition(".")[0]]
    main, found = match[1], []
    for part in match[2].split(","):
        first, _, rest = part.partition("-")
        last, _, step = (rest or first).partition(":")
        if first.isdigit() and last.isdigit():  # squeue cuts long lists short: "0-3,..."
            found += [
                f"{main}_{index}" for index in range(int(first), int(last) + 1, int(step or 1))
            ]
    return found


def phase_of(word: str) -> Phase:
    return Phase.PENDING if word in PENDING else Phase.RUNNING if word in RUNNING else Phase.OVER


def read_squeue(text: str) -> dict[str, JobInfo] | None:
    """Jobs by id; None where this is not squeue's answer."""
    lines = text.splitlines()
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
    """Jobs by id; None if this is not sacct's answer.

    The lines of their steps help to tell an end.
    """
    lines = text.splitlines()
    if not lines or not lines[0].startswith("JobID|"):
        return None
    columns = lines[0].split("|")
    found = [line.split("|", len(columns) - 1) for line in lines[1:]]  # the name last, as in squeue
    rows = [dict(zip(columns, fields)) for fields in found if len(fields) == len(columns)]
    steps = _steps(rows)
    jobs = {}
    for row in rows:
        if "." not in row["JobID"]:
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
    """Empty if it is not known yet.

    If a step's start reaches the database before its job's does, slurmdbd 22.05 makes a row for the
    job that is named "allocation", for a second or so.
    """
    return "" if name == "allocation" else name


def _steps(rows: Iterable[Mapping[str, str]]) -> Mapping[str, list[str]]:
    """How srun's tasks ended, by job: the steps that have a number."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        job_id, _, step = row["JobID"].partition(".")
        if step.isdigit():
            found[job_id].append(row["ExitCode"])
    return found


def read_scontrol(text: str) -> dict[str, JobInfo]:
    """Jobs by id, as `scontrol show job --oneliner` prints them; what is no such line says
    nothing."""
    jobs = {}
    for line in text.splitlines():
        # the first of a key: a comment may hold any text
        values = dict(reversed(SCONTROL.findall(line)))
        if not {"JobId", "JobName", "JobState"} <= values.keys():
            continue
        ids = values["JobId"]
        if "ArrayTaskId" in values:  # of tasks that wait, several: "0-3,7%2"
            ids = f"{values['ArrayJobId']}_[{values['ArrayTaskId']}]"
        for job_id in expand(ids):
            jobs[job_id] = JobInfo(
                job_id, phase_of(values["JobState"]), values["JobState"], name=values["JobName"]
            )
    return jobs


def _word(state: str) -> tuple[str, str]:
    """`"CANCELLED by 1000"` or `"CANCELLED+"` as the word, and the user's name where one is
    given."""
    word, _, by = state.strip().partition(" by ")
    return word.rstrip("+").strip(), _user(by.strip())


def _user(uid: str) -> str:
    try:
        return pwd.getpwuid(int(uid)).pw_name if uid.isdigit() else uid
    except KeyError:  # a user of another machine
        return f"user {uid}"


def _exit(batch: str, tasks: Sequence[str]) -> tuple[int, int, bool]:
    """The exit code of a job, the signal that ended it, and whether the code is surely none.

    srun ends with 128 + signal if one ended its task, and SLURM 22.05 takes 128 off that: 9:0 is
    the end of a killed task as well as of one that left with code 9. Its tasks tell the two apart.

    Args:
        batch: `code:signal` of the job's script.
        tasks: the highest of its steps, then each of them; accounting may not have heard of all.
    """
    (code, signal), ends = _pair(batch), [_pair(task) for task in tasks]
    highest = max((code for code, _ in ends), default=0)
    killed = max((signal for _, signal in ends), default=0)
    if killed and code in (killed, 128 + killed):
        return 0, killed, True
    if highest > 128 and code == highest - 128:
        code = highest
    if code > 128:
        return (0, code - 128, True) if code - 128 < SIGNALS else (code, 0, True)
    return code, signal, bool(highest) or not code


def _pair(text: str) -> tuple[int, int]:
    code, _, signal = text.partition(":")
    return (int(code), int(signal)) if code.isdigit() and signal.isdigit() else (0, 0)


def _node(text: str) -> str:
    return "" if text in ("None assigned", "(null)") else text
