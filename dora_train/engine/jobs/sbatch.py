"""Giving an order to sbatch: its script, its options, and what it answers. slurm.py calls
`submit`."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .executor import NoRoom, NotSubmitted, Order, Receipt, Unanswered, outside

TIMEOUT = 60  # seconds that a submission may take
MAYBE_SUBMITTED = (
    "timed out",
    "timeout",
    "unable to contact",
    "connection",
    "zero bytes",
    "communication",
)
# AssocMaxSubmitJobLimit, QOSGrpSubmitJobsLimit ...: by name, since the sentence beside it speaks of
# sizes and times too
FULL = re.compile(r"(Assoc|QOS)\w*Submit\w*Limit|resource temporarily unavailable", re.IGNORECASE)
TOO_MANY = "invalid job array specification"  # more tasks than the cluster's MaxArraySize
SUBMITTED = re.compile(r"\bjob (\d+)")  # "Submitted batch job 12"


def submit(order: Order) -> Receipt:
    """Submit a job, or an array, and the jobs that are to start if it failed.

    Raises:
        NotSubmitted: it was refused.
        Unanswered: whether there is a job now, is not known.
    """
    order.folder.mkdir(parents=True, exist_ok=True)
    after = f"afterany:{':'.join(order.after)}" if order.after else None
    with _interrupts_wait(), _clean_environment():
        first = _sbatch(order, after, requeue=not order.dependents)
        return Receipt(first, _dependents(order, first))


def _dependents(order: Order, first: str) -> list[str]:
    """Submit the jobs after the first, each to start if the one before it failed.

    The first is at the scheduler already: if one of these is refused, there are fewer of them.
    """
    chain = [first]
    try:
        for number in range(order.dependents):
            last = number == order.dependents - 1
            chain.append(_sbatch(order, f"afternotok:{chain[-1]}", requeue=last))
    except (NotSubmitted, Unanswered) as error:
        print(f"{len(chain) - 1} of {order.dependents} dependent jobs: {error}", file=sys.stderr)
    return chain[1:]


def _sbatch(order: Order, dependency: str | None, requeue: bool) -> str:
    """Submit one job, or array; its id.

    Raises:
        NotSubmitted, Unanswered.
    """
    more: dict[str, Any] = {"requeue" if requeue else "no-requeue": True}
    if dependency:
        more |= {"dependency": dependency, "kill-on-invalid-dep": "yes"}
    chosen = dict(order.parameters)
    if order.tasks is not None:
        more["array"] = f"{_ranges(order.tasks)}%{chosen.get('array_parallelism', 256)}"
    if "nodelist" in chosen:
        more["nodelist"] = chosen.pop("nodelist")
    setup = [*chosen.pop("setup", []), *order.setup]
    given = chosen.pop("additional_parameters", {})
    chosen = {key: value for key, value in chosen.items() if key.replace("_", "-") not in given}
    more |= {key: value for key, value in given.items() if value not in (None, "", False)}
    from ..upstream.submitit import batch_file

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
    script.replace(order.folder / f"{job_id}_submission.sh")
    return job_id


def _submitted(script: Path, array: bool) -> str:
    """Hand a script to sbatch; the id of the job, or of the array.

    Raises:
        NotSubmitted: it was refused.
        Unanswered: whether there is a job now, is not known.
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
    said, trouble = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    if done.returncode:
        raise _refusal(trouble, done.returncode, array)
    match = SUBMITTED.search(said)
    if match is None:
        lines = said.strip().splitlines() or ["nothing"]
        raise Unanswered(f"sbatch printed no job id ({lines[-1]})")
    return match[1]


def _refusal(text: str, code: int, array: bool) -> NotSubmitted | Unanswered:
    """What sbatch's complaint means, with the line of it that says most.

    What sbatch did not say itself (a wrapper around it, or a kill) is no word on the job.
    """
    lines = [
        line for line in text.splitlines() if line.strip() and not line.startswith("Try ")
    ] or [f"code {code}"]
    if FULL.search(text) or (array and TOO_MANY in text.lower()):
        return NoRoom(next((line for line in lines if FULL.search(line)), lines[-1]))
    if any(word in text.lower() for word in MAYBE_SUBMITTED) or "sbatch:" not in text:
        return Unanswered(f"sbatch ended with code {code}: {lines[-1]}")
    return NotSubmitted(f"SLURM refused the job: {lines[-1]}")


def _ranges(tasks: Sequence[int]) -> str:
    """`0-3,7`: an array of 1,000 in a few letters.

    >>> _ranges([0, 1, 2, 3, 7])
    '0-3,7'
    """
    runs: list[list[int]] = []
    for task in tasks:
        if runs and task == runs[-1][1] + 1:
            runs[-1][1] = task
        else:
            runs.append([task, task])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the id of a job is known: a job that nobody wrote down would be
    the price."""
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Without what an outer job, or a rank, left in the environment: sbatch hands all of it to the
    new job."""
    taken = {key: value for key, value in os.environ.items() if outside(key)}
    for key in taken:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(taken)
