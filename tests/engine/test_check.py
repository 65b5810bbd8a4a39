"""`python -m dora_train.check`: ten planted faults are found, and nothing that ships is an alarm."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from project import ROOT, Project

from dora_train import check as command
from dora_train.engine.config.compose import Composer
from dora_train.engine.errors import UserError
from dora_train.engine.run import arms
from dora_train.engine.run.arms import Ran, run_arms
from dora_train.engine.run.comparisons import LINES, Check, Finding, small
from dora_train.engine.run.traces import Difference, Traced, first_difference

FAULTS = Path(__file__).parent / "faults"
# Each fault, the comparison that finds it, and words of the likely cause.
FOUND = {
    "draws_in_a_dataset": ("beside", "global generator outside the counters"),
    "a_generator_of_its_own": (
        "killed",
        "generator outside the counters, whose state is in no checkpoint: Noisy.rng",
    ),
    "the_order_of_a_set": ("twice", "the order of a set"),
    "state_in_a_callback": ("killed", "state that is missing in the checkpoint: Thirds.batches"),
    "the_wall_clock": ("twice", "the wall clock"),
    "a_draw_per_worker": ("workers", "depends on the worker"),
    "a_buffer_that_is_not_persistent": ("killed", "a buffer that is not persistent"),
    "augmentation_outside_the_counters": (
        "killed",
        "generator outside the counters, whose state is in no checkpoint",
    ),
    "a_schedule_that_counts_its_calls": (
        "killed",
        "a schedule that keeps a count of its own: warm_up",
    ),
    "an_optimizer_outside": (
        "killed",
        "an optimizer outside configure_optimizers: Tempered.second",
    ),
}
# Modules without a fault, and the comparisons that are made of them.
EXACT = {"base": ["twice", "killed", "workers", "beside"], "kept": ["killed"]}
TASK = """# @package _global_
defaults:
  - override /data: null
task: {name}
data: {{num_workers: 0}}
best: {{metric: valid.loss, mode: min}}
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with each fault as a task."""
    project = Project.copy(tmp_path_factory.mktemp("planted"))
    for path in FAULTS.glob("*.py"):
        shutil.copy(path, project.root / "dora_train/tasks")
        (project.root / f"conf/task/{path.stem}.yaml").write_text(TASK.format(name=path.stem))
    return project


@pytest.fixture(scope="module")
def found(planted: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """What is found of each fault, and of the same module without one. Their runs share two
    processes."""
    folder = tmp_path_factory.mktemp("checked")
    composer = Composer(planted.root / "conf", "config", "1.3")
    checks: dict[str, Check] = {}
    plans: tuple[list[arms.Arm], list[arms.Arm]] = ([], [])
    for name in [*FOUND, *EXACT]:
        overrides = small([f"task={name}", "trainer.accelerator=cpu", "threads=1"], composer)
        names = EXACT.get(name) or [FOUND[name][0]]
        values = composer.compose(overrides).values
        check = Check(overrides, folder, values, names, f"{name}_", kills=[(0, 2)])
        for plan, more in zip(plans, check.plans(), strict=True):
            plan += more
        if names == ["twice"]:
            plans[0].extend(check.more_arms())
        checks[name] = check
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "ROOT", planted.root)
        ran = run_arms(folder, plans)
    for check in checks.values():
        check.ran = ran
    return {name: list(check.findings()) for name, check in checks.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_a_planted_fault_is_found(name: str, found: dict[str, list[Finding]]):
    comparison, words = FOUND[name]
    [one] = [one for one in found[name] if not one.skipped]
    assert one.name == comparison and not one.agrees, one.line()
    assert one.difference is not None and one.difference.name.startswith(
        ("weights", "buffer", "optimizer")
    )
    assert words in one.kind, one.line()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_without_a_fault_nothing_is_found(name: str, found: dict[str, list[Finding]]):
    """Also of what a user keeps: `self.log(on_epoch=True)`, torchmetrics, a callback's
    `state_dict`."""
    assert [one.name for one in found[name]] == EXACT[name]
    assert all(one.agrees and not one.skipped and not one.kind for one in found[name])


def test_each_fault_has_a_file():
    assert {path.stem for path in FAULTS.glob("*.py")} == {*FOUND, *EXACT} and len(FOUND) == 10


# --- without training ---


def traced(*places: tuple[int, int], **metrics: float) -> Traced:
    return Traced({place: [{"weights w": "1", "buffer b": "1"}] for place in places}, {}, metrics)


def test_the_first_place_and_name_that_differ():
    one = traced((0, 0), (0, 1), (1, 0), acc=1.0)
    assert first_difference(one, traced((0, 0), (0, 1), (1, 0), acc=1.0)) is None
    other = traced((0, 0), (0, 1), (1, 0), acc=0.5)
    assert first_difference(one, other) == Difference("", "acc")
    other.tensors[(1, 0)][0]["buffer b"] = "2"
    assert first_difference(one, other) == Difference("before epoch 2", "buffer b")
    # a start that resumed and came to a place again
    other.tensors[(0, 1)].append({"weights w": "2", "buffer b": "2"})
    assert first_difference(one, other) == Difference("epoch 1, after batch 1", "weights w")
    shorter = Difference("before epoch 2", "only one of the two runs comes there")
    assert first_difference(one, traced((0, 0), (0, 1))) == shorter
    nan = float("nan")
    assert first_difference(traced(loss=nan), traced(loss=nan)) is None


def made_up(folder: Path, **codes: list[list[int]]) -> Check:
    """A check whose runs ended with these codes, and left equal records."""
    check = Check([], folder, {"data": {}})
    for name, of_starts in codes.items():
        (folder / name).mkdir()
        (folder / name / "trace").write_text('{"place": [0, 0], "tensors": {}}\n')
        (folder / name / "output.0").write_text(f"line 1\n\nthe error of {name}\n")
        arm = next(arm for plan in check.plans() for arm in plan if arm.name == name)
        check.ran[name] = Ran(arm, folder / name, of_starts)
    return check


WELL: dict[str, list[list[int]]] = {
    "reference": [[0]],
    "twice": [[0]],
    "killed": [[-9], [-9], [0]],
    "beside": [[0]],
    "ranks": [[0, 0]],
    "ranks_killed": [[-9, -9], [0, 0]],
}


def test_a_run_that_does_not_end_as_planned(tmp_path: Path):
    def line(number: int, **codes: list[list[int]]) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        found = list(made_up(folder, **{**WELL, **codes}).findings())
        assert [one.name for one in found] == list(LINES)
        return " ".join(found[number].line().split())

    assert line(0) == "twice same two undisturbed runs"
    assert line(2) == "workers - not compared: data.num_workers is no number"
    assert line(1, killed=[[0], [0], [0]]).endswith("an epoch has fewer than three batches")
    assert line(1, killed=[[-9], [1], [1]]) == "killed FAILED the error of killed"
    assert line(4, ranks=[[1, 1]]).endswith("does not train on two ranks: the error of ranks")
    assert line(4, ranks_killed=[[-9, -9], [1, 1]]) == "ranks FAILED the error of ranks_killed"
    assert line(4, ranks_killed=[[0, 0], [0, 0]]).endswith("an epoch has fewer than three batches")
    with pytest.raises(UserError, match="does not train:\nline 1\nthe error of reference"):
        line(0, reference=[[1]])


def test_the_command(monkeypatch, capsys, tmp_path: Path):
    found = [Finding("twice"), Finding("killed", Difference("before epoch 2", "weights w"), "why")]
    monkeypatch.setattr(command, "checked", lambda *args: {"": found[:1]})
    command.main(["seed=1"])
    assert "twice    same     two undisturbed runs" in capsys.readouterr().out
    monkeypatch.setattr(command, "checked", lambda *args: {"": found})
    with pytest.raises(SystemExit) as ended:
        command.main(["--only", "twice", "--only", "killed", "--keep", str(tmp_path / "kept")])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1 and (tmp_path / "kept").is_dir()
    assert lines[2:] == [
        "  killed   DIFFERS  before epoch 2: weights w",
        "                    likely: why",
    ]
    with pytest.raises(UserError, match="name a folder that does not exist"):
        command.main(["--keep", str(tmp_path / "kept")])


def test_it_is_small_by_default():
    composer = Composer(ROOT / "conf", "config", "1.3")
    assert composer.compose(small([], composer)).values["trainer"]["max_epochs"] == 2
    longer = composer.compose(small(["trainer.max_epochs=3"], composer)).values
    assert longer["trainer"]["max_epochs"] == 3 and longer["logger"] == []
    composer.groups.pop("debug")
    assert "trainer.max_epochs=2" in small([], composer)
