"""Decides how experiments share a SLURM job (`job.pack`), and which resources such a job asks for.

A cluster may forbid thousands of jobs that take one minute each. It also reserves a whole GPU for a
network that uses a hundredth of it. pack.py runs the experiments of the job.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .choose import preload


@dataclass(frozen=True)
class Packing:
    """How an experiment may share its job.

    Attributes:
        size: the largest number of experiments in a job. 1: the job is not shared.
        at_once: how many of them run at the same time.
        per_gpu: how many experiments share a GPU.
        gpus: whether each experiment needs a GPU.
        libraries: the libraries that they share. None: each experiment imports its own.
    """

    size: int = 1
    at_once: int = 1
    per_gpu: int = 1
    gpus: bool = False
    libraries: tuple[str, ...] | None = None

    @classmethod
    def of(cls, cfg: Mapping[str, Any] | None, parameters: Mapping[str, Any]) -> "Packing":
        """The packing that a configuration asks for.

        A job with several ranks, or with several GPUs, is never shared.

        Args:
            parameters: the parameters of a job for this experiment alone (resources.py).
        """
        cfg = cfg or {}
        block = cfg.get("job") or {}
        size = block.get("pack") or 1
        several = parameters["nodes"] > 1 or parameters["ntasks_per_node"] > 1
        gpus = int(parameters.get("gres", "gpu:0").partition(":")[2])
        if size == 1 or several or gpus > 1:
            return cls()
        libraries = preload(cfg)
        return cls(
            size,
            min(size, block.get("at_once") or 1),
            (cfg.get("local") or {}).get("per_gpu") or 1,
            gpus > 0,
            None if libraries is None else tuple(libraries),  # a tuple can be compared and hashed
        )

    def widened(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a job in which `at_once` experiments run at the same time.

        The time limit is not changed: it holds for the whole job. The options in
        `additional_parameters` (`sbatch.*`) are not changed either.

        Args:
            parameters: the parameters of a job for one experiment.
        """
        wide = dict(parameters)
        wide["cpus_per_task"] = parameters["cpus_per_task"] * self.at_once
        if "mem" in parameters:
            wide["mem"] = f"{int(parameters['mem'].rstrip('M')) * self.at_once}M"
        if self.gpus:
            wide["gres"] = f"gpu:{math.ceil(self.at_once / self.per_gpu)}"
        return wide
