"""Our ranks, in the form in which Lightning asks for them."""

import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment

from .ranks import Ranks


class RanksEnvironment(ClusterEnvironment):
    """Tells Lightning of ranks that exist already: it starts no process and asks no scheduler.

    It is given with one rank, too. Otherwise Lightning finds SLURM by itself and installs its own
    requeue handlers.
    """

    def __init__(self, ranks: Ranks):
        super().__init__()
        self.ranks = ranks

    # Otherwise Lightning would start processes of its own.
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
        """Do nothing: Lightning computes the number that the ranks already have."""

    def global_rank(self) -> int:
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: Lightning computes the number that the ranks already have."""

    def local_rank(self) -> int:
        return self.ranks.local_rank

    def node_rank(self) -> int:
        return self.ranks.node_rank


def leave_group() -> None:
    """Leave the ranks' process group, if there is one, at the end of the process.

    Lightning 2.6.6 does so for NCCL only. The interpreter's end meets gloo's threads, which now and
    then abort a process that had finished ("terminate called without an active exception", exit
    code -6).
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
