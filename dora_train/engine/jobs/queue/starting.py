"""Starts the ranks of a job of the local queue.

runner.py calls this, and ../pack.py uses parts of it. Standard library only: see runner.py.
"""

from __future__ import annotations

import os
import signal

from .files import raw
from .forked import become
from .libraries import Libraries, kind_of
from .taking import Taken


def start(job: dict, mine: Taken, libraries: Libraries) -> list[int]:
    """Start each rank of a job in its own session. Returns the process ids of the ranks.

    Each rank has the folder, the environment and the Python of the command that queued the job.

    Args:
        job: the job, as it was queued.
        mine: the locks and the GPUs of the job.
        libraries: the libraries of this process. If they fit the job, its ranks are forks of this
            process.

    Raises:
        KeyError: the job's file is damaged.
    """
    kind = kind_of(job)
    notice = libraries.failed.get(kind, "")
    env = job["env"] | {"CUDA_VISIBLE_DEVICES": ",".join(mine.gpus), "DORA_TRAIN_JOB_ID": job["id"]}
    if "_" in mine.number:  # a task of an array
        env["DORA_TRAIN_TASK"] = mine.number.partition("_")[2]
    if job["ranks"] > 1:
        env |= {
            "WORLD_SIZE": str(job["ranks"]),
            "LOCAL_WORLD_SIZE": str(job["ranks"]),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
        }
    ranks = []
    for rank in range(job["ranks"]):
        if job["ranks"] > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        pid = os.fork()
        if pid:
            ranks.append(pid)
            continue
        # This is a copy of the runner. It must not do the work of the runner a second time.
        try:
            _keep_locks(mine)
            enter(job, f"{job['id']}_{rank}")
            if rank == 0 and notice:
                os.write(2, f"starts with imports of its own: {notice}\n".encode())
            become_job(job, env, libraries if libraries.fit(kind) else None)
        except Exception as error:
            os.write(2, f"the local queue could not start it: {error}\n".encode(errors="replace"))
        finally:
            os._exit(127)
    return ranks


def run_apart(job: dict) -> None:
    """Run the command that belongs to the end of a group of jobs, without waiting for it.

    Args:
        job: the last job of the group, as it was queued. The command gets its folder and its
            environment.
    """
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:  # a grandchild: this process does not have to wait for its end
            os.chdir(raw(job["folder"]))
            variables = {raw(key): raw(value) for key, value in job["env"].items()}
            os.execve(raw(job["last"][0]), list(map(raw, job["last"])), variables)
    finally:
        os._exit(0)


def _free_port() -> int:
    import socket  # imported only if there are several ranks, so that a runner stays small

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _keep_locks(mine: Taken) -> None:
    """Let this process keep the locks of its job, also when it becomes another program."""
    for fd in mine.shared:
        os.set_inheritable(fd, True)
    # The right to watch over the job stays with the runner.
    os.close(mine.watched)


def enter(job: dict, name: str) -> None:
    """Give this process the session, the log, the umask and the folder of a job.

    Args:
        name: the name of the log.
    """
    os.setsid()
    log = os.open(
        raw(f"{job['logs']}/{name}_log.out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666
    )
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((nothing, log, log)):  # standard input, output, error
        os.dup2(fd, number)
    os.close(nothing)
    os.close(log)
    os.umask(job["umask"])
    os.chdir(raw(job["folder"]))


def become_job(job: dict, env: dict[str, str], libraries: Libraries | None) -> None:
    """Run the job's program in this process. Does not return.

    Args:
        libraries: the libraries that the program uses. None: a new Python replaces this one, and
            imports its own.
    """
    variables = {raw(key): raw(value) for key, value in env.items()}
    if libraries is not None:
        become([os.fsdecode(raw(word)) for word in job["program"]], variables, libraries.path)
    # Python ignores SIGPIPE. The new program would inherit this setting.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(job["script"][0], list(map(raw, job["script"])), variables)
