"""Which way is up: nobody guesses a metric's direction, not for the best epoch, nor for a
search."""

from __future__ import annotations

import re

import pytest
from project import Project

from dora_train.engine.config.compose import Composer
from dora_train.engine.config.direction import is_said, refuse_guess
from dora_train.engine.errors import UserError

RECIPES = {
    "both": "best:\n  metric: valid.auc\n  mode: max\n",  # the same mode as the default's
    "metric_alone": "best:\n  metric: valid.auc\n",
    "mode_alone": "best:\n  mode: min\n",
    "low": "best:\n  metric: valid.error\n  mode: min\n",
    "on_top": "defaults:\n  - low\n",
}


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> Composer:
    conf = tmp_path_factory.mktemp("conf")
    (conf / "experiment").mkdir()
    (conf / "config.yaml").write_text(
        "defaults:\n  - _self_\n  - experiment: null\nbest:\n  metric: valid.acc\n  mode: max\nseed: 0\n"
    )
    for name, text in RECIPES.items():
        (conf / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    return Composer(conf, "config", "1.3")


def check(composer: Composer, text: str) -> None:
    composed = composer.compose(text.split())
    refuse_guess(composed.values, composed.argv, composer)


@pytest.mark.parametrize(
    "argv",
    [
        "",
        "seed=1",
        "best.metric=valid.acc",
        "best.mode=min",
        "best.metric=valid.loss best.mode=min",
        "best.mode=max best.metric=valid.auc",
        "best={metric:valid.auc,mode:max}",
        "++best.mode=max best.metric=train.acc",
        "experiment=both",
        "experiment=low",
        "experiment=on_top",
        "experiment=mode_alone",
        "experiment=metric_alone best.mode=max",
        "experiment=both best.metric=valid.auc",
        "experiment=low best.metric=valid.acc best.mode=max",
    ],
)
def test_a_direction_that_was_said(argv: str, composer: Composer):
    check(composer, argv)


@pytest.mark.parametrize(
    "argv, said",
    [
        (
            "best.metric=valid.loss",
            "best.metric=valid.loss needs its direction: add best.mode=min.",
        ),
        (
            "best.metric=train.my_Loss",
            "best.metric=train.my_Loss needs its direction: add best.mode=min.",
        ),
        (
            "best.metric=valid.auc",
            "best.metric=valid.auc needs its direction: add best.mode=max or best.mode=min.",
        ),
        ("best={metric:valid.auc}", "add best.mode=max or best.mode=min."),
        ("experiment=metric_alone", "best.metric=valid.auc needs its direction"),
        ("experiment=both best.metric=valid.f1", "best.metric=valid.f1 needs its direction"),
        (
            "best.metric=valid.loss best.mode=max",
            "best.mode=max: valid.loss is a loss, and less of it is better",
        ),
    ],
)
def test_a_direction_that_nobody_said_or_a_wrong_one(argv: str, said: str, composer: Composer):
    with pytest.raises(UserError) as refused:
        check(composer, argv)
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_whoever_names_the_metric_says_the_direction():
    first = {"metric": "acc", "mode": "max"}
    assert is_said([first, {}], "metric", "mode")
    assert not is_said([first, {"metric": "auc"}], "metric", "mode")
    assert is_said([first, {"metric": "auc"}, {"mode": "max"}], "metric", "mode")
    assert not is_said(
        [first, {"metric": "err", "mode": "min"}, {"metric": "acc"}], "metric", "mode"
    ), "not err's"


def test_it_is_refused_before_a_folder_is_made_and_at_the_line_of_the_grid(copy: Project):
    copy.env["DORA_CLUSTER"] = "local"
    copy.edit(
        "grids/mysweep.py",
        "for batch_size in",
        'launcher("best.metric=valid.loss")\n    for batch_size in',
    )
    output = copy.dora("grid", "mysweep", code=1)
    assert re.match(
        r"grids/mysweep.py:\d+: best.metric=valid.loss needs its direction: add best.mode=min.",
        output,
    )
    assert copy.dora("run", "best.metric=valid.loss", code=1) == (
        "best.metric=valid.loss needs its direction: add best.mode=min.\n"
    )
    assert not copy.out.exists() or not list((copy.out / "xps").glob("*"))


@pytest.mark.parametrize(
    "lines, said",
    [
        (
            {"objective": "valid.loss"},
            'objective = "valid.loss" needs its direction: add mode = "min".',
        ),
        ({"objective": "valid.auc"}, 'add mode = "max" or mode = "min".'),
        ({"objective": "valid.loss", "mode": "max"}, "less of it is better"),
        ({"objective": "valid.loss", "mode": "min"}, ""),
        ({"objective": "valid.acc"}, ""),
    ],
)
def test_a_search_is_told_the_direction_of_its_objective(lines: dict[str, str], said: str):
    from dora_train.search import Search, log

    kind = type("Mine", (Search,), {"space": {"optim.lr": log(0.1, 1.0)}, **lines})
    if not said:
        kind(lambda launcher: None)._settle("valid.acc", "max")
        return
    with pytest.raises(UserError) as refused:
        kind(lambda launcher: None)._settle("valid.acc", "max")
    assert said in str(refused.value)


def test_a_search_is_after_what_chooses_the_best_epoch():
    from dora_train.search import Search, log

    class Mine(Search):
        space = {"optim.lr": log(0.1, 1.0)}

    search = Mine(lambda launcher: None)
    search._settle("valid.mae", "min")
    assert (search.objective, search.mode) == ("valid.mae", "min")


BEFORE = """
from dora_train.engine.experiment.records import RunState, State
from dora_train.train import main
xp = main.get_xp(["best.metric=valid.loss"])
experiment = main.experiment(xp)
experiment.write_birth(main._birth(xp))
experiment.write_state(RunState(State.COMPLETED, attempt=1, best={"epoch": 1, "loss": 2.0, "value": 2.0}))
print(experiment.sig)
"""


@pytest.mark.slow
def test_an_experiment_of_before_keeps_its_meaning(project: Project):
    """Its values are frozen, right or wrong: nothing is asked of it again."""
    sig = project.run("python", "-c", BEFORE).split()[-1]
    for args in (["-f", sig], ["best.metric=valid.loss"]):
        output = project.dora("run", *args)
        assert "(best valid loss 2.000 @1) · nothing to do" in output, output
