"""What submitit has no public name for: the script of a job, and SLURM's lists of hosts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def hosts_of(node_list: str) -> list[str]:
    """SLURM's short form as names:

    `n[1-2]` -> n1, n2 (submitit 1.5.4 has no public name for it).
    """
    from submitit.slurm.slurm import _parse_node_list

    return _parse_node_list(node_list)


def batch_file(folder: Path, command: str, parameters: Mapping[str, Any], array: int) -> Path:
    """Write the script that sbatch takes, for a line of shell, as submitit writes it.

    submitit 1.5.4 submits pickles only: one would be named after the job's id once that is known,
    and a kill in between loses the job. It also waits for sbatch without an end. `map_count`, of
    `parameters`, makes an array (its own array executor loses `python=`).

    Args:
        array: the number of tasks of an array; 0: a single job.
    """
    import uuid

    from submitit import SlurmExecutor

    executor = SlurmExecutor(folder=folder)
    executor.update_parameters(**parameters)
    if array:
        executor.parameters["map_count"] = array
    name = uuid.uuid4().hex
    path = folder / f".submission_file_{name}.sh"
    path.write_text(executor._make_submission_file_text(command, name))
    return path
