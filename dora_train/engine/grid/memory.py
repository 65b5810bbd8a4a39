"""Raises the memory of a job that ran out of it, or changes its GPU, as the keys `retry.*` say.

The batch size never changes. `Job.raised` stores what was raised. So a later command asks for the
same resources, and the tables can show them.
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
# Options of sbatch. If the user gives one of them, its value is never changed.
MEMORY = {
    "mem",
    "mem-per-cpu",
    "mem-per-gpu",
}
CUDA = "CUDA out of memory"  # torch's own words, in the cause that a run writes

Raised = Mapping[str, Any]  # {"oom": times, "gpu": "a100"}, as in `Job.raised`


def next_raise(job: Job | None, status: Status, values: Mapping[str, Any]) -> dict[str, Any]:
    """What to raise in the next job of an experiment, over what its grid asks for.

    Args:
        job: its last job.
        values: the configuration of the experiment.
    """
    raised = dict(job.raised) if job is not None else {}
    retry = values.get("retry") or {}
    if status.state != State.FAILED:
        return raised
    times = raised.get("oom", 0)
    # The keys of `sbatch` are also accepted with "_".
    is_ours = not MEMORY & {str(key).replace("_", "-") for key in values.get("sbatch") or {}}
    if status.cause == HOST and is_ours and times < (retry.get("oom") or 0):
        raised["oom"] = times + 1
    gpu = retry.get("gpu")
    if CUDA in status.cause and gpu and raised.get("gpu") != gpu:
        raised["gpu"] = str(gpu)
    return raised


def more_for(job: Job | None, status: Status, values: Mapping[str, Any]) -> str:
    """What the next job gets after an experiment ran out of memory, as `raised_in_words` says it.

    Empty if it did not run out of memory, or is not to be submitted again.
    """
    if job is None:
        return ""
    raised = next_raise(job, status, values)
    return "" if raised == job.raised else raised_in_words(raised)


def with_more(slurm: SlurmConfig, raised: Raised) -> SlurmConfig:
    """The resources with the raised memory of the host. Unchanged if it was not raised."""
    times = raised.get("oom", 0)
    if not times:
        return slurm
    return replace(slurm, mem_per_gpu=slurm.mem_per_gpu * MORE_MEMORY**times)


def on_other_gpu(slurm: SlurmConfig, shape: Shape, raised: Raised) -> Shape:
    """The shape with the GPU type of `retry.gpu`, if CUDA ran out of memory. Else unchanged."""
    gpu = raised.get("gpu")
    if not gpu or not slurm.gpus:
        return shape
    per_node = slurm.gpus // max(1, shape.nodes)  # `gpus` counts per job, and `gres` per node
    return replace(shape, sbatch={**shape.sbatch, "gres": f"gpu:{gpu}:{per_node}"})
