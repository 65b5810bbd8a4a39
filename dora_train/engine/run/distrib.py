"""`dora.distrib` inside a run: the ranks that this project has started, in any of its ways.

Dora's own functions ask submitit, which starts no job here. `install` puts the functions of this
file in their place, for code that runs in `main`.
"""

import os
from collections import namedtuple

from dora.xp import get_xp

from .session import current

Spec = namedtuple("Spec", "rank world_size local_rank node_rank num_nodes source")


def get_distrib_spec() -> Spec:
    """Return this process among the ranks of its run, as Dora's function of this name."""
    ranks = current().ranks
    return Spec(
        ranks.rank,
        ranks.world_size,
        ranks.local_rank,
        ranks.node_rank,
        ranks.num_nodes,
        "dora_train",
    )


def set_distrib_env() -> None:
    """Set the variables that torch's `env://` reads. Nothing is done for a single rank."""
    ranks = current().ranks
    if ranks.world_size > 1:
        known = {
            "RANK": ranks.rank,
            "WORLD_SIZE": ranks.world_size,
            "LOCAL_RANK": ranks.local_rank,
            "LOCAL_WORLD_SIZE": ranks.local_size,
            "GROUP_RANK": ranks.node_rank,
            "MASTER_ADDR": ranks.address,
            "MASTER_PORT": ranks.port,
        }
        os.environ.update({name: str(value) for name, value in known.items()})


def init(backend: str = "nccl") -> None:
    """Let the ranks meet now, for code that runs before `train`. Nothing is done for a single rank.

    Args:
        backend: ignored, and there because Dora's function has it. It is NCCL on GPUs and gloo on
            the CPU.
    """
    import torch

    ranks = current().ranks
    # Lightning uses a group that exists. So `main` may call this before `train`, or not at all.
    if ranks.world_size == 1 or torch.distributed.is_initialized():
        return
    on_cpu = str(get_xp().cfg.trainer.accelerator) == "cpu" or not torch.cuda.is_available()
    backend = "gloo"
    if not on_cpu:
        backend = "nccl"
        torch.cuda.set_device(ranks.local_rank)
    torch.distributed.init_process_group(
        backend,
        init_method=f"tcp://{ranks.address}:{ranks.port}",
        rank=ranks.rank,
        world_size=ranks.world_size,
    )


def is_master() -> bool:
    """Whether this is the first rank."""
    return current().ranks.is_first


def rank() -> int:
    """Return the number of this process among the ranks, from 0."""
    return current().ranks.rank


def world_size() -> int:
    """Return the number of ranks."""
    return current().ranks.world_size
