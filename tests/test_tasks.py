"""The tasks beside images: they train, resume with the same bits, and predict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Fault, Run, faults_at_random
from ports import EVERY_STEP
from project import ROOT, Project, same_run

from dora_train.tasks import check_task

QUICK = ["threads=1", "trainer.accelerator=cpu", "data.batch_size=16"]
TASKS = {
    "text": [
        "trainer.max_steps=20",
        "trainer.val_check_interval=6",
        "trainer.limit_val_batches=2",
        "trainer.limit_test_batches=2",
        "data.context=16",
        "model_args.width=16",
    ],
    "tabular": ["trainer.max_epochs=3"],
    "lightning": ["trainer.max_epochs=2", "trainer.limit_train_batches=9"],
}
CHAOS = int(os.environ.get("DORA_TRAIN_CHAOS", 0))  # kills in all
KILLS: list[Fault] = [("step", 4), ("step", 5, 15), ("torch.save", 3), ("write", 40)]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    """An undisturbed run of each task."""
    made = {}
    for task in TASKS:
        made[task] = Project(tmp_path_factory.mktemp(task) / "outputs")
        run = Run(made[task], *command(task))
        assert run.wait() == 0, run.text
    return made


def command(task: str, *more: str) -> list[str]:
    return ["run", f"task={task}", *QUICK, *TASKS[task], *more]


def test_a_task_is_one_short_file():
    for task in TASKS:
        assert len((ROOT / f"dora_train/tasks/{task}.py").read_text().splitlines()) <= 90


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_what_a_run_says_and_keeps(task: str, references: dict[str, Project]):
    experiment = references[task].xp
    result, history = experiment.result(), experiment.history()
    assert experiment.birth().delta[0] == ["task", task]  # type: ignore[union-attr]
    name = {"text": "bpc", "tabular": "mae", "lightning": "acc"}[task]
    assert result["best"]["value"] == result["best"][name] and name in result["test"]
    values = [entry["valid"][name] for entry in history]
    assert result["best"]["value"] == (max if task == "lightning" else min)(values)
    assert [entry.get("step") for entry in history] == {
        "text": [6, 12, 18],
        "tabular": [None] * 3,
        "lightning": [None] * 2,
    }[task]


@pytest.mark.parametrize("series", range(CHAOS // 60 or 1))
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.slow
def test_killed_again_and_again(
    task: str, workers: int, series: int, references: dict[str, Project], tmp_path: Path
):
    if task == "tabular" and workers:
        pytest.skip("it has no workers: its data are 442 rows in memory")
    project = Project(tmp_path / "outputs")
    more = [f"data.num_workers={workers}"] if task != "tabular" else []
    for fault in faults_at_random(f"{task} {series}", 6) if series else KILLS:
        run = Run(project, *command(task, EVERY_STEP, *more), fault=fault)
        if run.wait() == 0:
            break
        assert "Traceback" not in run.text, run.text
    run = Run(project, *command(task, *more))
    assert run.wait() == 0, run.text
    same_run(project.xp, references[task].xp)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS if CHAOS else ["text"])
def test_two_ranks(task: str, tmp_path: Path):
    two = ["run", "-d", "--ddp_workers", "2", *command(task, EVERY_STEP)[1:]]
    whole, killed = Project(tmp_path / "whole"), Project(tmp_path / "killed")
    whole.dora(*two)
    process = killed.start("dora", *two)
    killed.wait_for_checkpoint(process)
    process.kill()
    process.communicate()
    killed.dora(*two)
    same_run(killed.xp, whole.xp)


@pytest.mark.slow
def test_a_task_of_your_own_by_the_guide(copy: Project):
    """Two files are copied to another name; it becomes the default by one line."""
    tasks, conf = copy.root / "dora_train/tasks", copy.root / "conf"
    (tasks / "mine.py").write_text((tasks / "lightning.py").read_text())
    keys = (conf / "task/lightning.yaml").read_text().replace("task: lightning", "task: mine")
    (conf / "task/mine.yaml").write_text(keys)
    copy.dora("run", "task=mine", "debug=fast", "threads=1")
    copy.edit("conf/config.yaml", "- task: images", "- task: mine")
    copy.dora("run", "debug=fast", "optim.lr=0.01", "threads=1")
    assert [len(xp.history()) for xp in copy.experiments()] == [2, 2]


# --- predictions ---


def predicted(project: Project, *words: str, code: int = 0) -> str:
    return project.run("python", "-m", "dora_train.predict", project.xp.sig, *words, code=code)


@pytest.mark.slow
def test_text_goes_on(references: dict[str, Project]):
    first = predicted(references["text"], "import os")
    assert first.startswith("import os") and len(first) > 100
    assert predicted(references["text"], "import os") == first


def module_of(experiment: Any) -> Any:
    from omegaconf import OmegaConf

    from dora_train.tasks import tabular

    module, data = tabular.parts(OmegaConf.create(experiment.birth().config))
    module.load_state_dict(torch.load(experiment.best_checkpoint, weights_only=True)["state_dict"])
    return module.eval(), data


def test_a_table_gets_a_column(references: dict[str, Project], tmp_path: Path):
    """With the very values that the module gives."""
    from dora_train.tasks import tabular

    module, data = module_of(references["tabular"].xp)
    rows = [row.tolist() for row in data.x[:3]]
    path = tmp_path / "patients.csv"
    lines = [",".join(data.names), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines))
    table = tabular.predict(module, data, [str(path)]).splitlines()
    assert table[0] == ",".join([*data.names, "prediction"]) and len(table) == 4
    expected = [f"{value:.1f}" for value in module(data.x[:3]).tolist()]
    assert [line.rpartition(",")[2] for line in table[1:]] == expected
    for rows, said in (([], "has no rows"), (["1,2"], "could not convert string to float")):
        path.write_text("\n".join([lines[0], *rows]))
        with pytest.raises(ValueError, match=said):
            tabular.predict(module, data, [str(path)])


@pytest.mark.slow
def test_what_cannot_be_predicted_is_one_line_and_a_way_on(
    references: dict[str, Project], tmp_path: Path
):
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("age\n1\n")
    for task, words, said in [
        ("text", [], "task=text needs WORDS to predict from. WORDS are how a text begins"),
        ("tabular", [str(wrong)], "there is no column sex; it needs age, sex, bmi"),
        ("tabular", ["/no/file"], "/no/file: No such file or directory."),
        ("lightning", ["x"], "task=lightning predicts nothing"),
    ]:
        text = predicted(references[task], *words, code=1)
        assert said in text and len(text.splitlines()) <= 2


# --- what is refused ---


@pytest.mark.parametrize(
    "task, data, said",
    [
        ("nothing", {}, "there is no file dora_train/tasks/nothing.py"),
        ("text", {"name": "mnist"}, "task=text has its own data: leave out data=mnist."),
        ("tabular", {"batch_size": 0}, "data.batch_size=0: it takes a whole number, 1 or more."),
    ],
)
def test_values_that_make_no_task(task: str, data: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        check_task(task, data)


def test_a_key_of_another_task_is_unknown(project: Project):
    run = Run(project, "run", "task=tabular", "schedule.name=none")
    assert run.wait() == 1 and 'unknown key "schedule.name"' in run.text
    run = Run(project, "run", "task=tex")
    assert run.wait() == 1 and 'unknown task "tex": did you mean text?' in run.text


@pytest.mark.parametrize("task", TASKS)
def test_overfits_the_same_two_batches(task: str, project: Project):
    run = Run(project, *command(task, "debug=overfit", "trainer.max_epochs=2"))
    assert run.wait() == 0, run.text
    assert project.xp.result()["steps"] == 4
