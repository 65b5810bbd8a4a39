"""From Dora's SlurmConfig (the `slurm:` keys, or `launcher.slurm_(...)`) to the parameters of one job.

Stock Dora forces GPUs, eight of them a node, and its own lab's partition. Here a job has ranks: one a GPU, or one on
the CPU, or as many as `job.tasks_per_node` says; they lie on `job.nodes` nodes. `submission.py` calls `parameters`.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dora.conf import SlurmConfig

from ..errors import UserError

GPUS_A_NODE = 8  # Dora 0.1.13's rule (dora/shep.py): beyond this many GPUs a job spreads over nodes
SIGNAL_DELAY = 90  # seconds between the warning and the time limit, as Dora and submitit have it


@dataclass(frozen=True)
class Shape:
    """How the ranks of a job lie on nodes: the `job:` keys of the configuration."""

    nodes: int = 1
    tasks_per_node: int | None = None  # None: one a GPU, or one on the CPU

    @classmethod
    def of(cls, cfg: Any) -> "Shape":
        """From a configuration, which may lack the block (an experiment of stock Dora)."""
        block = (cfg.get("job") if cfg is not None else None) or {}
        return cls(int(block.get("nodes") or 1), block.get("tasks_per_node"))


def stored(slurm: SlurmConfig, shape: Shape) -> dict[str, Any]:
    """What is kept with a job, so that a later command sees a change; the comment changes nothing."""
    content = asdict(slurm) | {f"job.{key}": value for key, value in asdict(shape).items()}
    del content["comment"]
    return content


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`["gpus 0 -> 1"]`; a key that only one of the two knows is a version's, not a change."""
    return [f"{key} {before[key]} -> {value}" for key, value in now.items() if key in before and before[key] != value]


def parameters(slurm: SlurmConfig, shape: Shape) -> dict[str, Any]:
    """The parameters of submitit's `SlurmExecutor.update_parameters`. Memory is per node, time in minutes.

    Raises:
        UserError: GPUs, nodes and tasks do not divide.
    """
    nodes, gpus = _nodes(slurm.gpus, shape.nodes), slurm.gpus
    gpus_per_node = gpus // nodes
    tasks = 1 if slurm.one_task_per_node else shape.tasks_per_node or max(gpus_per_node, 1)
    shares = max(gpus_per_node, tasks)  # what memory is counted by: a GPU, or a rank on the CPU
    chosen: dict[str, Any] = {
        "nodes": nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": _cpus(slurm, shares if slurm.one_task_per_node else 1),
        "mem": f"{int(slurm.mem_per_gpu * shares * 1024)}M" if slurm.mem_per_gpu else None,
        "gres": f"gpu:{gpus_per_node}" if gpus else None,
        "time": slurm.time,
        "signal_delay_s": min(SIGNAL_DELAY, slurm.time * 60 // 2),  # a job of a minute is not warned at its start
        "partition": slurm.partition,
        "constraint": slurm.constraint,
        "comment": slurm.comment,
        "exclude": _joined(slurm.exclude),
        "nodelist": _joined(slurm.nodelist),
        "qos": slurm.qos,
        "account": slurm.account,
        "array_parallelism": slurm.array_parallelism,
        "srun_args": _srun_args(slurm),
        "setup": list(slurm.setup),
    }
    return {key: value for key, value in chosen.items() if value not in (None, "", [])}


def _nodes(gpus: int, wanted: int) -> int:
    """The number of nodes: as many as asked for, and no fewer than eight GPUs a node need.

    Raises:
        UserError: the GPUs cannot be shared out evenly.
    """
    if gpus < 0 or wanted < 1:
        raise UserError(f"slurm.gpus={gpus}, job.nodes={wanted}: a job needs at least 0 GPUs and 1 node.")
    nodes = wanted if gpus <= GPUS_A_NODE or wanted > 1 else -(-gpus // GPUS_A_NODE)
    if gpus % nodes:
        raise UserError(f"{gpus} GPUs cannot be shared evenly by {nodes} nodes.",
                        f"give a multiple of {nodes} (slurm.gpus), or another job.nodes")
    return nodes


def _cpus(slurm: SlurmConfig, shares: int) -> int:
    return slurm.cpus_per_task or slurm.cpus_per_gpu * shares


def _srun_args(slurm: SlurmConfig) -> list[str]:
    """A list of its own each time: Dora's grows with every job."""
    inside = slurm.container_chdir if slurm.force_chdir is None else slurm.force_chdir
    return [*slurm.srun_args, *(["--container-workdir", os.getcwd()] if inside else [])]


def _joined(names: Any) -> str | None:
    """A list of nodes, or the text that SLURM takes for one."""
    return names if names is None or isinstance(names, str) else ",".join(names)
