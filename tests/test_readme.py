"""The README and docs/ are executed: their commands, their links, the keys they name."""

from __future__ import annotations

import re
import shlex

import pytest
from grid_project import Machine
from project import QUICK, ROOT, Project, sig_of

README = (ROOT / "README.md").read_text()
PAGES = {"README.md": README} | {
    f"docs/{path.name}": path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))
}
TEXT = "\n".join(PAGES.values())
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    if line.strip()
]

# What is not run here, and why that is no hole.
ELSEWHERE = {
    "git clone https://example.org/dora_train && cd dora_train": "this is the clone",
    "make run": "sets up what runs this test; tried in a fresh clone",
    "python3 -m venv env": "as make does",
    "source env/bin/activate": "as make does",
    "source .venv/bin/activate": "of the environment that make made",
    "pip install -r requirements.txt": "as make does",
    "dora run data=cifar10 model=resnet18": "a download; test_data.py reads files of its format",
    "tensorboard --logdir outputs/xps": "a server; test_run.py reads its events",
    "python -m basic.train --lr 0.1 --epochs 3": "test_basic.py",
    "python -m basic.schedule --lr 0.1 --epochs 3": "test_basic.py",
    "python -m pl_hydra.train optim.lr=0.1 trainer.max_epochs=3": "test_pl_hydra.py",
    "python -m pl_hydra.train -m optim.lr=0.1,0.3 trainer.max_epochs=2": "test_pl_hydra.py",
    "python -m dora_train.predict SIG": "test_predict.py",
    "python -m dora_train.predict SIG photos/ --output classes.csv": "test_predict.py",
    "python -m dora_train.snapshots SIG FOLDER": "test_code.py",
    "python -m dora_train.check task=lightning": "test_check.py",
    "python -m dora_train.snapshots --diff SIG": "test_code_tag.py",
    "python -m dora_train.report --last 10": "test_day.py",
    "python -m dora_train.report SIG": "test_many.py",
    "python -m dora_train.report mysweep": "test_report.py",
    "python -m dora_train.report mysweep --over seed": "test_ranking.py",
    "python -m dora_train.report mysweep --html mysweep.html": "test_page.py",
    "python -m dora_train.report --diff SIG SIG": "test_report.py",
    "python -m dora_train.sweep 'optim.lr=0.1,0.01' 'seed=range(3)' trainer.max_epochs=5 --name lr_by_seed": "test_sweep.py",  # noqa: E501
    "dora grid search": "test_search.py",
    "python -m dora_train.upgrade ../dora_train": "test_upgrade.py",
    "python -m dora_train.upgrade URL --tag v2": "test_upgrade.py",
    "python ../dora_train/dora_train/upgrade.py ../dora_train": "test_upgrade.py",
}


def shortened(command: list[str]) -> list[str]:
    """The same command with little to train: what is tested is that it works as it is written."""
    if command[:2] not in (["dora", "run"], ["dora", "launch"]) or "--clear" in command:
        return command
    return command + [
        word
        for word in ("debug=fast", "threads=1")
        if not any(given.startswith(word.partition("=")[0] + "=") for given in command)
    ]


def test_there_is_a_first_run_by_line_15_and_an_end_by_line_150():
    lines = README.splitlines()
    assert "make run" in lines[:15] and len(lines) <= 150


@pytest.fixture
def here(copy: Project, machine: Machine) -> Project:
    """A project whose grids are short, and run on this machine."""
    copy.env |= machine.env
    copy.edit(
        "grids/mysweep.py",
        "launcher.slurm_(cpus_per_task=2)",
        'launcher.slurm_(cpus_per_task=2).bind_({"debug": "fast", "trainer.max_epochs": 1})',
    )
    return copy


@pytest.mark.slow
def test_commands_run(here: Project):
    sig = sig_of(here.dora("run", "optim.lr=0.1", *QUICK))
    for text in dict.fromkeys(COMMANDS):
        if text not in ELSEWHERE:
            run(here, text, sig)
    assert "6 completed" in here.dora("grid", "mysweep", "--no_monitoring")


def run(project: Project, text: str, sig: str) -> None:
    command = shlex.split(text.replace("SIG", sig))
    assert command[0] == "dora", f"{text}: a test must run it, or ELSEWHERE say why not"
    assert "Traceback" not in project.dora(*shortened(command)[1:]), text


def test_nothing_is_excused_that_is_not_there():
    assert set(ELSEWHERE) <= set(COMMANDS)


# --- the recipes of "Make it yours" ---

PYTHON, YAML = (
    re.search(rf"```{kind}\n((?:(?!```).)*?shades.*?)```", TEXT, flags=re.DOTALL)[1]
    for kind in ("python", "yaml")
)
RECIPES = {
    text.partition(",")[0].removeprefix("A ").partition(" of ")[0]: text.partition("\n")[2].rstrip(
        "\n"
    )
    for text in PYTHON.split("# ")[1:]
}


def test_every_recipe_is_followed():
    assert list(RECIPES) == ["model", "data set", "loss", "metric", "callback", "logger"]


@pytest.mark.slow
def test_recipes_word_for_word(copy: Project):
    """All of them in one copy of the project, which then trains with all of them."""

    def append(file: str, text: str) -> None:
        path = copy.root / file
        path.write_text(f"{path.read_text()}\n\n{text}\n")

    append("dora_train/model.py", RECIPES["model"])
    append("dora_train/data/load.py", RECIPES["data set"])
    (copy.root / "conf/data/shades.yaml").write_text(YAML)
    loss = re.search(
        r"    def loss\(.*?\n\n", (copy.root / "dora_train/module.py").read_text(), flags=re.DOTALL
    )[0]
    copy.edit("dora_train/module.py", loss.rstrip().splitlines()[-1], RECIPES["loss"])
    copy.edit(
        "dora_train/module.py",
        'return {"loss": self.loss(logits, labels), ',
        'return {"loss": self.loss(logits, labels), ' + RECIPES["metric"] + " ",
    )
    append("dora_train/module.py", RECIPES["callback"])
    append("dora_train/engine/run/loggers.py", RECIPES["logger"])
    output = copy.dora(
        "run",
        "data=shades",
        "model=linear",
        "logger=[tensorboard,lightning]",
        "trainer.max_epochs=20",
        "optim.lr=0.1",
    )
    assert "linear (" in output and "on shades (" in output and output.count("off we go") == 1
    history = copy.xp.history()
    assert {"loss", "acc", "confidence"} == set(history[0]["valid"]) and history[-1]["valid"][
        "acc"
    ] == 1.0
    assert history[-1]["valid"]["loss"] == 0.0, "a margin is reached, which cross entropy never is"
    assert list((copy.xp.folder / "lightning").rglob("metrics.csv"))


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_exist(page: str):
    folder, text = (ROOT / page).parent, PAGES[page]
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    missing = [link for link in links if not (folder / link).exists()]
    paths = re.findall(
        r"`((?:dora_train|conf|grids|tests|benchmarks|basic|pl_hydra)/[\w/.]*)`", text
    )
    engine = ["dora_train/" + path for path in re.findall(r"`(engine/[\w/.]+)`", text)]
    missing += [path for path in paths + engine if not (ROOT / path).exists()]
    assert not missing


def test_keys_exist():
    from dora_train.engine.config.compose import Composer

    composer = Composer(ROOT / "conf", "config", "1.3")
    for command in COMMANDS:
        words = shlex.split(command)
        if words[:2] in (["dora", "run"], ["dora", "launch"]):
            composer.compose([word for word in words[2:] if "=" in word])
