"""The resources of a job: who asks for them (`resolved`), and what sbatch is told (`parameters`).

Stock Dora forces GPUs, eight of them a node, and its own lab's partition. Here a job has ranks: one
per GPU, or one on the CPU, or as many as `job.tasks_per_node` says; they lie on `job.nodes` nodes.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from dora.conf import SlurmConfig

from ..errors import UserError, did_you_mean, shortened

GPUS_A_NODE = 8  # Dora 0.1.13's rule (dora/shep.py): beyond this many GPUs a job spreads over nodes
OURS = {  # options of sbatch that are not the user's, and why
    "array": "with launcher.job_array():",
    "dependency": "slurm.dependents",
    "requeue": "slurm.dependents",
    "no-requeue": "slurm.dependents",
    "output": "the log belongs to the experiment",
    "error": "the log belongs to the experiment",
    "open-mode": "the log belongs to the experiment",
    "job-name": "a job is found again by it",
    "wrap": "the job runs the experiment",
    "chdir": "the job runs where it was submitted",
    "nodes": "job.nodes",
    "ntasks": "job.tasks_per_node",
    "ntasks-per-node": "job.tasks_per_node",
    "signal": "the run saves a checkpoint before its time is up",
    "parsable": "the answer is read",
}
SIGNAL_DELAY = 90  # seconds between the warning and the time limit, as Dora and submitit have it
KEYS = [item.name for item in fields(SlurmConfig)]
NUMBERS = (
    "gpus",
    "mem_per_gpu",
    "time",
    "cpus_per_gpu",
    "cpus_per_task",
    "dependents",
    "array_parallelism",
    "max_num_timeout",
)


@dataclass
class Resources(SlurmConfig):
    """Dora's SlurmConfig, with defaults that fit any cluster, that knows what was set after it was
    made.

    Dora sets its keys for the flags of a command and for `launcher.slurm_(gpus=1)`. Both count more
    than what a recipe says.
    """

    gpus: int = 0
    mem_per_gpu: float = 4
    cpus_per_gpu: int = 2
    partition: str = ""
    # starts of a job after its first: no limit, as long as it makes progress
    max_num_timeout: int = 1_000_000

    def __post_init__(self) -> None:
        self.__dict__["set_since"] = set()

    def __setattr__(self, key: str, value: Any) -> None:
        super().__setattr__(key, value)
        if "set_since" in self.__dict__:
            self.__dict__["set_since"].add(key)


def configured(block: Mapping[str, Any]) -> Resources:
    """The resources that the block `slurm:` of a configuration asks for.

    Raises:
        UserError: it has a key that is none.
    """
    _refuse_unknown(block)
    return Resources(**block)


def resolved(
    slurm: SlurmConfig, block: Mapping[str, Any], own: Mapping[str, Any], argv: Sequence[str]
) -> SlurmConfig:
    """The resources of one experiment. Who asks for a key, the first of these that does:

    its own overrides (`slurm.gpus=1`); `launcher.slurm_(gpus=1)`; the flags of the command (`-g
    1`); its recipe (a `slurm:` block in conf/experiment); the configuration.

    Args:
        slurm: the configuration's, with what was set since; a notebook's own takes its place.
        block: `slurm:` as composed for the experiment.
        own: `slurm:` of the configuration alone.
        argv: the experiment's overrides.

    Raises:
        UserError: there is no such key, or its value is none.
    """
    _refuse_unknown(block)
    defaults = Resources()
    named = _named(argv)
    asked = {}
    for key in dict.fromkeys([*own, *block]):
        value = block.get(key, getattr(defaults, key))
        is_recipes = value != own.get(key, getattr(defaults, key))
        if key in named or (is_recipes and key not in getattr(slurm, "set_since", ())):
            asked[key] = value
    found = replace(slurm, **asked)
    _refuse_odd(found)
    return found


def _named(argv: Iterable[str]) -> set[str]:
    """The keys of `slurm` that overrides name:

    `slurm.gpus=1`, `+slurm.setup=[...]`, `slurm={gpus: 1}`.
    """
    named: set[str] = set()
    for text in argv:
        key, _, value = text.lstrip("+~").partition("=")
        section, _, name = key.strip().partition(".")
        if section == "slurm":
            named |= {name} if name else set(re.findall(r"(\w+)\s*:", value))
    return named


def _refuse_unknown(block: Mapping[str, Any]) -> None:
    """Raises: UserError for a key that Dora's SlurmConfig does not have."""
    for key in block:
        if key not in KEYS:
            raise UserError(
                f'unknown key "slurm.{key}"{did_you_mean(key, KEYS)}',
                f"slurm has: {shortened(KEYS, 30)}.",
            )


def _refuse_odd(slurm: SlurmConfig) -> None:
    """Raises: UserError for text where a number is needed."""
    for key in NUMBERS:
        value = getattr(slurm, key)
        if key == "cpus_per_task" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"slurm.{key}={value}: it takes a number.")


@dataclass(frozen=True)
class Shape:
    """What a job is beside Dora's `slurm:` keys: the `job:` and `sbatch:` keys of the
    configuration."""

    nodes: int = 1
    tasks_per_node: int | None = None  # None: one a GPU, or one on the CPU
    sbatch: Mapping[str, Any] = field(default_factory=dict)  # options of sbatch as they are

    @classmethod
    def of(cls, cfg: Any) -> "Shape":
        """From a configuration, which may lack the blocks (an experiment of stock Dora).

        Raises:
            UserError: an option of sbatch that is set elsewhere, or no number of ranks.
        """
        block = (cfg.get("job") if cfg is not None else None) or {}
        options = (cfg.get("sbatch") if cfg is not None else None) or {}
        nodes, tasks = block.get("nodes"), block.get("tasks_per_node")
        if tasks is not None and (not isinstance(tasks, int) or tasks < 1):
            raise UserError(f"job.tasks_per_node={tasks}: it takes 1 or more, or blank.")
        return cls(1 if nodes is None else int(nodes), tasks, _options(options))


def _options(given: Mapping[Any, Any]) -> dict[str, Any]:
    """By sbatch's own names: `mail_type` is `mail-type`."""
    options = {str(key).replace("_", "-"): value for key, value in given.items()}
    for name in options:
        if name in OURS:
            raise UserError(f"sbatch.{name} is not set here: {OURS[name]}.")
    return options


def stored(slurm: SlurmConfig, shape: Shape) -> dict[str, Any]:
    """What is kept with a job, so that a later command sees a change.

    The comment changes nothing, and how often a job may be requeued is no matter of its place.
    """
    content = asdict(slurm) | {f"job.{key}": value for key, value in asdict(shape).items()}
    del content["comment"], content["max_num_timeout"]
    return content


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`["gpus 0 -> 1"]`; a key that only one of the two knows is a version's, not a change."""
    return [
        f"{key} {before[key]} -> {value}"
        for key, value in now.items()
        if key in before and before[key] != value
    ]


def parameters(slurm: SlurmConfig, shape: Shape) -> dict[str, Any]:
    """The parameters of submitit's `SlurmExecutor.update_parameters`.

    Memory is per node, time in minutes.

    Raises:
        UserError: GPUs, nodes and tasks do not divide.
    """
    nodes, gpus = _nodes(slurm.gpus, shape.nodes), slurm.gpus
    gpus_per_node = gpus // nodes
    tasks = 1 if slurm.one_task_per_node else shape.tasks_per_node or max(gpus_per_node, 1)
    shares = max(gpus_per_node, tasks)  # what memory is counted by: a GPU, or a rank on the CPU
    chosen: dict[str, Any] = {
        "additional_parameters": dict(shape.sbatch),
        "nodes": nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": _cpus(slurm, shares if slurm.one_task_per_node else 1),
        "mem": f"{int(slurm.mem_per_gpu * shares * 1024)}M" if slurm.mem_per_gpu else None,
        "gres": f"gpu:{gpus_per_node}" if gpus else None,
        "time": slurm.time,
        # a job of a minute is not warned at its start
        "signal_delay_s": min(SIGNAL_DELAY, slurm.time * 60 // 2),
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
    return {key: value for key, value in chosen.items() if value not in (None, "", [], {})}


def _nodes(gpus: int, wanted: int) -> int:
    """The number of nodes: as many as asked for, and no fewer than eight GPUs a node need.

    Raises:
        UserError: the GPUs cannot be shared out evenly.
    """
    if gpus < 0 or wanted < 1:
        raise UserError(
            f"slurm.gpus={gpus}, job.nodes={wanted}: a job needs at least 0 GPUs and 1 node."
        )
    nodes = wanted if gpus <= GPUS_A_NODE or wanted > 1 else -(-gpus // GPUS_A_NODE)
    if gpus % nodes:
        raise UserError(
            f"{gpus} GPUs cannot be shared evenly by {nodes} nodes.",
            f"give a multiple of {nodes} (slurm.gpus), or another job.nodes",
        )
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


def refuse_dev(slurm: SlurmConfig) -> None:
    """`--dev` is Dora's own lab's partition. Raises: UserError."""
    if slurm.partition == "devlab":
        raise UserError(
            '--dev means the partition "devlab" of the lab that wrote Dora; here: -p PARTITION.'
        )
