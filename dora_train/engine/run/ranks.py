"""Which rank this process is, of how many, and where they meet.

There are four ways to start a run. `dora run` is one rank. `dora run -d` starts its ranks itself
and sets their environment. torchrun sets the same variables. In a job of ours, SLURM's variables
say it.

A shell inside `salloc` has SLURM's variables too, but it is no job of ours. So they are believed
only if `job.py` has set `DORA_TRAIN_JOB`.
"""

import socket
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from .. import environment
from ..environment import JOB
from ..errors import UserError
from ..upstream.submitit import hosts_of


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks of its run.

    Attributes:
        local_rank: its number on this node.
        local_size: the number of ranks on this node.
        address, port: where rank 0 waits for the others.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0

    @property
    def num_nodes(self) -> int:
        """The number of nodes. Each has the same number of ranks."""
        return max(1, self.world_size // self.local_size)

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes and logs."""
        return self.rank == 0

    # torchrun first: it may have been started within a job.
    @classmethod
    def here(cls, env: Mapping[str, str] | None = None) -> "Ranks":
        """Return the ranks as the environment of this process says them."""
        if env is None:
            env = environment.variables()
        if "WORLD_SIZE" in env and int(env["WORLD_SIZE"]) > 1:
            return cls._from_launcher(env)
        if JOB in env and int(env.get("SLURM_NTASKS", "1")) > 1:
            return cls._from_slurm(env)
        return cls()

    @classmethod
    def _from_launcher(cls, env: Mapping[str, str]) -> "Ranks":
        """Return the ranks of torchrun or `dora run -d`, from variables that torch documents."""
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
        """Return the ranks of a job of ours."""
        world_size, nodes = int(env["SLURM_NTASKS"]), int(env.get("SLURM_JOB_NUM_NODES", "1"))
        address = "127.0.0.1"
        if nodes > 1:
            address = _reachable(hosts_of(env["SLURM_JOB_NODELIST"])[0])
        # All ranks must agree on the port before they can talk. A requeued job, or a second copy of
        # it, gets another one: the old one may still be taken.
        place = f"{env['SLURM_JOB_ID']} {env.get('SLURM_RESTART_COUNT', '0')} {env[JOB]}"
        # 20000 to 59999: above the ports of known services.
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
    """Return an address for the name of a node.

    Raises:
        UserError: neither the resolver nor SLURM knows an address.
    """
    # With a name that does not resolve, torch would hang for six minutes without a message.
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
            "ask for one node (job.nodes=1), or fix the cluster's host names",
        ) from error


def free_port() -> int:
    """Return a port that is free on this machine now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
