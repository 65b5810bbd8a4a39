"""A job that ran out of memory asks for more, as often as `retry.*` says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dora.conf import SlurmConfig, SubmitRules
from grid_project import GridProject
from slurm_cluster import SlurmCluster
from test_healing import Night, Sheep

from dora_train.engine.experiment.records import Job, State
from dora_train.engine.grid.memory import HOST, more_for, next_raise, on_other_gpu, with_more
from dora_train.engine.grid.plan import Known, Verb, Wanted, make_plan
from dora_train.engine.jobs.resources import Shape
from dora_train.engine.watch.status import Status

OUT = Status(State.FAILED, HOST)
CUDA = Status(State.FAILED, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.5 GiB")


def job(**raised) -> Job:
    return Job("token", "slurm", 0.0, raised=raised)


def asks(oom: int = 0, gpu: str | None = None, **more) -> dict:
    return {"retry": {"oom": oom, "gpu": gpu}, **more}


def test_each_time_half_as_much_again():
    raised = next_raise(job(), OUT, asks(oom=2))
    assert with_more(SlurmConfig(mem_per_gpu=4), raised).mem_per_gpu == 6
    raised = next_raise(job(**raised), OUT, asks(oom=2))
    assert with_more(SlurmConfig(mem_per_gpu=4), raised).mem_per_gpu == 9
    assert next_raise(job(**raised), OUT, asks(oom=2)) == raised, "twice, and no more"


@pytest.mark.parametrize(
    "status",
    [Status(State.FAILED, "ValueError: no"), Status(State.INTERRUPTED, "preempted"), CUDA],
    ids=lambda status: status.cause,
)
def test_no_other_end_raises_it(status: Status):
    assert more_for(job(), status, asks(oom=2)) == "" == more_for(None, OUT, asks(oom=2))
    assert next_raise(job(oom=1), status, asks(oom=2)) == {"oom": 1}, "it keeps what it has"


@pytest.mark.parametrize("values", [{}, asks(), asks(oom=2, sbatch={"mem_per_cpu": "2G"})])
def test_only_if_it_is_asked_for_and_the_memory_is_ours_to_set(values: dict):
    assert more_for(job(), OUT, values) == ""


def test_another_gpu_once_and_only_if_it_is_named():
    assert more_for(job(), CUDA, asks(oom=2)) == ""
    raised = next_raise(job(), CUDA, asks(gpu="a100"))
    shape = on_other_gpu(SlurmConfig(gpus=2), Shape(sbatch={"exclusive": True}), raised)
    assert shape.sbatch == {"exclusive": True, "gres": "gpu:a100:2"}
    assert on_other_gpu(SlurmConfig(gpus=0), Shape(), raised) == Shape()
    assert more_for(job(**raised), CUDA, asks(gpu="a100")) == ""


def test_the_plan_submits_it_again_with_its_code():
    wanted = Wanted("0123abcd", more="1.5 x memory")
    [action] = make_plan([wanted], {"0123abcd": Known(OUT)}, SubmitRules(), "me")
    assert (action.verb, action.reason) == (Verb.RESUME, "out of memory; again with 1.5 x memory")


def test_a_table_shows_it():
    assert str(Status(State.RUNNING, more="1.5 x memory")) == "running, 1.5 x memory"


def test_an_open_grid_submits_it_again(tmp_path, monkeypatch):
    sheep = Sheep(tmp_path, "out of memory", State.FAILED)
    night = Night(sheep, monkeypatch)
    night.status = sheep.status
    assert not night.healing.heal([sheep], None, night.resume) and not night.submitted
    other = Sheep(tmp_path / "other", "out of memory", State.FAILED)
    other.xp.values = asks(oom=1)
    night = Night(other, monkeypatch)
    night.status = other.status
    assert night.healing.heal([other], None, night.resume)
    night.clock.now += 60
    night.healing.heal([other], None, night.resume)
    assert len(night.submitted) == 1


@pytest.fixture
def strict(
    slurm_installed: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmCluster]:
    """A cluster that kills a job which needs more memory than it asked for."""
    folder = tmp_path_factory.mktemp("strict")
    with SlurmCluster(folder, "JobAcctGatherParams=OverMemoryKill") as running:
        yield running


# Holds 1.3 GB for a while: too much for the first job, which may have 1 GB, and left out by the next.
HOG = """
[ "$SLURM_MEM_PER_NODE" -gt 1200 ] || head -c 1300m /dev/zero | tail | sleep 60
exec "$PYTHON" "$@"
"""


@pytest.mark.slurm
@pytest.mark.slow
def test_on_a_real_slurm(strict: SlurmCluster, tmp_path: Path):
    project = GridProject(tmp_path, strict)
    (tmp_path / "hog.sh").write_text(HOG.replace("$PYTHON", sys.executable))
    project.grid(
        f"launcher.slurm_(python='bash {tmp_path}/hog.sh')", 'launcher({"retry.oom": 1}, seed=1)'
    )
    out = project.dora("grid", "question")
    assert "failed: out of memory" in out and "submitted again" in out, out
    [xp] = project.xps()
    assert xp.state().state is State.COMPLETED and xp.job().raised == {"oom": 1}
    first, second = xp.job_at(1).resources, xp.job_at(2).resources
    assert second["mem_per_gpu"] == 1.5 * first["mem_per_gpu"]
    assert "= 1 kept" in project.sync()
