"""A job that ran out of memory is submitted again with more of it, as the keys `retry.*` ask.

The batch size never changes. `Job.raised` keeps what was raised, so that a later command asks for
the same, and the tables can show it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dora.conf import SlurmConfig

from ..experiment.records import Job, State
from ..jobs.resources import Shape
from ..watch.progress import MORE_MEMORY, raised_in_words
from ..watch.status import WORDS, Status

HOST = WORDS["OUT_OF_MEMORY"][1]  # the cause if SLURM killed a job for its memory
MEMORY = {
    "mem",
    "mem-per-cpu",
    "mem-per-gpu",
}  # options of sbatch, which stay as the user gives them
CUDA = "CUDA out of memory"  # in the cause that a run writes: torch's own words

Raised = Mapping[str, Any]  # {"oom": times, "gpu": "a100"}, as in `Job.raised`


def next_raise(job: Job | None, status: Status, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the next job of an experiment has more than its grid asks for.

    Args:
        job: its last one.
        values: the configuration of the experiment.
    """
    raised = dict(job.raised) if job is not None else {}
    retry = values.get("retry") or {}
    if status.state != State.FAILED:
        return raised
    times = raised.get("oom", 0)
    is_ours = not MEMORY & {str(key).replace("_", "-") for key in values.get("sbatch") or {}}
    if status.cause == HOST and is_ours and times < (retry.get("oom") or 0):
        raised["oom"] = times + 1
    gpu = retry.get("gpu")
    if CUDA in status.cause and gpu and raised.get("gpu") != gpu:
        raised["gpu"] = str(gpu)
    return raised


def more_for(job: Job | None, status: Status, values: Mapping[str, Any]) -> str:
    """What the next job has more, if an experiment ran out of memory: see `raised_in_words`.

    Empty: it did not, or it is not to be submitted again.
    """
    if job is None:
        return ""
    raised = next_raise(job, status, values)
    return "" if raised == job.raised else raised_in_words(raised)


def with_more(slurm: SlurmConfig, raised: Raised) -> SlurmConfig:
    """The resources with more memory of the host, if it was raised."""
    times = raised.get("oom", 0)
    if not times:
        return slurm
    return replace(slurm, mem_per_gpu=slurm.mem_per_gpu * MORE_MEMORY**times)


def on_other_gpu(slurm: SlurmConfig, shape: Shape, raised: Raised) -> Shape:
    """The shape with the type of GPU that was asked for after CUDA ran out of memory."""
    gpu = raised.get("gpu")
    if not gpu or not slurm.gpus:
        return shape
    per_node = slurm.gpus // max(1, shape.nodes)
    return replace(shape, sbatch={**shape.sbatch, "gres": f"gpu:{gpu}:{per_node}"})
