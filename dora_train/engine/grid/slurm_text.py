"""What squeue and sacct print, read into `JobInfo`. Pure text in, so that tests feed it what clusters really print.

Both are asked with their header line: a wrapper, or a broken cluster, that prints nothing at all is then told from
one that knows nothing of a job. An answer may be cut off: a line counts if it is whole, and a line that is not there
says nothing (slurm.py).
"""

import pwd
import re

from .executor import JobInfo, Phase

SQUEUE_FORMAT = "%i|%T|%r|%N|%u|%j"  # the name last: it is the only one that could hold a bar
SACCT_FORMAT = "JobID,State,ExitCode,NodeList,User,JobName"
PENDING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
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
            found += [f"{main}_{index}" for index in range(int(first), int(last) + 1, int(step or 1))]
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
                jobs[job_id] = JobInfo(job_id, phase_of(word), word, reason=reason, node=node, user=user, name=name)
    return jobs


def read_sacct(text: str) -> dict[str, JobInfo] | None:
    """Jobs by id, the steps of a job left out; None where this is not sacct's answer."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("JobID|"):
        return None
    jobs = {}
    for line in lines[1:]:
        fields = line.split("|", 5)
        if len(fields) == 6 and "." not in fields[0]:
            ids, state, exits, node, user, name = fields
            word, by = _word(state)
            code, signal = _exit(exits)
            for job_id in expand(ids):
                jobs[job_id] = JobInfo(job_id, phase_of(word), word, node=_node(node), exit_code=code, signal=signal,
                                       user=user, by=by, name=name)
    return jobs


def read_scontrol(text: str) -> dict[str, JobInfo]:
    """Jobs by id, as `scontrol show job --oneliner` prints them; what is no such line says nothing."""
    jobs = {}
    for line in text.splitlines():
        values = dict(reversed(SCONTROL.findall(line)))  # the first of a key: a comment may hold any text
        if not {"JobId", "JobName", "JobState"} <= values.keys():
            continue
        ids = values["JobId"]
        if "ArrayTaskId" in values:  # of tasks that wait, several: "0-3,7%2"
            ids = f"{values['ArrayJobId']}_[{values['ArrayTaskId']}]"
        for job_id in expand(ids):
            jobs[job_id] = JobInfo(job_id, phase_of(values["JobState"]), values["JobState"],
                                   name=values["JobName"])
    return jobs


def _word(state: str) -> tuple[str, str]:
    """`"CANCELLED by 1000"` or `"CANCELLED+"` as the word, and the user's name where one is given."""
    word, _, by = state.strip().partition(" by ")
    return word.rstrip("+").strip(), _user(by.strip())


def _user(uid: str) -> str:
    try:
        return pwd.getpwuid(int(uid)).pw_name if uid.isdigit() else uid
    except KeyError:  # a user of another machine
        return f"user {uid}"


def _exit(text: str) -> tuple[int, int]:
    """`code:signal`; srun reports a task that a signal ended as code 128 + signal."""
    code, _, signal = text.partition(":")
    if not (code.isdigit() and signal.isdigit()):
        return 0, 0
    return (0, int(code) - 128) if int(code) > 128 else (int(code), int(signal))


def _node(text: str) -> str:
    return "" if text in ("None assigned", "(null)") else text
