"""The resources of a job: who asks for them (`resolved`), and the options of sbatch (`parameters`).

Stock Dora always asks for GPUs, eight of them per node, and for its own lab's partition. Here a job
has one rank per GPU, or one on the CPU, or as many as `job.tasks_per_node` says. The ranks are on
`job.nodes` nodes.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from dora.conf import SlurmConfig

from ..errors import UserError, did_you_mean, shortened

GPUS_A_NODE = 8  # Dora 0.1.13's rule (dora/shep.py): beyond this many GPUs a job spreads over nodes
OURS = {  # options of sbatch that are not the user's -> the reason, or the key to set instead
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
    """Dora's SlurmConfig with defaults that fit any cluster.

    It remembers in `set_since` which keys were set after it was made. Dora sets keys for the flags
    of a command and for `launcher.slurm_(gpus=1)`, and both take precedence over a recipe.
    """

    gpus: int = 0
    mem_per_gpu: float = 4
    cpus_per_gpu: int = 2
    partition: str = ""
    # starts of a job after its first: no limit, as long as it makes progress
    max_num_timeout: int = 1_000_000

    def __post_init__(self) -> None:
        # after the dataclass has set its fields, and past __setattr__, which would note this one
        self.__dict__["set_since"] = set()

    def __setattr__(self, key: str, value: object) -> None:
        super().__setattr__(key, value)
        if "set_since" in self.__dict__:
            self.__dict__["set_since"].add(key)


def configured(block: Mapping[str, Any]) -> Resources:
    """The resources that the block `slurm:` of a configuration asks for.

    Raises:
        UserError: it has an unknown key.
    """
    _refuse_unknown(block)
    return Resources(**block)


def resolved(
    slurm: SlurmConfig, block: Mapping[str, Any], own: Mapping[str, Any], argv: Sequence[str]
) -> SlurmConfig:
    """The resources of one experiment.

    The first of these that sets a key decides it: the experiment's overrides (`slurm.gpus=1`),
    `launcher.slurm_(gpus=1)`, the flags of the command (`-g 1`), the experiment's recipe (a
    `slurm:` block in conf/experiment), the configuration.

    Args:
        slurm: the configuration's, with the keys that were set since. A notebook may give its own.
        block: `slurm:` as composed for the experiment.
        own: `slurm:` of the configuration alone.
        argv: the experiment's overrides.

    Raises:
        UserError: there is no such key, or its value is no number.
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
    """The keys that overrides set: `slurm.gpus=1`, `+slurm.setup=[...]`, `slurm={gpus: 1}`."""
    named: set[str] = set()
    for text in argv:
        key, _, value = text.lstrip("+~").partition("=")
        section, _, name = key.strip().partition(".")
        if section == "slurm" and name:
            named.add(name)
        elif section == "slurm":
            named.update(re.findall(r"(\w+)\s*:", value))
    return named


def _refuse_unknown(block: Mapping[str, Any]) -> None:
    """Refuse a key that Dora's SlurmConfig does not have, with a UserError."""
    for key in block:
        if key not in KEYS:
            raise UserError(
                f'unknown key "slurm.{key}"{did_you_mean(key, KEYS)}',
                f"slurm has: {shortened(KEYS, 30)}.",
            )


def _refuse_odd(slurm: SlurmConfig) -> None:
    """Refuse a value that is no number if its key needs one, with a UserError."""
    for key in NUMBERS:
        value = getattr(slurm, key)
        if key == "cpus_per_task" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"slurm.{key}={value}: it takes a number.")


@dataclass(frozen=True)
class Shape:
    """The `job:` and `sbatch:` keys of the configuration, which Dora's `slurm:` does not have."""

    nodes: int = 1
    tasks_per_node: int | None = None  # None: one per GPU, or one on the CPU
    sbatch: Mapping[str, Any] = field(default_factory=dict)  # options of sbatch as they are

    @classmethod
    def of(cls, cfg: Mapping[str, Any] | None) -> "Shape":
        """The shape that a configuration asks for.

        An experiment of stock Dora lacks these blocks, or has no configuration.

        Raises:
            UserError: an option of sbatch is set elsewhere, or the number of ranks is none.
        """
        if cfg is None:
            return cls()
        block = cfg.get("job") or {}
        nodes, tasks = block.get("nodes"), block.get("tasks_per_node")
        if nodes is None:  # blank
            nodes = 1
        if tasks is not None and (not isinstance(tasks, int) or tasks < 1):
            raise UserError(f"job.tasks_per_node={tasks}: it takes 1 or more, or blank.")
        return cls(int(nodes), tasks, _options(cfg.get("sbatch") or {}))


def _options(given: Mapping[Any, Any]) -> dict[str, Any]:
    """The options by sbatch's own names: `mail_type` is `mail-type`.

    Raises:
        UserError: one of them is not for users to set.
    """
    options = {str(key).replace("_", "-"): value for key, value in given.items()}
    for name in options:
        if name in OURS:
            raise UserError(f"sbatch.{name} is not set here: {OURS[name]}.")
    return options


def stored(slurm: SlurmConfig, shape: Shape) -> dict[str, Any]:
    """The resources as they are stored with a job, so that a later command sees a change."""
    content = asdict(slurm)
    for key, value in asdict(shape).items():
        content[f"job.{key}"] = value
    # neither changes what a job runs on, so a change of them must not cancel one that waits
    del content["comment"], content["max_num_timeout"]
    return content


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The changes as text: `["gpus 0 -> 1"]`.

    A key that only one of the two has comes from another version, and is no change.
    """
    return [
        f"{key} {before[key]} -> {value}"
        for key, value in now.items()
        if key in before and before[key] != value
    ]


def parameters(slurm: SlurmConfig, shape: Shape) -> dict[str, Any]:
    """The parameters for submitit's `SlurmExecutor.update_parameters`.

    Memory is in MiB per node, and time in minutes.

    Raises:
        UserError: the GPUs cannot be shared out evenly by the nodes.
    """
    nodes = _nodes(slurm.gpus, shape.nodes)
    gpus = slurm.gpus // nodes  # per node
    ranks, cpus = shape.tasks_per_node or max(gpus, 1), slurm.cpus_per_gpu
    if slurm.one_task_per_node:  # then this task has the CPUs of all GPUs
        ranks, cpus = 1, cpus * max(gpus, 1)
    shares = max(gpus, ranks)  # memory is given per GPU, or per rank on the CPU
    chosen: dict[str, Any] = {
        "additional_parameters": dict(shape.sbatch),
        "nodes": nodes,
        "ntasks_per_node": ranks,
        "cpus_per_task": slurm.cpus_per_task or cpus,
        "time": slurm.time,
        # at most half of the time limit: else a job of a minute would be warned at its start
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
    if slurm.mem_per_gpu:
        chosen["mem"] = f"{int(slurm.mem_per_gpu * shares * 1024)}M"
    if gpus:
        chosen["gres"] = f"gpu:{gpus}"
    return {key: value for key, value in chosen.items() if value not in (None, "", [], {})}


def _nodes(gpus: int, wanted: int) -> int:
    """The number of nodes.

    If one node is asked for, there are as many as needed for at most eight GPUs per node.

    Raises:
        UserError: the GPUs cannot be shared out evenly.
    """
    if gpus < 0 or wanted < 1:
        raise UserError(
            f"slurm.gpus={gpus}, job.nodes={wanted}: a job needs at least 0 GPUs and 1 node."
        )
    nodes = wanted
    if wanted == 1 and gpus > GPUS_A_NODE:
        nodes = math.ceil(gpus / GPUS_A_NODE)
    if gpus % nodes:
        raise UserError(
            f"{gpus} GPUs cannot be shared evenly by {nodes} nodes.",
            f"give a multiple of {nodes} (slurm.gpus), or another job.nodes",
        )
    return nodes


def _srun_args(slurm: SlurmConfig) -> list[str]:
    # a new list each time: Dora adds to the one of its config, which grows with every job
    args = list(slurm.srun_args)
    inside = slurm.force_chdir
    if inside is None:
        inside = slurm.container_chdir
    if inside:
        args += ["--container-workdir", os.getcwd()]
    return args


def _joined(names: str | Sequence[str] | None) -> str | None:
    """Names of nodes as the text that SLURM takes. Text stays as it is."""
    if names is None or isinstance(names, str):
        return names
    return ",".join(names)


def refuse_dev(slurm: SlurmConfig) -> None:
    """Refuse `--dev`, the partition of the lab that wrote Dora, with a UserError."""
    if slurm.partition == "devlab":
        raise UserError(
            '--dev means the partition "devlab" of the lab that wrote Dora; here: -p PARTITION.'
        )
