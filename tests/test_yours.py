"""Your own model and data keep the project's promises: what an experiment of yours must be able to.

These tests train whatever `dora run debug=fast` trains here. They name no model, no data and no
metric, so they can stay as they are if you replace everything.
"""

from __future__ import annotations

import signal

import pytest
from forked import Run
from project import QUICK, Project, same_run

pytestmark = pytest.mark.slow


@pytest.fixture
def whole(project: Project) -> Project:
    """A run that nothing interrupted."""
    project.dora("run", *QUICK)
    return project


def test_it_trains_and_is_measured(whole: Project):
    assert whole.xp.history() and whole.xp.result()
    assert "completed" in whole.dora("info", "-f", whole.xp.folder.name)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked to end"])
def test_an_interrupted_run_ends_with_the_same_bits(whole: Project, signum: int):
    """Your model and data draw from torch's, numpy's or Python's generators; each of them is seeded
    by the epoch and the step. A generator of your own must be part of the checkpoint, see
    docs/extending.md."""
    again = Project(whole.out.with_name("again"))
    first = Run(
        again, "run", *QUICK, "checkpoint.every_minutes=0.000001", fault=("step", 2, signum)
    )
    assert first.wait() != 0
    again.dora("run", *QUICK)
    same_run(again.xp, whole.xp)


def test_the_same_seed_gives_the_same_numbers(whole: Project):
    again = Project(whole.out.with_name("again"))
    again.dora("run", *QUICK)
    same_run(again.xp, whole.xp)
