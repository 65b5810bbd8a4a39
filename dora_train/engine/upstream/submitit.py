"""Private parts of submitit: the script of a job, and SLURM's lists of hosts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def hosts_of(node_list: str) -> list[str]:
    """The names in SLURM's short form: `["n1", "n2"]` of `n[1-2]` (submitit 1.5.4)."""
    from submitit.slurm.slurm import _parse_node_list

    return _parse_node_list(node_list)


def batch_file(folder: Path, command: str, parameters: Mapping[str, Any], array: int) -> Path:
    """Write the script for sbatch that runs a line of shell, as submitit writes it.

    submitit 1.5.4 submits pickles only. It names one after the job's id, when that is known: a kill
    before that loses the job. It also waits for sbatch without a limit.

    Args:
        parameters: of submitit's SlurmExecutor.
        array: the number of tasks of an array. 0: a single job.

    Returns:
        The path of the script, below `folder`.
    """
    import uuid

    from submitit import SlurmExecutor

    executor = SlurmExecutor(folder=folder)
    executor.update_parameters(**parameters)
    if array:  # submitit's own array executor loses `python=`
        executor.parameters["map_count"] = array
    name = uuid.uuid4().hex
    path = folder / f".submission_file_{name}.sh"
    path.write_text(executor._make_submission_file_text(command, name))
    return path
