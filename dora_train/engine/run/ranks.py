"""Which rank this process is, of how many, and where they meet: for each of the four ways to start
a run.

`dora run` is one rank; `dora run -d` starts its ranks itself and sets their environment; torchrun
sets the same variables; in a job of ours SLURM's variables say it. A shell inside `salloc` has
SLURM's variables too, and is no job of ours: they are believed only where `job.py` set
`DORA_TRAIN_JOB`.
"""

import os
import socket
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UserError
from ..upstream.submitit import hosts_of

JOB = "DORA_TRAIN_JOB"  # set by job.py: the token of the submission


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks of its run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1  # ranks on this node
    node_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0

    @property
    def num_nodes(self) -> int:
        return max(1, self.world_size // self.local_size)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @classmethod
    def here(cls, env: Mapping[str, str] = os.environ) -> "Ranks":
        """This process's place, from its environment."""
        if "WORLD_SIZE" in env and int(env["WORLD_SIZE"]) > 1:
            return cls._from_launcher(env)
        if JOB in env and int(env.get("SLURM_NTASKS", "1")) > 1:
            return cls._from_slurm(env)
        return cls()

    @classmethod
    def _from_launcher(cls, env: Mapping[str, str]) -> "Ranks":
        """torchrun, or `dora run -d`: variables as torch documents them."""
        rank, world_size = int(env["RANK"]), int(env["WORLD_SIZE"])
        local_size = int(env.get("LOCAL_WORLD_SIZE", world_size))
        return cls(
            rank,
            world_size,
            int(env.get("LOCAL_RANK", rank)),
            local_size,
            int(env.get("GROUP_RANK", 0)),
            env.get("MASTER_ADDR", "127.0.0.1"),
            int(env.get("MASTER_PORT", 29500)),
        )

    @classmethod
    def _from_slurm(cls, env: Mapping[str, str]) -> "Ranks":
        world_size, nodes = int(env["SLURM_NTASKS"]), int(env.get("SLURM_JOB_NUM_NODES", "1"))
        address = "127.0.0.1" if nodes == 1 else _reachable(hosts_of(env["SLURM_JOB_NODELIST"])[0])
        # All ranks must agree on it before they can talk; a requeued job, or a second copy, gets
        # another.
        place = f"{env['SLURM_JOB_ID']} {env.get('SLURM_RESTART_COUNT', '0')} {env[JOB]}"
        port = 20000 + zlib.crc32(place.encode()) % 40000
        return cls(
            int(env["SLURM_PROCID"]),
            world_size,
            int(env["SLURM_LOCALID"]),
            world_size // nodes,
            int(env["SLURM_NODEID"]),
            address,
            port,
        )


def _reachable(host: str) -> str:
    """An address for a node's name; a name that does not resolve would hang torch for six minutes
    without a word.

    Raises:
        UserError: neither the resolver nor SLURM knows one.
    """
    try:
        socket.getaddrinfo(host, None)
        return host
    except OSError:
        pass
    try:
        shown = subprocess.run(
            ["scontrol", "show", "node", "-o", host], capture_output=True, text=True, timeout=30
        )
        address = shown.stdout.partition("NodeAddr=")[2].split()[0]
        socket.getaddrinfo(address, None)
        return address
    except (OSError, IndexError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f'the node name "{host}" does not resolve here, so the ranks cannot meet.',
            "ask for one node (job.nodes=1), or mend the cluster's host names",
        ) from error


def free_port() -> int:
    """A port that is free on this machine now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
