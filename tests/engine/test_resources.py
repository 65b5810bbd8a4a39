"""From Dora's resources to those of a job: what sbatch is told."""

import copy

import pytest
from dora.conf import SlurmConfig
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dora_train.engine.errors import UserError
from dora_train.engine.grid.inventory import one_place
from dora_train.engine.grid.packs import arrays_of
from dora_train.engine.grid.request import Request
from dora_train.engine.jobs.resources import (
    Resources,
    Shape,
    changes,
    configured,
    parameters,
    resolved,
    stored,
)


def slurm(**what) -> SlurmConfig:
    return SlurmConfig(**{"gpus": 0, "mem_per_gpu": 4, "cpus_per_gpu": 2, "partition": ""} | what)


def made(shape: Shape = Shape(), **what) -> dict:  # noqa: B008 (frozen)
    return parameters(slurm(**what), shape)


def test_without_gpus_one_task_on_the_cpu():
    chosen = made()
    assert (chosen["nodes"], chosen["ntasks_per_node"], chosen["cpus_per_task"], chosen["mem"]) == (
        1,
        1,
        2,
        "4096M",
    )
    assert "gres" not in chosen


def test_one_rank_a_gpu():
    chosen = made(gpus=2)
    assert (chosen["nodes"], chosen["ntasks_per_node"], chosen["gres"], chosen["mem"]) == (
        1,
        2,
        "gpu:2",
        "8192M",
    )


def test_eight_gpus_a_node_by_default():
    chosen = made(gpus=16)
    assert (chosen["nodes"], chosen["ntasks_per_node"], chosen["gres"]) == (2, 8, "gpu:8")


@pytest.mark.parametrize(
    "shape, nodes, tasks", [(Shape(1, 2), 1, 2), (Shape(2), 2, 1), (Shape(2, 1), 2, 1)]
)
def test_two_ranks_on_one_node_and_on_two_without_gpus(shape, nodes, tasks):
    chosen = made(shape)
    assert (chosen["nodes"], chosen["ntasks_per_node"], chosen["mem"]) == (
        nodes,
        tasks,
        f"{4096 * tasks}M",
    )


def test_two_gpus_on_two_nodes():
    chosen = made(Shape(2), gpus=2)
    assert (chosen["nodes"], chosen["ntasks_per_node"], chosen["gres"]) == (2, 1, "gpu:1")


@pytest.mark.parametrize("gpus, nodes", [(9, 1), (3, 2), (-1, 1), (0, 0)])
def test_what_cannot_be_shared_out_is_refused(gpus, nodes):
    with pytest.raises(UserError):
        made(Shape(nodes), gpus=gpus)


def test_options_of_sbatch_pass_through_by_its_own_names():
    cfg = OmegaConf.create({"sbatch": {"mail_type": "FAIL", "gres": "gpu:a100:2"}})
    assert made(Shape.of(cfg), gpus=2)["additional_parameters"] == {
        "mail-type": "FAIL",
        "gres": "gpu:a100:2",
    }
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
    chosen = made(
        partition="p",
        constraint="v100",
        qos="q",
        account="a",
        nodelist=["n1", "n2"],
        exclude="n3",
        time=7,
    )
    assert {chosen[key] for key in ("partition", "constraint", "qos", "account")} == {
        "p",
        "v100",
        "q",
        "a",
    }
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
        assert (
            chosen["srun_args"][:2] == ["--mpi=none", "--container-workdir"]
            and len(chosen["srun_args"]) == 3
        )
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


# --- who asks for them ---

OWN = {"gpus": 0, "time": 1200, "partition": ""}


def asked(argv=(), recipe=(), launcher=(), flags=(), own=OWN):
    """What a job gets: `argv` are overrides, the others are settings of `slurm`."""
    base = configured(own)
    for settings in (flags, launcher):
        for key, value in dict(settings).items():
            setattr(base, key, value)
    overrides = {
        text.lstrip("+").partition("=")[0].removeprefix("slurm."): text.partition("=")[2]
        for text in argv
    }
    overrides = {key: int(value) if value.isdigit() else value for key, value in overrides.items()}
    return resolved(copy.deepcopy(base), {**own, **dict(recipe), **overrides}, own, list(argv))


def test_who_asks_for_a_resource_in_their_order():
    time = {"time": 1}
    assert asked().time == 1200
    assert asked(recipe=time).time == 1
    assert asked(recipe=time, flags={"time": 2}).time == 2
    assert asked(recipe=time, flags={"time": 2}, launcher={"time": 3}).time == 3
    assert asked(["slurm.time=4"], time, {"time": 3}, {"time": 2}).time == 4
    assert asked(["slurm.time=4"]).time == 4


def test_a_value_that_is_the_default_is_asked_for_as_well():
    assert asked(["slurm.gpus=0"], launcher={"gpus": 2}).gpus == 0
    assert asked(recipe={"gpus": 2}, launcher={"gpus": 0}).gpus == 0
    assert asked(recipe={"gpus": 2}, flags={"gpus": 0}).gpus == 0


def test_each_key_for_itself():
    found = asked(["slurm.time=5"], {"gpus": 1}, {"partition": "p"}, {"comment": "c"})
    assert (found.time, found.gpus, found.partition, found.comment) == (5, 1, "p", "c")
    assert (found.mem_per_gpu, found.cpus_per_gpu) == (4, 2), "defaults that fit any cluster"


def test_a_whole_block_and_a_key_that_the_configuration_does_not_list():
    block = {**OWN, "gpus": 0, "setup": ["module load x"]}
    slurm = configured(OWN)
    slurm.gpus = 2
    assert resolved(slurm, block, OWN, ["slurm={gpus: 0, setup: [module load x]}"]).gpus == 0
    assert resolved(slurm, block, OWN, ["+slurm.setup=[module load x]"]).setup == ["module load x"]


def test_a_key_taken_away_is_at_its_default():
    block = {key: value for key, value in OWN.items() if key != "time"}
    assert (
        resolved(configured({**OWN, "time": 7}), block, {**OWN, "time": 7}, ["~slurm.time"]).time
        == 1200
    )


def test_a_notebooks_own_take_the_place_of_the_configurations():
    own = SlurmConfig(gpus=3, time=9)
    found = resolved(own, {**OWN, "gpus": 1}, OWN, ["slurm.gpus=1"])
    assert (found.gpus, found.time, found.partition) == (1, 9, "learnlab")


def test_what_is_no_resource_is_refused():
    with pytest.raises(UserError, match='unknown key "slurm.gpu": did you mean gpus'):
        configured({"gpu": 1})
    with pytest.raises(UserError, match='unknown key "slurm.tme": did you mean time'):
        asked(["+slurm.tme=4"])
    for key in ("time", "gpus", "mem_per_gpu", "cpus_per_task"):
        with pytest.raises(UserError, match=f"slurm.{key}=soon: it takes a number"):
            asked(recipe={key: "soon"})
    with pytest.raises(UserError, match="slurm.time=None: it takes a number"):
        asked(recipe={"time": None})
    for tasks in ("two", 0, 1.5):
        with pytest.raises(UserError, match="job.tasks_per_node"):
            Shape.of({"job": {"tasks_per_node": tasks}})


def test_what_is_set_since_survives_a_copy():
    """Dora's Launcher copies its configuration for each sub-launcher."""
    base = Resources()
    base.time = 5
    one, other = copy.deepcopy(base), copy.deepcopy(base)
    one.gpus = 1
    assert (one.set_since, other.set_since) == ({"time", "gpus"}, {"time"})
    assert one == Resources(gpus=1, time=5) and one != other, "an array compares them"


def test_other_resources_are_another_array(tmp_path):
    from dora_train.engine.experiment.folder import Experiment

    def request(**what):
        return Request(Experiment(tmp_path), slurm(**what), Shape(), 0, tmp_path)

    requests = [request(), request(time=5), request(), request(comment="x"), request(comment="x")]
    assert [len(group) for group in arrays_of(requests)] == [2, 1, 2]


def test_all_jobs_of_a_grid_go_to_one_place():
    here = {"cluster": "local", "local": {"jobs": 1}, "threads": 1}
    found = one_place([here, {**here, "threads": 3}])
    assert (found["cluster"], found["local"]["jobs"], found["threads"]) == ("local", 1, 3)
    assert found["fewest_threads"] == 1
    more = {"jobs": 1, "warm": False, "preload": ["a"]}
    assert one_place([here, {**here, "local": more}])["local"] == {
        **more,
        "per_gpu": None,
        "gpus": None,
    }
    gpus = [{**here, "local": {"jobs": 1, "gpus": given}} for given in ("2,3", [2, 3])]
    assert one_place(gpus)["local"]["gpus"] == "2,3", "written in two ways"
    for other in ({**here, "cluster": "slurm"}, {**here, "local": {"jobs": None}}):
        with pytest.raises(UserError, match="all jobs of a grid go to one place"):
            one_place([here, other])
