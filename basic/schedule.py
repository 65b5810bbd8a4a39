"""An experiment as a job, and never more than one:

`python -m basic.schedule --lr 0.1`, then `--cancel`, `--retry`.

Dora under the hood: `job.json` in the experiment's folder says which job it was given, and is
written before there is a job. The folder's name comes from the arguments, so whoever asks again
finds that file.
"""

import os
import shutil
import socket
import subprocess
import time
import uuid
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import submitit
from filelock import FileLock, Timeout

from basic import train

ENDS = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    # SLURM's words for a job that does nothing any more; LOST is ours
    "PREEMPTED",
    "REVOKED",
    "LOST",
}
# a local job outlives Ctrl-C and the terminal
DETACHED = ["trap '' INT HUP", "exec < /dev/null > /dev/null 2>&1"]


class Job:
    """What runs on the node: the training, with the files as they are then. (Dora's jobs run a
    copy.)"""

    def __init__(self, args: Namespace, folder: Path, token: str):
        self.args, self.folder, self.token = args, folder, token

    def __call__(self) -> None:
        with a_slot(self.args, self.folder.parent):
            # A submission that was cut short may come to life after another one took its place.
            if (train.read_json(self.folder / "job.json") or {}).get("token") == self.token:
                train.start(self.args, self.folder)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit when SLURM takes the node back, or time is up: the same again, and
        `train` resumes."""
        return submitit.helpers.DelayedSubmission(self)


@contextmanager
def a_slot(args: Namespace, folder: Path) -> Iterator[None]:
    """Wait for a place on this machine: submitit's local executor has no queue, it starts all jobs
    at once."""
    count = 1 if args.gpus else max(1, (os.cpu_count() or 1) // args.threads)
    is_local = os.environ.get("SUBMITIT_EXECUTOR") == "local"
    while is_local:
        for n in range(count):
            with (
                suppress(Timeout),
                FileLock(folder / f".slot-{socket.gethostname()}-{n}").acquire(timeout=0),
            ):
                return (yield)
        time.sleep(0.5)
    yield


def state_of(folder: Path) -> str:
    """completed, running, waiting, new, unknown, or how the job ended: failed, cancelled, timeout,
    lost ..."""
    job = train.read_json(folder / "job.json")
    if (folder / "result.json").exists():
        return "completed"
    if is_training(folder):
        return "running"  # whoever started it
    if job is None:
        return "new"
    word = slurm_word(job) if job["cluster"] == "slurm" else local_word(job)
    if word in ENDS:
        return (
            "cancelled"
            if job.get("cancelled")
            else "failed"
            if word == "COMPLETED"
            else word.lower()
        )
    return "unknown" if word == "UNKNOWN" else "waiting"


def is_training(folder: Path) -> bool:
    """Whether a training holds the folder's lock. The kernel took it from one that died."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True


def slurm_word(job: dict[str, Any]) -> str:
    """SLURM's word for a job.

    UNKNOWN: it did not answer, so nothing may be concluded, least of all that it is gone.
    """
    found = ask("squeue", "--noheader", "--states=all", f"--name={job['name']}", "--format=%A %T")
    words = dict(line.split()[:2] for line in (found or "").splitlines())
    # killed before the id was written down: the name finds it
    job["id"] = job["id"] or next(iter(words), "")
    if found is None or job["id"] in words or not job["id"]:
        return "UNKNOWN" if found is None else words.get(job["id"], "LOST")
    # it left squeue
    past = ask("sacct", "-X", "--noheader", "--parsable2", "--format=State", f"--jobs={job['id']}")
    return "UNKNOWN" if past is None else (past.split() or ["LOST"])[0]


def ask(*command: str) -> str | None:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def local_word(job: dict[str, Any]) -> str:
    return (
        "UNKNOWN"
        if job["host"] != socket.gethostname()
        else "RUNNING"
        if process_of(job)
        else "LOST"
    )


def process_of(job: dict[str, Any]) -> psutil.Process | None:
    """The living process of a local job.

    Its number alone proves nothing: the system gives it to others later.
    """
    try:
        process = psutil.Process(int(job["id"]))
        ours = (
            abs(process.create_time() - job["born"]) < 1
            and process.status() != psutil.STATUS_ZOMBIE
        )
        return process if ours else None
    except (ValueError, psutil.NoSuchProcess):
        return None


def assign(args: Namespace, retry: bool = False) -> str:
    """Make sure that the experiment has its job, and say its state.

    With `retry` one that ended early gets another.
    """
    folder = train.folder_of(args)
    folder.mkdir(parents=True, exist_ok=True)
    # of two commands at once, the second finds the job of the first
    with FileLock(folder / ".schedule.lock"):
        state = state_of(folder)
        if state != "new" and not (retry and state.upper() in ENDS - {"COMPLETED"}):
            return state
        submit(args, folder)
        return "submitted"


def submit(args: Namespace, folder: Path) -> None:
    cluster, token, host = cluster_here(), uuid.uuid4().hex, socket.gethostname()
    job: dict[str, Any] = {
        "name": f"basic-{token[:12]}",
        "token": token,
        "cluster": cluster,
        "host": host,
        "id": "",
    }
    # before there is a job: killed from here on, it cannot become two
    train.write_json(folder / "job.json", job)
    executor = submitit.AutoExecutor(folder=folder / "submitit", cluster=cluster)
    executor.update_parameters(
        name=job["name"],
        timeout_min=args.time,
        cpus_per_task=args.threads,
        mem_gb=4,
        gpus_per_node=args.gpus,
        local_setup=DETACHED,
        slurm_partition=args.partition or None,
    )
    job["id"] = executor.submit(Job(args, folder.resolve(), token)).job_id
    if cluster == "local":
        job["born"] = psutil.Process(int(job["id"])).create_time()
    train.write_json(folder / "job.json", job)


def cluster_here() -> str:
    """slurm where a cluster answers, local elsewhere; DORA_CLUSTER=slurm or local decides it."""
    wish = os.environ.get("DORA_CLUSTER") or "auto"
    answers = shutil.which("sbatch") is not None and ask("sinfo", "--noheader") is not None
    if wish not in ("auto", "slurm", "local") or (wish == "slurm" and not answers):
        raise SystemExit(f"DORA_CLUSTER={wish}: auto, local, or slurm where a cluster answers")
    return "slurm" if answers and wish != "local" else "local"


def cancel(folder: Path) -> str:
    """End the experiment's job.

    Its files are whole at any moment, so that `--retry` goes on from them.
    """
    if not folder.exists():
        return "never made"
    with FileLock(folder / ".schedule.lock"):
        job, state = train.read_json(folder / "job.json"), state_of(folder)
        if job is None or state not in ("waiting", "running"):
            return state
        if job["cluster"] == "slurm":
            # the name is ours, and known even where the id is not
            ask("scancel", f"--name={job['name']}")
        elif process := process_of(job):
            for each in [process, *process.children(recursive=True)]:
                each.kill()
        train.write_json(folder / "job.json", job | {"cancelled": True})
        return "cancelled"


def job_parser() -> train.Parser:
    """The arguments of an experiment and, not in its name, those of its job."""
    parser = train.experiment_parser()
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of the job; 0: train on the CPU")
    parser.add_argument(
        "--time", type=int, default=1200, help="minutes; it is requeued then, and goes on"
    )
    parser.add_argument("--partition", default="", help="of SLURM; blank: the cluster's default")
    return parser


def main() -> None:
    parser = job_parser()
    verb = parser.add_mutually_exclusive_group()
    verb.add_argument("--cancel", action="store_true", help="end the job")
    verb.add_argument(
        "--retry", action="store_true", help="another job, if the last one ended early"
    )
    args = train.parse(parser)
    folder = train.folder_of(args)
    state = cancel(folder) if args.cancel else assign(args, args.retry)
    job = train.read_json(folder / "job.json") or {"cluster": "no job", "id": ""}
    print(f"{folder}  {state}  {job['cluster']} {job['id']}".rstrip())


if __name__ == "__main__":
    main()
