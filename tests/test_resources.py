"""From Dora's resources to those of a job: what sbatch is told."""

import copy

import pytest
from dora.conf import SlurmConfig
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dora_train.engine.errors import UserError
from dora_train.engine.grid.resources import Shape, changes, parameters, stored


def slurm(**what) -> SlurmConfig:
    return SlurmConfig(**{"gpus": 0, "mem_per_gpu": 4, "cpus_per_gpu": 2, "partition": ""} | what)


def made(shape: Shape = Shape(), **what) -> dict:  # noqa: B008 (frozen)
    return parameters(slurm(**what), shape)


def test_without_gpus_one_task_on_the_cpu():
    chosen = made()
    assert (chosen["nodes"], chosen["ntasks_per_node"], chosen["cpus_per_task"], chosen["mem"]) == (1, 1, 2, "4096M")
    assert "gres" not in chosen


def test_one_rank_a_gpu():
    chosen = made(gpus=2)
    assert (chosen["nodes"], chosen["ntasks_per_node"], chosen["gres"], chosen["mem"]) == (1, 2, "gpu:2", "8192M")


def test_eight_gpus_a_node_by_default():
    chosen = made(gpus=16)
    assert (chosen["nodes"], chosen["ntasks_per_node"], chosen["gres"]) == (2, 8, "gpu:8")


@pytest.mark.parametrize("shape, nodes, tasks", [(Shape(1, 2), 1, 2), (Shape(2), 2, 1), (Shape(2, 1), 2, 1)])
def test_two_ranks_on_one_node_and_on_two_without_gpus(shape, nodes, tasks):
    chosen = made(shape)
    assert (chosen["nodes"], chosen["ntasks_per_node"], chosen["mem"]) == (nodes, tasks, f"{4096 * tasks}M")


def test_two_gpus_on_two_nodes():
    chosen = made(Shape(2), gpus=2)
    assert (chosen["nodes"], chosen["ntasks_per_node"], chosen["gres"]) == (2, 1, "gpu:1")


@pytest.mark.parametrize("gpus, nodes", [(9, 1), (3, 2), (-1, 1), (0, 0)])
def test_what_cannot_be_shared_out_is_refused(gpus, nodes):
    with pytest.raises(UserError):
        made(Shape(nodes), gpus=gpus)


def test_options_of_sbatch_pass_through_by_its_own_names():
    cfg = OmegaConf.create({"sbatch": {"mail_type": "FAIL", "gres": "gpu:a100:2"}})
    assert made(Shape.of(cfg), gpus=2)["additional_parameters"] == {"mail-type": "FAIL", "gres": "gpu:a100:2"}
    assert "additional_parameters" not in made()


@pytest.mark.parametrize("name", ["array", "job_name", "output", "nodes", "ntasks-per-node"])
def test_options_of_sbatch_that_are_not_the_user_s(name):
    with pytest.raises(UserError, match=name.replace("_", "-")):
        Shape.of(OmegaConf.create({"sbatch": {name: 1}}))


def test_one_task_per_node_gets_the_cores_and_memory_of_its_gpus():
    chosen = made(gpus=4, one_task_per_node=True)
    assert (chosen["ntasks_per_node"], chosen["cpus_per_task"], chosen["mem"]) == (1, 8, "16384M")


def test_blank_is_not_passed():
    assert not {"partition", "constraint", "qos", "account", "comment", "nodelist"} & set(made())


def test_given_is_passed():
    chosen = made(partition="p", constraint="v100", qos="q", account="a", nodelist=["n1", "n2"], exclude="n3", time=7)
    assert {chosen[key] for key in ("partition", "constraint", "qos", "account")} == {"p", "v100", "q", "a"}
    assert (chosen["nodelist"], chosen["exclude"], chosen["time"]) == ("n1,n2", "n3", 7)


def test_memory_in_fractions_of_a_gigabyte():
    assert made(mem_per_gpu=0.5)["mem"] == "512M"
    assert "mem" not in made(mem_per_gpu=0)


def test_a_short_job_is_not_warned_at_its_start():
    assert made(time=1)["signal_delay_s"] == 30
    assert made(time=60)["signal_delay_s"] == 90


def test_lists_are_not_shared():
    config = slurm(container_chdir=True, srun_args=["--mpi=none"], setup=["module load x"])
    before = copy.deepcopy(config)
    for _ in range(2):
        chosen = parameters(config, Shape())
        chosen["setup"].append("changed")
        assert chosen["srun_args"][:2] == ["--mpi=none", "--container-workdir"] and len(chosen["srun_args"]) == 3
    assert config == before


def test_shape_from_a_configuration():
    assert Shape.of(OmegaConf.create({"job": {"nodes": 2, "tasks_per_node": None}})) == Shape(2)
    assert Shape.of(OmegaConf.create({"job": {"nodes": 1, "tasks_per_node": 2}})) == Shape(1, 2)
    assert Shape.of(OmegaConf.create({})) == Shape.of(None) == Shape()


def test_changes_name_what_changed():
    before = stored(slurm(), Shape())
    assert changes(before, stored(slurm(comment="other"), Shape())) == []
    assert changes(before, stored(slurm(gpus=1), Shape(2))) == ["gpus 0 -> 1", "job.nodes 1 -> 2"]
    assert changes({}, before) == []  # a job of another version, or none


@given(gpus=st.integers(0, 64), nodes=st.integers(1, 8), tasks=st.none() | st.integers(1, 8))
def test_whatever_is_accepted_gets_all_its_gpus(gpus, nodes, tasks):
    try:
        chosen = made(Shape(nodes, tasks), gpus=gpus)
    except UserError:
        assert gpus % max(nodes, -(-gpus // 8) if nodes == 1 else nodes)
        return
    per_node = int(chosen.get("gres", "gpu:0").partition(":")[2])
    assert per_node * chosen["nodes"] == gpus
    assert chosen["ntasks_per_node"] == (tasks or max(per_node, 1))
