"""Recipes, the files of conf/experiment and conf/debug: what they may say, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import dora.xp
import pytest
from dora.conf import DoraConfig
from forked import Run
from omegaconf import OmegaConf
from project import QUICK, ROOT, Project

from dora_train.engine.config.compose import Composed, Composer
from dora_train.engine.errors import UserError

GLOBAL = "# @package _global_\n"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return shutil.copytree(ROOT / "conf", tmp_path / "conf")


def write(conf: Path, name: str, text: str) -> None:
    path = conf / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def compose(conf: Path, *overrides: str) -> Composed:
    return Composer(conf, "config", "1.3").compose(overrides)


@pytest.mark.parametrize(
    "text, said",
    [
        (
            "early_stoping: {patience: 3}",
            'unknown key "early_stoping.patience": did you mean early_stopping.patience?',
        ),
        ("best: {metrc: valid.loss}", 'unknown key "best.metrc": did you mean best.metric'),
        (
            "trainer: {max_epoch: 3}",
            'unknown key "trainer.max_epoch": did you mean trainer.max_epochs',
        ),
        (
            "trainer: {profiler: simple}",
            "trainer.profiler is not set here: profile=true, or debug=profile.",
        ),
        ("slurm: {gpu: 1}", 'unknown key "slurm.gpu": did you mean slurm.gpus?'),
        ("data: {crps: 1}", 'unknown key "data.crps": did you mean data.crop?'),
        ("seed: {a: 1}", 'unknown key "seed.a": did you mean seed?'),
        ("my_own: {lam: 1}", "a key of your own: write it into conf/config.yaml as well"),
        ("optim: {lr: abc}", "optim.lr=abc: it takes a number (default: 0.05)."),
        ("seed: true", "seed=true: it takes a whole number (default: 0)."),
        ("stop_on_nan: 1", "stop_on_nan=1: it takes true or false (default: true)."),
        ("logger:", "logger=null: it takes a list"),
        ("optim:\nlr: 0.1", "optim is blank: give it keys, or leave it out."),
        (
            "optim.lr: 0.1",
            '"optim.lr:" is one key with a dot in it.\nwrite "optim:", and "lr:" indented below it',
        ),
        ("model_args: {1: 2}", "the key 1 is no text: write it in quotes."),
        (
            "dora: {dir: /tmp}",
            "dora.dir: dora.* is read before any recipe: write it in conf/config.yaml.",
        ),
        (
            "data: mnist",
            'write it below "defaults:", as "- override /data: mnist"',
        ),
        (
            "debug: fast",
            'write it below "defaults:", as "- override /debug: fast"',
        ),
        ("# nothing", "is empty"),
    ],
)
def test_a_recipe_that_is_refused(text: str, said: str, conf: Path):
    write(conf, "experiment/mine", GLOBAL + text)
    with pytest.raises(UserError) as refused:
        compose(conf, "experiment=mine")
    lines = str(refused.value).splitlines()
    assert (
        lines[0].startswith("conf/experiment/mine.yaml")
        and said in str(refused.value)
        and len(lines) <= 4
    ), lines


@pytest.mark.parametrize(
    "header",
    ["", "# my best\n" + GLOBAL, "# @package _global\n", "# @package: _global_\n"],
    ids=["missing", "not the first line", "misspelt", "unread"],
)
def test_a_recipe_without_effect(header: str, conf: Path):
    write(conf, "experiment/mine", f"{header}optim:\n  lr: 0.3\n")
    with pytest.raises(UserError) as refused:
        compose(conf, "experiment=mine")
    assert "conf/experiment/mine.yaml has no effect: its keys land under" in str(refused.value)
    assert str(refused.value).endswith("make this its first line: # @package _global_")


def test_a_recipe_may_say_what_the_command_line_may(conf: Path):
    write(
        conf,
        "experiment/mine",
        GLOBAL
        + """
defaults:
  - override /data: mnist
data: {valid: 0.2}
model_args: {width: 16, anything: {a: 1}}
sbatch: {reservation: lab}
slurm: {setup: [module load cuda]}
trainer: {gradient_clip_algorithm: norm, max_time: {minutes: 5}}
tag: {a: 1}
optim: {lr: "${schedule.factor}", weight_decay: 1}
ema: {decay: 0.99}
logger: [csv]
""",
    )
    composed = compose(conf, "experiment=mine", "model_args.depth=3")
    assert composed.values["data"]["name"] == "mnist" and composed.values["data"]["valid"] == 0.2
    assert composed.values["optim"]["lr"] == 0.1 and composed.values["model_args"]["width"] == 16
    assert composed.former == [("experiment", "mine"), ("model_args.depth", 3)]


def test_keys_that_land_in_a_section_are_held_to_it(conf: Path):
    write(conf, "experiment/mine", "# @package optim\nlr: 0.3\n")
    assert compose(conf, "experiment=mine").values["optim"]["lr"] == 0.3
    write(conf, "experiment/mine", "# @package optim\nlrr: 0.3\n")
    with pytest.raises(UserError, match='unknown key "optim.lrr": did you mean optim.lr'):
        compose(conf, "experiment=mine")


def test_recipes_that_the_project_brings(conf: Path):
    for path in sorted((ROOT / "conf" / "debug").glob("*.yaml")):
        assert compose(conf, f"debug={path.stem}").delta == [("debug", path.stem)]
    for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        composed = compose(conf, f"experiment={path.stem}")
        assert composed.former == [("experiment", path.stem)] and len(composed.delta) > 3


# --- a recipe is its values ---


@pytest.mark.parametrize("more", [[], ["optim.momentum=0.5"]], ids=["alone", "with an override"])
@pytest.mark.parametrize(
    "recipe, by_hand",
    [
        ("optim: {lr: 1}\ntag: 5", ["optim.lr=1.0", "tag=5"]),
        ("model_args: {width: 8}", ["model_args.width=8"]),
        (
            "defaults:\n  - override /data: cifar10\ndata: {cutout: 8}",
            ["data=cifar10", "data.cutout=8"],
        ),
        ("optim: {lr: 0.3}\nlogger: []", ["optim.lr=0.3", "logger=[]"]),
        ("seed: 0", []),
        ('seed: 1\ntag: "${model}"', ["seed=1", "tag=small"]),
    ],
)
def test_a_recipe_and_its_values_are_one_experiment(
    recipe: str, by_hand: list[str], more: list[str], conf: Path
):
    write(conf, "experiment/mine", GLOBAL + recipe)
    named, typed = compose(conf, "experiment=mine", *more), compose(conf, *by_hand, *more)
    assert json.dumps(sorted(named.delta)) == json.dumps(sorted(typed.delta))
    assert json.dumps(named.values) == json.dumps(typed.values) and typed.former is None


def test_an_override_of_what_a_recipe_says_counts_once(conf: Path):
    write(conf, "experiment/mine", GLOBAL + "optim: {lr: 0.3}\nseed: 7")
    composed = compose(conf, "experiment=mine", "optim.lr=0.2", "seed=0")
    assert composed.delta == [("optim.lr", 0.2)]


def test_an_experiment_that_its_recipe_once_named_is_found(copy: Project):
    """Rule 1 counted the name of the recipe.

    If such an experiment is there, the command means it.
    """
    write(copy.root / "conf", "experiment/mine", GLOBAL + "optim: {lr: 0.3}")
    assert Run(copy, "run", "experiment=mine", *QUICK).wait() == 0
    made = copy.xp
    excluded = [*OmegaConf.load(copy.root / "conf" / "config.yaml").dora.exclude, "slurm.*"]
    former = compose(copy.root / "conf", "experiment=mine", *QUICK).former
    old = dora.xp.XP(DoraConfig(dir=copy.out, exclude=excluded), None, [], former)
    assert old.sig != made.sig
    birth = json.loads((made.folder / "birth.json").read_text())
    made.folder.rename(old.folder)
    (old.folder / "birth.json").write_text(
        json.dumps(birth | {"sig": old.sig, "rule": 1, "delta": old.delta})
    )
    for name in ("experiment=mine", "optim.lr=0.3"):
        run = Run(copy, "run", name, *QUICK)
        assert run.wait() == 0 and ("nothing to do" in run.text) == (name != "optim.lr=0.3"), (
            run.text
        )
    run = Run(copy, "run", "experiment=mine", *QUICK)
    assert run.wait() == 0 and f"XP {old.sig}" in run.text and "nothing to do" in run.text


def test_a_recipe_of_another_folder_is_named(conf: Path):
    write(conf, "debug/mine", GLOBAL + "seeed: 1")
    write(conf, "experiment/base", GLOBAL + "seeed: 1")
    write(conf, "experiment/mine", GLOBAL + "defaults:\n  - /experiment/base\nseed: 1")
    for override, file in [
        ("debug=mine", "debug/mine"),
        ("experiment=mine", "experiment/base"),
        ("experiment=[digits_accurate,base]", "experiment/base"),
    ]:
        with pytest.raises(
            UserError, match=f'conf/{file}.yaml: unknown key "seeed": did you mean seed'
        ):
            compose(conf, override)


def test_a_default_recipe_is_held_to_the_same_rules(conf: Path):
    write(conf, "experiment/mine", GLOBAL + "seeed: 1")
    config = conf / "config.yaml"
    config.write_text(config.read_text().replace("- experiment: null", "- experiment: mine"))
    with pytest.raises(UserError, match='conf/experiment/mine.yaml: unknown key "seeed"'):
        compose(conf)
    write(conf, "experiment/mine", GLOBAL + "seed: 7")
    assert compose(conf, "debug=fast").values["seed"] == 7


# --- sub-folders ---


def test_a_recipe_in_a_sub_folder(conf: Path):
    write(conf, "experiment/paper/t2", GLOBAL + "seed: 2")
    write(
        conf,
        "experiment/paper/deep/t3",
        GLOBAL + "defaults:\n  - /experiment/paper/t2\noptim: {lr: 0.3}",
    )
    assert compose(conf, "experiment=paper/t2").values["seed"] == 2
    deep = compose(conf, "experiment=paper/deep/t3", "seed=5")
    assert deep.values["optim"]["lr"] == 0.3 and deep.values["seed"] == 5
    assert deep.delta == [("optim.lr", 0.3), ("seed", 5)]
    write(conf, "experiment/paper/t4", "seed: 2")
    with pytest.raises(UserError, match="conf/experiment/paper/t4.yaml has no effect"):
        compose(conf, "experiment=paper/t4")


@pytest.mark.parametrize(
    "override, said",
    [
        ("experiment=t2", 'unknown experiment "t2": did you mean paper/t2?'),
        ("experiment=paper/t22", 'unknown experiment "paper/t22": did you mean paper/t2?'),
        ("experiment/paper=t2", '"experiment/paper=t2": write experiment=paper/t2.'),
        ("data=conf/data/mnist.yaml", 'unknown data "conf/data/mnist.yaml": did you mean mnist'),
        (
            "+experiment=paper/t2",
            '"+experiment=paper/t2": experiment is there already; leave out the "+".',
        ),
        ("+data=mnist", '"+data=mnist": data is there already; leave out the "+".'),
    ],
)
def test_a_wrong_name_in_a_sub_folder(override: str, said: str, conf: Path):
    write(conf, "experiment/paper/t2", GLOBAL + "seed: 2")
    with pytest.raises(UserError) as refused:
        compose(conf, override)
    assert str(refused.value).startswith(said)


def test_the_command_refuses_and_runs_recipes(copy: Project):
    write(copy.root / "conf", "experiment/paper/t2", GLOBAL + "optim: {lr: 0.3}")
    write(copy.root / "conf", "experiment/wrong", GLOBAL + "optim: {lrr: 0.3}")
    run = Run(copy, "run", "experiment=wrong", *QUICK)
    assert run.wait() == 1 and not copy.out.exists()
    assert run.text.startswith(
        'conf/experiment/wrong.yaml: unknown key "optim.lrr": did you mean optim.lr?'
    )
    for name, words in [
        ("experiment=paper/t2", "new"),
        ("experiment=paper/t2", "nothing to do"),
        ("optim.lr=0.3", "nothing to do"),
    ]:
        run = Run(copy, "run", name, *QUICK)
        assert run.wait() == 0 and words in run.text, run.text
    assert copy.xp.birth().config["optim"]["lr"] == 0.3  # type: ignore[union-attr]


# --- groups ---


@pytest.mark.parametrize("override", ["~experiment", "experiment=[]", "experiment=null", "~debug"])
def test_no_recipe_is_no_difference(override: str, conf: Path):
    assert compose(conf, override).delta == []


@pytest.mark.parametrize("override", ["~data", "~data=digits", "data=[]", "data=null"])
def test_a_group_that_is_needed(override: str, conf: Path):
    with pytest.raises(UserError, match="data=null: one is needed"):
        compose(conf, override)
