"""What squeue and sacct print, read into `JobInfo`. Pure text in, so that tests feed it what clusters really print.

Both are asked with their header line: a wrapper, or a broken cluster, that prints nothing at all is then told from
one that knows nothing of a job.
"""

import pwd
import re

from .executor import JobInfo, Phase

SQUEUE_FORMAT = "%i|%T|%r|%N|%u|%j"  # the name last: it is the only one that could hold a bar
SACCT_FORMAT = "JobID,State,ExitCode,DerivedExitCode,NodeList,User,JobName"
PENDING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
SIGNALS = 65  # and above there is none
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
    columns = lines[0].split("|")
    for line in lines[1:]:
        fields = line.split("|", len(columns) - 1)  # the name last, as in squeue
        if len(fields) == len(columns) and "." not in fields[0]:
            one = dict(zip(columns, fields))
            word, by = _word(one["State"])
            code, signal, exact = _exit(one["ExitCode"], one.get("DerivedExitCode", ""))
            for job_id in expand(one["JobID"]):
                jobs[job_id] = JobInfo(
                    job_id, phase_of(word), word, node=_node(one["NodeList"]), exit_code=code,
                    signal=signal, exact=exact, user=one["User"], by=by, name=one["JobName"])
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


def _exit(batch: str, steps: str) -> tuple[int, int, bool]:
    """The exit code of a job, the signal that ended it, and whether the code is surely none.

    srun ends with 128 + signal if one ended its task, and SLURM 22.05 takes 128 off that: 9:0 is
    the end of a killed task as well as of one that left with code 9. What the steps ended with
    tells the two apart, if accounting heard of it in time.

    Args:
        batch, steps: `code:signal` of the job's script, and the highest of its steps.
    """
    (code, signal), (highest, killed) = _pair(batch), _pair(steps)
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
