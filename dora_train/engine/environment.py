"""The environment variables that the engine reads. Every other file asks here.

docs/environment.md says what each of them does. Two programs read their own: `job.py`, which starts
before the engine can be imported, and the data sets, which do not know the engine
(`DORA_TRAIN_DATA`, see dora_train/data/cache.py).
"""

import os
from collections.abc import Iterable
from typing import NamedTuple

OUTPUTS = "DORA_DIR"
CLUSTER = "DORA_CLUSTER"
QUEUE = "DORA_QUEUE"
GPU_LOCKS = "DORA_GPU_LOCKS"
DATA = "DORA_TRAIN_DATA"
JOB = "DORA_TRAIN_JOB"
JOB_ID = "DORA_TRAIN_JOB_ID"
PACKED = "DORA_TRAIN_PACKED"
PARENT = "DORA_TRAIN_PARENT"
TRACE = "DORA_TRAIN_TRACE"


# --- the user's wishes ---


def outputs() -> str | None:
    """The folder for results. It may be empty; None if nothing was said."""
    return os.environ.get(OUTPUTS)


def cluster() -> str:
    """Where jobs go, above the key `cluster`. Empty if nothing was said."""
    return os.environ.get(CLUSTER, "")


def queue() -> str:
    """The folder for the queue of this machine. Empty if nothing was said."""
    return os.environ.get(QUEUE, "")


def gpu_locks() -> str:
    """The folder in which the users of this machine lock its GPUs. Empty: they do not."""
    return os.environ.get(GPU_LOCKS, "/tmp/dora_train_gpus")


def values_of(names: Iterable[str]) -> tuple[str | None, ...]:
    """The variables that the configuration itself names (`${oc.env:NAME}`)."""
    return tuple(map(os.environ.get, names))


def folders_beside_the_code() -> list[str]:
    """Folders that the user named for the queue and the data. They may lie in the project."""
    named = [os.environ.get(name) for name in (QUEUE, DATA)]
    return [folder for folder in named if folder]


def says_yes() -> bool:
    """Whether `dora grid` need not ask."""
    return os.environ.get("DORA_YES") == "1"


def update_asked() -> bool:
    """Whether jobs that wait are submitted again with today's code."""
    return os.environ.get("DORA_UPDATE") == "1"


def heals() -> bool:
    """Whether an open `dora grid` submits interrupted experiments again."""
    return os.environ.get("DORA_HEAL") != "0"


def disk_wait() -> str:
    """The minutes for which a run waits for room on a full disk. Empty: it does not wait."""
    return os.environ.get("DORA_DISK_WAIT", "")


def take_asked() -> bool:
    """Whether claims and jobs of machines that cannot be asked are gone."""
    return os.environ.get("DORA_TAKE") == "1"


def frozen_values_asked() -> bool:
    """Whether an experiment runs its values of birth though today's defaults are others."""
    return os.environ.get("DORA_DRIFT") == "old"


def json_asked() -> bool:
    """Whether commands print their results as JSON."""
    return os.environ.get("DORA_JSON") == "1"


def metrics_asked() -> bool:
    """Whether `dora export` takes results along."""
    return os.environ.get("DORA_EXPORT_METRICS") == "1"


def wandb_project() -> str:
    """The project of wandb's logger."""
    return os.environ.get("WANDB_PROJECT", "dora_train")


# --- what the engine has set for a job or a rank ---


class ThisJob(NamedTuple):
    """The job that this process belongs to. Both texts are empty outside of a job."""

    id: str
    token: str  # of its submission


def this_job() -> ThisJob:
    """What `job.py` and the local queue have set."""
    return ThisJob(os.environ.get(JOB_ID, ""), os.environ.get(JOB, ""))


def cores_of_task() -> int | None:
    """The cores that SLURM gave to each rank of this job. None: it does not say.

    The experiments of a packed job share its cores, so none of them has these for itself.
    """
    cores = os.environ.get("SLURM_CPUS_PER_TASK", "")
    is_own = bool(os.environ.get(JOB)) and not os.environ.get(PACKED)
    return int(cores) if cores.isdigit() and is_own else None


def take_parent() -> str:
    """The process that started this rank, removed for the commands that this rank may start. Empty
    if this process is no rank of `dora run -d`."""
    return os.environ.pop(PARENT, "")


# --- the system's ---


def visible_gpus() -> str | None:
    """The GPUs that CUDA may use, as the user or an outer job says. None if all of them."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def short_spins() -> dict[str, str]:
    """The variable that lets a thread of GNU's OpenMP wait awake for a moment, and then asleep.

    By default it spins for longer. On a busy machine, it then takes the core which the thread
    that it waits for needs (benchmarks/threads.py). Empty if the user has said how to wait.
    """
    if os.environ.get("OMP_WAIT_POLICY") or os.environ.get("GOMP_SPINCOUNT"):
        return {}
    return {"GOMP_SPINCOUNT": "10000"}


def state_folder() -> str:
    """Where programs keep their state, as the system says. It may begin with `~`."""
    return os.environ.get("XDG_STATE_HOME") or "~/.local/state"


def trace() -> str:
    """The orders of a run that `python -m dora_train.check` starts. Empty in all other runs."""
    return os.environ.get(TRACE, "")


def fault() -> str:
    """Where a test wants this process to end."""
    return os.environ.get("DORA_FAULT", "")


def variables() -> dict[str, str]:
    """All variables, for a program that is started with some of them changed."""
    return dict(os.environ)
