"""Resources that are asked for, and given: at `dora launch`, in a grid, in a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from forked import Run
from grid_project import Machine
from project import Project

from dora_train.engine.experiment.folder import Experiment

RECIPE = """# @package _global_
slurm:
  time: 44
  cpus_per_gpu: 1
job:
  tasks_per_node: 2
"""
ASLEEP = "+slurm.setup=[sleep 300]"
HEAD = """from dora import Explorer

@Explorer
def explorer(launcher):
    launcher.slurm_(setup=["sleep 300"], time=10).bind_({"debug": "fast"})
"""


@pytest.fixture
def project(tmp_path: Path, machine: Machine) -> Project:
    """A copy of the project with a recipe; its jobs only have to exist."""
    project = Project.copy(tmp_path, machine.env)
    (project.root / "conf" / "experiment" / "large.yaml").write_text(RECIPE)
    return project


def said(project: Project, *args: str, code: int = 0) -> str:
    run = Run(project, *args)
    assert run.wait() == code, run.text
    return run.text


def grid(project: Project, *lines: str, code: int = 0) -> str:
    text = HEAD + "".join(f"    {line}\n" for line in lines)
    (project.root / "grids" / "question.py").write_text(text)
    return said(project, "grid", "question", "--no_monitoring", code=code)


def asked(experiment: Experiment, *keys: str) -> list:
    job = experiment.job()
    assert job is not None and job.job_id
    return [job.resources[key] for key in keys]


def by_seed(project: Project) -> dict[int, Experiment]:
    return {xp.birth().config["seed"]: xp for xp in project.experiments()}


@pytest.mark.slow
def test_launch_heeds_overrides_flags_and_a_recipe(project: Project):
    said(
        project, "launch", "--no_tail", "debug=fast", "slurm.time=33", "slurm.mem_per_gpu=9", ASLEEP
    )
    assert asked(project.xp, "time", "mem_per_gpu", "setup") == [33, 9, ["sleep 300"]]
    said(
        project,
        "launch",
        "--no_tail",
        "-g",
        "1",
        "debug=fast",
        "experiment=large",
        "seed=1",
        ASLEEP,
    )
    xp = by_seed(project)[1]
    assert asked(xp, "time", "cpus_per_gpu", "gpus", "job.tasks_per_node") == [44, 1, 1, 2]
    assert xp.job().excluded["slurm"]["gpus"] == 1, "what the job was given is what its run is told"


def test_launch_refuses_what_is_no_resource(project: Project):
    for override, words in (
        ("+slurm.gpu=1", "did you mean gpus"),
        ("slurm.gpu=1", "did you mean slurm.gpus"),
        ("job.tasks_per_node=two", "it takes 1 or more"),
    ):
        output = said(project, "launch", "--no_tail", override, code=1)
        assert words in output and len(output.splitlines()) <= 4
    assert not project.out.exists()


def test_a_grid_heeds_each_call_and_recipe(project: Project):
    grid(
        project,
        "launcher({'slurm.gpus': 1}, seed=1)",
        "launcher(experiment='large', seed=2)",
        "launcher.slurm(time=5)({'slurm.time': 6}, seed=3)",
        "launcher(seed=4)",
    )
    found = by_seed(project)
    assert asked(found[1], "gpus", "time") == [1, 10]
    assert asked(found[2], "time", "cpus_per_gpu", "job.tasks_per_node") == [10, 1, 2]
    assert asked(found[3], "time") == [6] and asked(found[4], "time", "gpus") == [10, 0]


def test_an_array_holds_what_asks_for_the_same(project: Project):
    grid(
        project,
        "with launcher.job_array():",
        "    for seed in range(2): launcher(seed=seed)",
        "    launcher({'slurm.time': 7}, seed=2)",
    )
    arrays = {seed: xp.job().job_id.partition("_")[0] for seed, xp in by_seed(project).items()}
    assert arrays[0] == arrays[1] != arrays[2]
    output = grid(
        project, "with launcher.job_array():", "    launcher.slurm(time=7)(seed=3)", code=1
    )
    assert output.startswith("grids/question.py:7: all experiments of a job array"), output


def test_a_grid_goes_where_its_experiments_ask(project: Project):
    del project.env["DORA_CLUSTER"]
    output = grid(
        project, "launcher.bind_({'cluster': 'local', 'local.jobs': 3})", "launcher(seed=1)"
    )
    assert "on this machine (cluster: local), 3 jobs at a time" in output
    output = grid(
        project, "launcher({'cluster': 'local'}, seed=1)", "launcher(seed=1, tag='x')", code=1
    )
    assert "ask for cluster=local, cluster=auto" in output and "Traceback" not in output
