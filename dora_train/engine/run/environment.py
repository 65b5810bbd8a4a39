"""Our ranks, as Lightning wants to be told of them."""

import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment

from .ranks import Ranks


class RanksEnvironment(ClusterEnvironment):
    """Lightning starts no process and asks no scheduler: the ranks are there already.

    Given with one rank too: else Lightning finds SLURM by itself and installs its own requeue
        handlers.
    """

    def __init__(self, ranks: Ranks):
        super().__init__()
        self.ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @staticmethod
    def detect() -> bool:
        return False

    @property
    def main_address(self) -> str:
        return self.ranks.address

    @property
    def main_port(self) -> int:
        return self.ranks.port

    def world_size(self) -> int:
        return self.ranks.world_size

    def set_world_size(self, size: int) -> None:
        """Lightning computes what the ranks already say."""

    def global_rank(self) -> int:
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """Lightning computes what the ranks already say."""

    def local_rank(self) -> int:
        return self.ranks.local_rank

    def node_rank(self) -> int:
        return self.ranks.node_rank


def leave_group() -> None:
    """Leave the ranks' process group, where there is one: at the process's end.

    Lightning 2.6.6 does so for NCCL alone. gloo's threads, met by the interpreter's end, now and
    then abort a process that had finished ("terminate called without an active exception", exit
    code -6).
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
