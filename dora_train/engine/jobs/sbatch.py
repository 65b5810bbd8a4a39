"""Submits an order with sbatch: its script, its options, and the answer.

slurm.py calls `submit`.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import environment
from ..upstream.submitit import batch_file
from .executor import NoRoom, NotSubmitted, Order, Receipt, Unanswered, outside

TIMEOUT = 60  # seconds that a submission may take
# words in an error after which the job may have been submitted all the same
MAYBE_SUBMITTED = (
    "timed out",
    "timeout",
    "unable to contact",
    "connection",
    "zero bytes",
    "communication",
)
# AssocMaxSubmitJobLimit, QOSGrpSubmitJobsLimit ...: found by name, as the sentence beside the name
# lists limits of sizes and times too
FULL = re.compile(r"(Assoc|QOS)\w*Submit\w*Limit|resource temporarily unavailable", re.IGNORECASE)
TOO_MANY = "invalid job array specification"  # more tasks than the cluster's MaxArraySize
SUBMITTED = re.compile(r"\bjob (\d+)")  # "Submitted batch job 12"


def submit(order: Order) -> Receipt:
    """Submit a job or an array, and the dependents that start if it fails.

    Raises:
        NotSubmitted: it was refused.
        Unanswered: it is not known whether there is a job now.
    """
    order.folder.mkdir(parents=True, exist_ok=True)
    after = None
    if order.after:
        after = f"afterany:{':'.join(order.after)}"
    with _interrupts_wait(), _clean_environment():
        first = _sbatch(order, after, requeue=not order.dependents)
        return Receipt(first, _dependents(order, first))


def _dependents(order: Order, first: str) -> list[str]:
    """Submit the dependents, each to start if the job before it failed. Returns their ids.

    The first job is submitted already. So if a dependent is refused, there are only fewer of them.
    """
    chain = [first]
    try:
        for number in range(order.dependents):
            # a job that is requeued does not fail, and so would never start its dependent
            last = number == order.dependents - 1
            chain.append(_sbatch(order, f"afternotok:{chain[-1]}", requeue=last))
    except (NotSubmitted, Unanswered) as error:
        print(f"{len(chain) - 1} of {order.dependents} dependent jobs: {error}", file=sys.stderr)
    return chain[1:]


def _sbatch(order: Order, dependency: str | None, requeue: bool) -> str:
    """Submit one job or array. Returns its id.

    Raises:
        NotSubmitted, Unanswered: as `submit`.
    """
    more: dict[str, Any] = {"requeue" if requeue else "no-requeue": True}
    if dependency:
        # else a dependent whose job did not fail would stay in the queue for ever
        more |= {"dependency": dependency, "kill-on-invalid-dep": "yes"}
    chosen = dict(order.parameters)
    if order.tasks is not None:
        more["array"] = f"{_ranges(order.tasks)}%{chosen.get('array_parallelism', 256)}"
    if "nodelist" in chosen:
        more["nodelist"] = chosen.pop("nodelist")
    setup = list(chosen.pop("setup", []))
    for name, value in order.variables.items():
        setup.append(f"export {name}={shlex.quote(value)}")
    given = chosen.pop("additional_parameters", {})
    for key, value in given.items():
        # an option that the user gives as it is counts more, and a blank one is left out altogether
        chosen.pop(key.replace("-", "_"), None)
        if value not in (None, "", False):
            more[key] = value
    script = batch_file(
        order.folder,
        order.command,
        array=len(order.tasks or ()),
        parameters=chosen
        | {
            "job_name": order.name,
            "stderr_to_stdout": True,
            "setup": setup,
            "additional_parameters": more,
        },
    )
    job_id = _submitted(script, array=order.tasks is not None)
    # for people who look for the script of a job; sbatch has its own copy
    script.replace(order.folder / f"{job_id}_submission.sh")
    return job_id


def _submitted(script: Path, array: bool) -> str:
    """Hand a script to sbatch. Returns the id of the job, or of the whole array.

    Raises:
        NotSubmitted: it was refused.
        Unanswered: it is not known whether there is a job now.
    """
    try:
        done = subprocess.run(
            ["sbatch", str(script)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unanswered(f"sbatch did not answer within {TIMEOUT} s") from error
    except OSError as error:
        raise NotSubmitted(f"sbatch cannot be started: {error.strerror or error}") from error
    if done.returncode:
        raise _refusal(done.stderr.decode(errors="replace"), done.returncode, array)
    answer = done.stdout.decode(errors="replace")
    match = SUBMITTED.search(answer)
    if match is None:
        lines = answer.strip().splitlines() or ["nothing"]
        raise Unanswered(f"sbatch printed no job id ({lines[-1]})")
    return match[1]


def _refusal(text: str, code: int, array: bool) -> NotSubmitted | Unanswered:
    """The error for sbatch's complaint, with the line of it that says most.

    Args:
        text: sbatch's standard error.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Try ")]
    last = lines[-1] if lines else f"code {code}"
    if FULL.search(text) or (array and TOO_MANY in text.lower()):
        return NoRoom(next(filter(FULL.search, lines), last))
    # Without "sbatch:", a wrapper around it has failed, or it was killed. There may be a job then.
    if "sbatch:" not in text or any(word in text.lower() for word in MAYBE_SUBMITTED):
        return Unanswered(f"sbatch ended with code {code}: {last}")
    return NotSubmitted(f"SLURM refused the job: {last}")


def _ranges(tasks: Sequence[int]) -> str:
    """The indices of an array in a short form, as a command line must not get too long.

    >>> _ranges([0, 1, 2, 3, 7])
    '0-3,7'
    """
    runs: list[list[int]] = []
    for task in tasks:
        if runs and task == runs[-1][1] + 1:
            runs[-1][1] = task
        else:
            runs.append([task, task])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM until the id of the job is known.

    Else a job could be submitted whose id is nowhere written down.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Take the variables of an outer job or rank out of the environment for a while.

    sbatch hands the whole environment to the new job.
    """
    taken = {key: value for key, value in environment.variables().items() if outside(key)}
    for key in taken:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(taken)
