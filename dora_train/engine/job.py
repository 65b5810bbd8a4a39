"""The program that a job starts on its node, once per rank:

`python CODE/dora_train/engine/job.py FOLDER TOKEN`

It is run as a file, so that it imports the code beside it: a snapshot, or the live folder.
`python -m` would put the working directory first, and so the files as they are now. FOLDER is the
experiment's, and TOKEN names its submission. The tasks of an array find theirs in a list:
`job.py LIST`.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dora_train.engine.experiment.records import Job


def main() -> None:
    _import_from(Path(__file__).resolve().parents[2])
    folder, token = _assignment(sys.argv[1:])
    os.environ["DORA_TRAIN_JOB"] = token
    os.environ["DORA_TRAIN_JOB_ID"] = job_id()
    os.environ["DORA_DIR"] = str(folder.parents[1])
    from dora_train.engine import output
    from dora_train.engine.run.signals import Signals

    output.prepare(never_fails=True)
    # Before the imports, which take seconds: an early signal must not end it without a message.
    signals = Signals().install()
    from dora_train.engine.experiment.folder import Experiment
    from dora_train.train import main as train_main

    try:
        train_main.run_job(Experiment(folder), token, signals)
    except SystemExit as leaving:
        was_signalled = isinstance(leaving.code, int) and leaving.code > 128
        is_first_rank = os.environ.get("SLURM_PROCID", "0") == "0"
        if was_signalled and is_first_rank:
            requeue(most_requeues(Experiment(folder).job()))
        raise


def _import_from(code: Path) -> None:
    """Let Python import the project from this folder, before all others.

    `PYTHONPATH` may name a folder of the live project, e.g. `src`. It is replaced by the same
    folder of this code. The live project is the working directory.
    """
    sys.path[0] = str(code)
    for at, entry in enumerate(sys.path[1:], 1):
        part = os.path.relpath(os.path.realpath(entry), Path.cwd())
        if not part.startswith("..") and (code / part).is_dir():
            sys.path[at] = str(code / part)


def _assignment(argv: list[str]) -> tuple[Path, str]:
    """The experiment's folder, and the token of its submission."""
    if len(argv) == 2:
        return Path(argv[0]), argv[1]
    folder, token = json.loads(Path(argv[0]).read_text(encoding="utf-8"))[task()]
    return Path(folder), token


def task() -> int:
    """This job's index in an array. 0: it is no part of an array."""
    for variable in ("DORA_TRAIN_TASK", "SLURM_ARRAY_TASK_ID"):
        if os.environ.get(variable):
            return int(os.environ[variable])
    return 0


def job_id() -> str:
    """The job's id in the local queue, or in SLURM's accounting: a task of an array is `JOB_TASK`."""
    if os.environ.get("DORA_TRAIN_JOB_ID"):
        return os.environ["DORA_TRAIN_JOB_ID"]
    if os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID", "")


def most_requeues(job: "Job | None") -> int | None:
    """How often a job may be started again (`slurm.max_num_timeout`). None: no limit is known."""
    if job is None:
        return None
    slurm = job.excluded.get("slurm")
    most = slurm.get("max_num_timeout") if isinstance(slurm, dict) else None
    return most if isinstance(most, int) else None


def requeue(most: int | None = None) -> None:
    """Let SLURM start this job again, after a signal that was not a cancellation.

    Then SLURM takes the job for running. A cancelled or preempted job is COMPLETING by now, and
    SLURM decides about it. A job with dependents may not be requeued: the next of those takes over.

    Args:
        most: how often it may be started again. None: without a limit.
    """
    # The local queue starts no job again by itself. The next `dora grid` does. A member of a packed
    # job leaves that to the program of the job (pack.py).
    if "SLURM_JOB_ID" not in os.environ or os.environ.get("DORA_TRAIN_PACKED"):
        return
    if most is not None and int(os.environ.get("SLURM_RESTART_COUNT") or 0) >= most:
        print(f"job {job_id()} is not requeued again: slurm.max_num_timeout={most}", flush=True)
        return
    mine = job_id()  # not SLURM_JOB_ID: for a task of an array, that may name the whole array
    try:
        if _state(mine) != "RUNNING":
            return
        done = _run("scontrol", "requeue", mine)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"could not requeue job {mine}: {error}", flush=True)
        return
    if done.returncode == 0:
        print(f"requeued job {mine}", flush=True)
    else:
        print(f"job {mine} is not requeued: {done.stderr.strip()}", flush=True)


def _state(job_id: str) -> str:
    """The job's state in SLURM's word.

    A busy squeue may print nothing. Then scontrol is asked.
    """
    shown = _run("squeue", "-h", "-j", job_id, "-o", "%T").stdout.strip()
    if shown:
        return shown
    found = re.search(r"\bJobState=(\w+)", _run("scontrol", "show", "job", "-o", job_id).stdout)
    return found[1] if found else ""


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


if __name__ == "__main__":
    main()
