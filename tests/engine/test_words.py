"""One main metric, named alike wherever a result is shown; and each state said once."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments import experiment
from forked import Run
from project import QUICK, Project

from dora_train.engine.experiment.records import State
from dora_train.engine.watch.best import Better
from dora_train.engine.watch.status import Status
from dora_train.engine.words import best_key, main_metric, shown_best, shown_test
from dora_train.report.query import main_metric as compared_by
from dora_train.report.runs import read_one

BEST = {"epoch": 5, "acc": 0.9, "loss": 0.25, "f1": 0.7, "value": 0.125}


@pytest.mark.parametrize(
    "metric, best, test",
    [
        ("valid.acc", "valid acc 0.125 @5", "test acc 0.800"),
        ("valid.loss", "valid loss 0.125 @5", "test loss 0.500"),
        ("train.loss", "train loss 0.125 @5", "test loss 0.500"),
        # what was not tested has no number
        ("valid.f1", "valid f1 0.125 @5", "test loss 0.500 acc 0.800"),
        ("", "valid loss 0.250 acc 0.900 f1 0.700 @5", "test loss 0.500 acc 0.800"),
    ],
)
def test_the_metric_that_chose_the_best_is_named(metric: str, best: str, test: str):
    assert shown_best(BEST, metric) == best
    assert shown_test({"acc": 0.8, "loss": 0.5}, metric) == test
    assert shown_best({}, metric) == "" and shown_test({}, metric) == "test"


@pytest.mark.parametrize("config", [{}, {"best": None}, {"best": {}}, {"best": 3}])
def test_an_experiment_that_stored_no_metric(config: dict):
    assert main_metric(config) == ("", "")


@pytest.mark.parametrize(
    "metric, mode, key",
    [("valid.loss", "min", "best.loss"), ("train.acc", "max", "best.train.acc")],
)
def test_the_report_compares_by_it(metric: str, mode: str, key: str, tmp_path: Path):
    """Also by a metric of the training: what was validated in that epoch is another number."""
    runs = []
    for number, value in enumerate((0.5, 0.25)):
        made = experiment(tmp_path, {"seed": number, "best.metric": metric, "best.mode": mode})
        made.write_result(
            {"best": {**BEST, "value": value}, "test": {"acc": 0.9}, "epochs": 5, "steps": 9}
        )
        runs.append(read_one(made, Status(State.COMPLETED)))
    better = Better.of(run.birth for run in runs)
    assert compared_by(runs, better) == key == best_key(metric)
    assert [run.metrics[key] for run in runs] == [0.5, 0.25]
    assert better.best(key, [0.5, 0.25]) == ({0} if mode == "max" else {1})


def test_a_run_names_it_in_each_of_its_lines(project: Project):
    args = ["run", *QUICK, "best.metric=valid.loss", "best.mode=min"]
    lines = said(project, *args)
    result = project.xp.result()
    assert result is not None
    best = f"best valid loss {result['best']['loss']:.3f} @{result['best']['epoch']}"
    assert best in [line for line in lines if line.startswith("epoch 2/2")][0]
    assert f"finished · {best} · test loss {result['test']['loss']:.3f} · " in lines[-3]
    assert f"({best}) · nothing to do" in said(project, *args)[-1]
    info = [
        line for line in said(project, "info", "-f", project.xp.sig) if line.startswith("best ")
    ]
    assert info[0].split()[:3] == ["best", "valid", "loss"] and " · valid acc " in info[0]


def said(project: Project, *args: str) -> list[str]:
    run = Run(project, *args)
    assert run.wait() == 0, run.text
    return run.text.splitlines()


# --- states ---


@pytest.mark.parametrize(
    "state, cause, cell, why",
    [
        (
            State.INTERRUPTED,
            "interrupted by SIGINT",
            "interrupted by SIGINT",
            "interrupted by SIGINT",
        ),
        (State.INTERRUPTED, "preempted", "interrupted: preempted", "interrupted: preempted"),
        (State.INTERRUPTED, "", "interrupted", "interrupted"),
        (State.WAITING, "waiting for a slot", "waiting for a slot", "waiting for a slot"),
        (State.CANCELLED, "cancelled by alice", "cancelled", "cancelled by alice"),
        (State.CANCELLED, "cancelled", "cancelled", "cancelled"),
        (State.TIMED_OUT, "time limit", "timed out", "timed out: time limit"),
        (State.FAILED, "failed to start", "failed to start", "failed to start"),
        (State.FAILED, "out of memory", "out of memory", "failed: out of memory"),
    ],
)
def test_a_state_and_its_cause_say_nothing_twice(state: State, cause: str, cell: str, why: str):
    """Also of a state.json that an earlier version wrote."""
    assert str(Status(state, cause)) == cell and Status(state, cause).why == why
