"""Your own models and data keep the project's promises: what an experiment of yours must be able to.

These tests train a few steps of each task in conf/task, and of each recipe in conf/experiment that
takes the default data, as others may need a download. They name no model, no data and no metric,
so they can stay as they are if you replace everything.
"""

from __future__ import annotations

import signal

import pytest
from forked import Run
from project import QUICK, ROOT, Project, same_run

from dora_train.engine.config.compose import Composer
from dora_train.engine.run.comparisons import Finding, checked

pytestmark = pytest.mark.slow

COMPOSER = Composer(ROOT / "conf", "config", "1.3")


def overrides() -> list[str]:
    """`task=NAME` of each task, and `experiment=NAME` of each recipe with the default data."""
    found = [f"task={name}" for name in COMPOSER.options("task")]
    for name in COMPOSER.options("experiment"):
        recipe = f"experiment={name}"
        if COMPOSER.compose([recipe]).choices["data"] == COMPOSER.choices["data"]:
            found.append(recipe)
    return sorted(found)


@pytest.fixture
def whole(project: Project) -> Project:
    """A run that nothing interrupted."""
    project.dora("run", *QUICK)
    return project


def test_it_trains_and_is_measured(whole: Project):
    assert whole.xp.history() and whole.xp.result()
    assert "completed" in whole.dora("info", "-f", whole.xp.folder.name)


def test_a_run_that_was_asked_to_end_ends_with_the_same_bits(whole: Project):
    again = Project(whole.out.with_name("again"))
    often = "checkpoint.every_minutes=0.000001"
    assert Run(again, "run", *QUICK, often, fault=("step", 2, signal.SIGTERM)).wait() != 0
    again.dora("run", *QUICK)
    same_run(again.xp, whole.xp)


# --- python -m dora_train.check ---


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """What `python -m dora_train.check` finds of each, by its overrides."""
    experiments = {word: [word, "threads=1"] for word in overrides()}
    return checked(tmp_path_factory.mktemp("checked"), COMPOSER, experiments)


@pytest.mark.parametrize("word", overrides())
def test_the_same_bits_however_it_is_disturbed(word: str, found: dict[str, list[Finding]]):
    """Twice, killed, with other workers, beside other work, on two ranks: see
    docs/exactness.md."""
    wrong = [one.line() for one in found[word] if not one.agrees]
    assert not wrong, "\n".join(wrong)
    assert not any(one.skipped for one in found[word] if one.name in ("twice", "killed"))
