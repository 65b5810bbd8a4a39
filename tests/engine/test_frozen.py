"""`-f SIG`: frozen values, with what does not count as of today, for an experiment like that
one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dora.conf import DoraConfig
from forked import Run
from project import QUICK, Project

from dora_train.engine.config.compose import Composer
from dora_train.engine.config.values import merged, split
from dora_train.engine.errors import UserError
from dora_train.engine.experiment.drift import FrozenValues
from dora_train.engine.experiment.frozen import todays_values
from dora_train.engine.experiment.records import Birth

FILES = {
    "config.yaml": """
defaults:
  - data: digits
  - _self_
  - experiment: null
seed: 0
logger: [csv]
job:
  tasks_per_node:
slurm:
  time: 1200
""",
    "data/digits.yaml": "name: digits\nbatch_size: 64\nnoise: 0.0\n",
    "data/folder.yaml": "name: folder\nbatch_size: 128\nroot: ''\nnum_workers: 4\n",
    "data/tiles.yaml": "name: tiles\nbatch_size: 32\nroot: ''\nnum_workers: 2\nsize: 8\n",
    "experiment/other.yaml": "# @package _global_\nseed: 8\n",
    "experiment/paper.yaml": """# @package _global_
defaults:
  - override /data: tiles
seed: 7
job:
  tasks_per_node: 2
slurm:
  time: 44
""",
}
EXCLUDE = ["logger", "job.*", "slurm.*", "data.num_workers"]


class Configuration:
    """A folder of configuration files, as they are today."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def change(self, name: str, before: str, after: str) -> None:
        assert before in FILES[name]
        self.write(name, FILES[name].replace(before, after))

    @property
    def composer(self) -> Composer:
        return Composer(self.folder, "config", "1.3")

    def birth(self, *argv: str) -> Birth:
        """Of an experiment that is made today."""
        composed = self.composer.compose(argv)
        config = split(composed.values, EXCLUDE)[0]
        return Birth(
            "0123abcd", composed.argv, [], config, 1, 2, {}, {}, 0.0, groups=composed.choices
        )

    def entered(self, birth: Birth, *extra: str) -> dict[str, Any]:
        """The values with which it runs by its signature, and what was said under `said`."""
        values, said = todays_values(self.composer, birth, EXCLUDE, extra)
        return {**merged(values, birth.config), "said": said}


@pytest.fixture
def conf(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path / "conf")


def old(birth: Birth) -> Birth:
    """As it was stored before groups were."""
    return replace(birth, groups={})


KINDS = pytest.mark.parametrize("stored", [lambda birth: birth, old], ids=["groups", "no groups"])


@KINDS
@pytest.mark.parametrize(
    "argv",
    [[], ["experiment=paper", "seed=1"], ["data=tiles", "data.size=4", "logger=[]"]],
    ids=str,
)
def test_with_today_s_configuration_it_is_what_its_overrides_say(conf, argv, stored):
    expected = conf.composer.compose(argv).values
    assert conf.entered(stored(conf.birth(*argv))) == {**expected, "said": []}


@KINDS
def test_the_default_data_set_became_another_one(conf, stored):
    birth = stored(conf.birth())
    conf.change("config.yaml", "- data: digits", "- data: folder")
    assert conf.entered(birth)["data"] == {"name": "digits", "batch_size": 64, "noise": 0.0}
    assert conf.entered(birth)["said"] == []


@KINDS
def test_an_empty_section_stays_empty(conf, stored):
    conf.write("config.yaml", FILES["config.yaml"] + "args: {}\n")
    birth = stored(conf.birth())
    conf.write("config.yaml", FILES["config.yaml"] + "args:\n  width: 64\n")
    assert conf.entered(birth)["args"] == {}
    frozen = FrozenValues(DoraConfig(), dict)
    xp: Any = SimpleNamespace(
        values=conf.composer.compose([]).values, folder=conf.folder, refuse_collision=print
    )
    [drift] = frozen.drift(xp, birth)
    assert str(drift) == "args was {}; it is {'width': 64} now"
    frozen.restore(xp, birth)
    assert xp.values["args"] == {} and frozen.drift(xp, birth) == []


@KINDS
def test_a_whole_section_that_does_not_count_is_given_again(conf, stored):
    birth = stored(conf.birth("slurm={time: 44}", "job={tasks_per_node: 2}"))
    values = conf.entered(birth)
    assert (values["slurm"], values["job"]) == ({"time": 44}, {"tasks_per_node": 2})


@pytest.mark.parametrize("name", ["2026", "2026_11_28", "1e3", "true"])
def test_a_file_whose_name_reads_as_a_number(conf, name):
    conf.write(f"experiment/{name}.yaml", "# @package _global_\nseed: 8\n")
    composed = conf.composer.compose([f"experiment={name}"])
    assert (composed.values["seed"], composed.choices["experiment"]) == (8, name)
    assert conf.entered(conf.birth(f"experiment={name}"))["said"] == []
    conf.write(f"data/{name}.yaml", "name: numbered\n")
    argv = [f"data={name}", f"experiment={name}"]
    composed = conf.composer.compose(argv)
    assert (composed.values["data"], composed.values["seed"]) == ({"name": "numbered"}, 8)
    main = FILES["config.yaml"].replace("- experiment: null", "- debug: null")
    conf.write("config.yaml", main)
    conf.write(f"debug/{name}.yaml", "# @package _global_\nseed: 9\n")
    composed = conf.composer.compose([f"debug={name}"])
    assert (composed.values["seed"], composed.delta) == (9, [("debug", name)])


def test_an_empty_section_that_does_not_count_hides_nothing(conf):
    """Births of an older version hold `sbatch: {}`."""
    birth = conf.birth()
    birth.config["extra"] = {}
    conf.write("config.yaml", FILES["config.yaml"] + "extra:\n  reservation: lab\n")
    settings = DoraConfig()
    settings.exclude = ["extra", "extra.*"]
    xp: Any = SimpleNamespace(values=conf.composer.compose([]).values, folder=conf.folder)
    FrozenValues(settings, dict).restore(xp, birth)
    assert xp.values["extra"] == {"reservation": "lab"}


def test_naming_a_default_counts_if_a_chosen_file_has_chosen_another(conf):
    main = FILES["config.yaml"] + "debug_of: 0\n"
    conf.write("config.yaml", main.replace("  - experiment: null\n", "  - debug: null\n"))
    small = "# @package _global_\ndefaults:\n  - override /data: tiles\nseed: 3\n"
    conf.write("debug/small.yaml", small)
    one, other = (conf.composer.compose(["debug=small", *more]) for more in ([], ["data=digits"]))
    assert (one.values["data"]["name"], other.values["data"]["name"]) == ("tiles", "digits")
    assert one.delta == [("debug", "small")]
    assert sorted(other.delta) == [("data", "digits"), ("debug", "small")]
    assert conf.composer.compose(["data=digits"]).delta == []


@KINDS
@pytest.mark.parametrize("default", ["digits", "tiles"])
def test_of_two_that_have_the_same_keys_the_values_decide(conf, stored, default):
    conf.write("data/other.yaml", "name: other\nbatch_size: 64\nnoise: 0.5\nnum_workers: 9\n")
    birth = replace(stored(conf.birth("data=other")), argv=[])
    conf.change("config.yaml", "- data: digits", f"- data: {default}")
    assert conf.entered(birth)["data"] == {
        "name": "other",
        "batch_size": 64,
        "noise": 0.5,
        "num_workers": 9,
    }


def test_keys_of_its_own_data_set_can_be_set(conf):
    assert conf.entered(conf.birth("data=folder"), "data.num_workers=0")["data"]["num_workers"] == 0
    with pytest.raises(UserError, match='unknown key "data.num_workers"'):
        conf.entered(conf.birth(), "data.num_workers=0")


@KINDS
def test_what_does_not_count_comes_from_its_recipe_as_it_is_today(conf, stored):
    birth = stored(conf.birth("experiment=paper"))
    conf.change("experiment/paper.yaml", "time: 44", "time: 45")
    found = conf.entered(birth)
    assert (found["job"], found["slurm"], found["seed"]) == ({"tasks_per_node": 2}, {"time": 45}, 7)


def test_its_own_overrides_of_such_keys_are_those_of_its_argv(conf):
    birth = conf.birth("logger=[tb]", "slurm.time=5", "seed=3")
    found = conf.entered(birth, "slurm.time=6")
    assert (found["logger"], found["slurm"]["time"], found["seed"]) == (["tb"], 6, 3)


@KINDS
def test_a_removed_recipe_leaves_the_frozen_values(conf, stored):
    birth = stored(conf.birth("experiment=paper"))
    (conf.folder / "experiment" / "paper.yaml").unlink()
    found = conf.entered(birth)
    assert found["seed"] == 7 and found["slurm"] == {"time": 1200}
    assert found["said"][0].startswith("experiment=paper no longer fits the configuration")


def test_a_recipe_that_is_broken_by_now_is_left_out_too(conf):
    birth = conf.birth("experiment=paper")
    conf.write("experiment/paper.yaml", "seed: [1\n")
    assert conf.entered(birth)["seed"] == 7


@KINDS
def test_a_removed_data_set_brings_no_key_of_another_one(conf, stored):
    birth = stored(conf.birth("data=tiles"))
    (conf.folder / "data" / "tiles.yaml").unlink()
    found = conf.entered(birth)
    assert found["data"] == {"name": "tiles", "batch_size": 32, "root": "", "size": 8}
    assert found["said"] == [
        "data=tiles no longer fits the configuration: left out; what counts is frozen"
    ]


def test_an_override_of_a_key_that_is_gone_is_left_out(conf):
    birth = conf.birth("slurm.time=5", "logger=[]")
    conf.change("config.yaml", "slurm:\n  time: 1200\n", "")
    found = conf.entered(birth)
    assert found["logger"] == [] and "slurm" not in found
    assert found["said"][0].startswith("slurm.time=5 no longer fits")


def test_what_is_asked_for_now_is_never_left_out(conf):
    with pytest.raises(UserError, match="slurm.tme"):
        conf.entered(conf.birth(), "slurm.tme=5")


# --- the real thing ---


def said(project: Project, *args: str, code: int = 0) -> str:
    run = Run(project, *args)
    assert run.wait() == code, run.text
    return run.text


@pytest.mark.slow
def test_a_run_by_its_signature_after_the_defaults_changed(tmp_path: Path):
    project = Project.copy(tmp_path, {"DORA_CLUSTER": "local"})
    said(project, "run", *QUICK)
    project.edit("conf/config.yaml", "- data: digits ", "- data: image_folder ")
    project.edit("conf/task/images.yaml", "momentum: 0.9 ", "momentum: 0.95 ")
    assert "nothing to do" in said(project, "run", "-f", project.xp.sig)
    project.xp.last_checkpoint.unlink()
    before = project.xp.history()
    output = said(project, "run", "--clear", "-f", project.xp.sig)
    assert "small (57 k parameters) on digits" in output and project.xp.history() == before
    assert project.xp.birth().groups["data"] == "digits"


@pytest.mark.slow
def test_a_job_by_its_signature_keeps_the_ranks_of_its_recipe(tmp_path: Path, machine: Any):
    project = Project.copy(tmp_path, machine.env)
    recipe = (
        '# @package _global_\nseed: 3\njob:\n  tasks_per_node: 2\nslurm:\n  setup: ["sleep 300"]\n'
    )
    (project.root / "conf" / "experiment" / "two.yaml").write_text(recipe)
    said(project, "launch", "--no_tail", *QUICK, "experiment=two")
    sig = project.xp.sig
    said(project, "launch", "-f", sig, "-C")
    machine.wait(lambda: not machine.live())
    said(project, "launch", "-f", sig, "--retry", "--no_tail", "slurm.time=7")
    job = project.xp.job()
    assert (
        job.number == 2 and job.resources["job.tasks_per_node"] == 2 and job.resources["time"] == 7
    )
    assert job.resources["setup"] == ["sleep 300"]
