"""A job that is started again and again without getting anywhere has failed; a person may always
try once more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dora_train.engine.errors import UserError
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import State
from dora_train.engine.run import session
from dora_train.engine.run.ranks import Ranks
from dora_train.engine.run.signals import Signals


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setenv("DORA_TRAIN_JOB_ID", "8812")
    monkeypatch.setenv("DORA_TRAIN_JOB", "token")
    folder = tmp_path / "xps" / "5f3a91c2"
    folder.mkdir(parents=True)
    return Experiment(folder)


def attempt(experiment: Experiment) -> session.Session:
    """Another attempt begins."""
    main: Any = SimpleNamespace(ask=lambda holder: False, find=None, as_stored=dict)
    xp: Any = SimpleNamespace(cfg={"trainer": {"max_epochs": 3}})
    return session._claimed(main, xp, experiment, Ranks(), Signals())


def test_after_three_attempts_without_a_checkpoint_it_has_failed(experiment: Experiment):
    for _ in range(3):
        attempt(experiment).report(State.INTERRUPTED, cause="killed by signal 9")
    with pytest.raises(
        UserError, match="3 attempts without a new checkpoint; the last: killed by signal 9"
    ):
        attempt(experiment)
    run = experiment.state()
    assert run.state is State.FAILED and run.attempt == 4
    assert run.cause == "3 attempts without a new checkpoint; the last: killed by signal 9"
    assert attempt(experiment).state.fruitless == 1, "a retry counts anew"


def test_each_checkpoint_gives_it_three_more(experiment: Experiment):
    for _ in range(6):
        attempt(experiment).saved()
        assert experiment.state().fruitless == 0, "on disk at once: it may be killed any moment"
        attempt(experiment).report(State.INTERRUPTED, cause="killed by signal 9")


def test_a_person_may_always_try_once_more(experiment: Experiment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DORA_TRAIN_JOB_ID")
    for _ in range(6):
        attempt(experiment).report(State.INTERRUPTED, cause="killed by signal 9")


def cleared(experiment: Experiment) -> session.Session:
    """A run that `--clear` began anew; the results from before are put aside."""
    experiment.put_aside()
    assert experiment.cleared.exists()
    return attempt(experiment)


def test_a_checkpoint_takes_the_place_of_what_was_cleared(experiment: Experiment):
    cleared(experiment).saved()
    assert not experiment.cleared.exists()


def test_so_does_an_end_if_the_run_was_killed_right_after_its_checkpoint(experiment: Experiment):
    cleared(experiment).finish({"reason": "max_epochs", "epochs": 3})
    assert not experiment.cleared.exists()
