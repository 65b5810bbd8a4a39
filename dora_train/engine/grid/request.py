"""What is asked of a submission: an experiment, as which job, and with which code; and what came of
it.

`sync.py` and `launch.py` make requests, `submission.py` sees to each of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dora.conf import SlurmConfig
from dora.explore import Herd

from ..experiment.folder import Experiment
from ..experiment.snapshot import snapshot_of
from ..experiments import Experiments
from ..jobs.resources import Shape, stored


@dataclass(frozen=True)
class Request:
    """An experiment to submit."""

    experiment: Experiment
    slurm: SlurmConfig
    shape: Shape
    seen: int  # the number of submissions when it was decided to make this one
    code_root: Path
    code: Mapping[str, Any] = field(default_factory=dict)
    excluded: Mapping[str, Any] = field(default_factory=dict)
    grid: str = ""
    # job ids that are cancelled, and must be over before this one starts
    replaces: Sequence[str] = ()
    stop: Mapping[str, Any] = field(default_factory=dict)  # when it is to end early (Job.stop)

    @property
    def number(self) -> int:
        return self.seen + 1


@dataclass(frozen=True)
class Outcome:
    """What came of a request."""

    experiment: Experiment
    job_id: str = ""
    trouble: str = ""  # why there is no job of ours
    held: bool = False  # for want of room: it waits with us
    refused: bool = False  # by the scheduler: there is no job, and none is on its way

    @property
    def submitted(self) -> bool:
        return bool(self.job_id)


def batches(herd: Herd, requests: Mapping[str, Request]) -> list[list[Request]]:
    """What goes in together: the experiments of one `launcher.job_array()`, as far as they are
    alike."""
    groups = ([requests[sig] for sig in group if sig in requests] for group in herd.job_arrays)
    return [batch for group in groups for batch in alike(group)]


def alike(requests: Sequence[Request]) -> list[list[Request]]:
    """Those that one array can hold: the same code, resources and shape."""
    groups: dict[str, list[Request]] = {}
    for request in requests:
        asked = f"{stored(request.slurm, request.shape)}\0{request.slurm.comment}"
        groups.setdefault(f"{request.code_root}\0{asked}", []).append(request)
    return list(groups.values())


def kept(
    main: Experiments, experiment: Experiment, code: tuple[Path, Mapping[str, Any]]
) -> tuple[Path, Mapping[str, Any]]:
    """The same code, kept with the experiment. The live files are kept when they run."""
    if code[1]["hash"]:
        main.code.keep(experiment.code_archive(main.code.hash))
    return code


def code_before(experiment: Experiment, dora_dir: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The snapshot that its last job ran, and what is known of it. None if it is gone."""
    job = experiment.job()
    name = str(job.code.get("hash") or "") if job else ""
    root = snapshot_of(name, experiment.code_archive(name), dora_dir) if name else None
    return (root, job.code) if job and root else None
