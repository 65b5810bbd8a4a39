"""What a job starts with:

`python CODE/dora_train/engine/job.py FOLDER TOKEN`, on the node, once a rank.

Run as a file, so that the code it lies in is the code that runs: a snapshot, or the live folder.
`python -m` would put the working directory first, and with it the files as they are now. The
experiment comes in by its folder and the token of its submission; an array's tasks find theirs in a
list: `job.py LIST`.
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
    os.environ["DORA_TRAIN_JOB_ID"] = _job_id()
    os.environ["DORA_DIR"] = str(folder.parents[1])
    from dora_train.engine import output
    from dora_train.engine.run.signals import Signals

    output.prepare(never_fails=True)
    # before the imports that take seconds: an early signal must not kill unsaid
    signals = Signals().install()
    from dora_train.engine.experiment.folder import Experiment
    from dora_train.train import main as train_main

    try:
        train_main.run_job(Experiment(folder), token, signals)
    except SystemExit as leaving:
        if (
            isinstance(leaving.code, int)
            and leaving.code > 128
            and os.environ.get("SLURM_PROCID", "0") == "0"
        ):
            _requeue(_most_requeues(Experiment(folder).job()))
        raise


def _import_from(code: Path) -> None:
    """Import the project from this folder, first of all.

    `PYTHONPATH` may name a part of the live folder, which is the working directory: `src`, say. It
    becomes that part of this folder.
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
    entries = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    folder, token = entries[
        int(os.environ.get("DORA_TRAIN_TASK") or os.environ["SLURM_ARRAY_TASK_ID"])
    ]
    return Path(folder), token


def _job_id() -> str:
    """As the local queue says, or as sacct names it: an array's task is `JOB_TASK`."""
    if os.environ.get("DORA_TRAIN_JOB_ID"):
        return os.environ["DORA_TRAIN_JOB_ID"]
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return (
        f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        if array
        else os.environ.get("SLURM_JOB_ID", "")
    )


def _most_requeues(job: "Job | None") -> int | None:
    """How often it may be started again: `slurm.max_num_timeout`; None: no limit is known."""
    slurm = job.excluded.get("slurm") if job is not None else None
    most = slurm.get("max_num_timeout") if isinstance(slurm, dict) else None
    return most if isinstance(most, int) else None


def _requeue(most: int | None = None) -> None:
    """After a signal that was not a cancellation:

    SLURM still holds the job for running, and starts it again.

    A cancelled or preempted job is COMPLETING by now: SLURM decides what becomes of it. One with
        dependents may not be
    requeued: the next of those takes over.
    """
    # the local queue starts nothing again by itself: the next `dora grid` does
    if "SLURM_JOB_ID" not in os.environ:
        return
    if most is not None and int(os.environ.get("SLURM_RESTART_COUNT") or 0) >= most:
        print(f"job {_job_id()} is not requeued again: slurm.max_num_timeout={most}", flush=True)
        return
    job_id = _job_id()  # SLURM_JOB_ID of one task of an array is that of the whole array
    try:
        if _state(job_id) == "RUNNING":
            done = _run("scontrol", "requeue", job_id)
            print(
                f"requeued job {job_id}"
                if done.returncode == 0
                else f"job {job_id} is not requeued: {done.stderr.strip()}",
                flush=True,
            )
    except (OSError, subprocess.SubprocessError) as error:
        print(f"could not requeue job {job_id}: {error}", flush=True)


def _state(job_id: str) -> str:
    """The job's state in SLURM's word; squeue may print nothing on a bad day, so scontrol is asked
    then."""
    shown = _run("squeue", "-h", "-j", job_id, "-o", "%T").stdout.strip()
    if shown:
        return shown
    found = re.search(r"\bJobState=(\w+)", _run("scontrol", "show", "job", "-o", job_id).stdout)
    return found[1] if found else ""


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


if __name__ == "__main__":
    main()
