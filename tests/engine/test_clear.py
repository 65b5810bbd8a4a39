"""A start from scratch: what is refused costs nothing, and results are there until new ones are."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from forked import Run
from PIL import Image
from project import QUICK, Project

from dora_train.engine.errors import UserError
from dora_train.engine.experiment import claims, clearing
from dora_train.engine.experiment.find import find
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import Birth, State

REST = ("last.ckpt", "best.ckpt", "history.json", "result.json", "birth.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs folder of a project with one finished experiment."""
    project = Project(tmp_path_factory.mktemp("finished") / "outputs")
    run = Run(project, "run", *QUICK)
    assert run.wait() == 0, run.text
    return project.out


def with_results(project: Project, finished: Path) -> Project:
    """The same project, with that experiment in its outputs folder."""
    shutil.copytree(finished, project.out)
    project.env["DORA_CLUSTER"] = "local"
    return project


@pytest.fixture
def done(project: Project, finished: Path) -> Project:
    return with_results(project, finished)


def said(project: Project, *args: str, code: int = 0) -> str:
    """What a command says, in a forked process."""
    run = Run(project, *args)
    assert run.wait() == code, run.text
    return run.text


def content(experiment: Experiment) -> dict[str, bytes]:
    return {name: (experiment.folder / name).read_bytes() for name in REST}


# --- the folder ---


@pytest.fixture
def xp(tmp_path: Path) -> Experiment:
    experiment = Experiment(tmp_path / "xps" / "0123abcd")
    write(experiment, "old")
    return experiment


def write(experiment: Experiment, word: str, results: bool = True) -> None:
    experiment.folder.mkdir(parents=True)
    for name in ("birth.json", *(["last.ckpt"] if results else [])):
        (experiment.folder / name).write_text(word)


def test_aside_and_back(xp: Experiment):
    xp.put_aside()
    assert not xp.folder.exists() and (xp.cleared / "last.ckpt").read_text() == "old"
    xp.put_back()
    assert (xp.folder / "last.ckpt").read_text() == "old" and not xp.cleared.exists()
    xp.put_back()
    assert (xp.folder / "last.ckpt").read_text() == "old", "there is nothing to put back"


def test_what_comes_back_takes_the_place_of_the_refused_run(xp: Experiment):
    xp.put_aside()
    write(xp, "new", results=False)
    xp.put_back()
    assert (xp.folder / "birth.json").read_text() == "old"


def test_cleared_twice_before_a_checkpoint_the_first_results_stay(xp: Experiment):
    for _ in range(2):
        xp.put_aside()
        write(xp, "new", results=False)
    assert (xp.cleared / "last.ckpt").read_text() == "old"


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt", "result.json"])
def test_results_since_then_are_the_ones_that_are_put_aside(xp: Experiment, name: str):
    """As if the run had been killed between its checkpoint and the removal."""
    xp.put_aside()
    write(xp, "new", results=False)
    (xp.folder / name).write_text("newer")
    xp.put_aside()
    assert (xp.cleared / name).read_text() == "newer" and not xp.folder.exists()


def test_they_are_forgotten_for_good(xp: Experiment):
    xp.put_aside()
    xp.forget_cleared()
    xp.forget_cleared()
    assert list(xp.cleared.parent.iterdir()) == []


def test_what_a_kill_has_left_of_a_removal_goes_with_the_next(xp: Experiment):
    left = xp.cleared.with_name(".0123abcd.77.1.removed")
    left.mkdir(parents=True)
    xp.put_aside()
    xp.forget_cleared()
    assert not left.exists()


def test_through_a_link_it_stays_on_its_disk(tmp_path: Path):
    """`outputs/xps` may be a link to another disk, where a rename would fail."""
    (tmp_path / "scratch" / "xps").mkdir(parents=True)
    (tmp_path / "xps").symlink_to(tmp_path / "scratch" / "xps")
    experiment = Experiment(tmp_path / "xps" / "0123abcd")
    assert experiment.cleared == tmp_path / "scratch" / "cleared" / "0123abcd"


def test_killed_before_the_new_folder_is_there_its_signature_is_still_known(xp: Experiment):
    xp.put_aside()
    with pytest.raises(UserError, match="XP 0123abcd was cleared(.|\n)*mv ") as error:
        find(xp.folder.parents[1], "0123")
    subprocess.run(str(error.value).partition("results back: ")[2], shell=True, check=True)
    assert (xp.folder / "last.ckpt").read_text() == "old"


def test_if_the_new_folder_cannot_be_made_the_old_one_comes_back(xp: Experiment):
    with pytest.raises(OSError, match="full"), clearing.put_aside(xp):
        raise OSError("full")
    assert (xp.folder / "last.ckpt").read_text() == "old" and not xp.cleared.exists()


# --- whose results they are ---


def born(tmp_path: Path, user: str) -> Experiment:
    experiment = Experiment(tmp_path / "xps" / "0123abcd")
    experiment.write_birth(Birth("0123abcd", [], [], {}, 1, 2, {}, {}, 0.0, user=user))
    return experiment


def test_the_owner_is_who_made_it(tmp_path: Path):
    assert clearing.other_owner(Experiment(tmp_path / "xps" / "0123abcd")) == ""
    assert clearing.other_owner(born(tmp_path / "mine", claims.user_name())) == ""
    theirs = born(tmp_path / "theirs", "alice")
    assert clearing.other_owner(theirs) == "alice"
    with pytest.raises(UserError, match="only alice can clear it(.|\n)*tag=WORD"):
        clearing.refuse_others(theirs)


def test_where_no_name_is_stored_it_is_the_owner_of_the_folder(tmp_path: Path, monkeypatch):
    experiment = born(tmp_path, "")
    assert clearing.other_owner(experiment) == ""
    monkeypatch.setattr(clearing.os, "getuid", lambda: 4000000)
    assert clearing.other_owner(experiment) == experiment.folder.owner()
    monkeypatch.setattr(Path, "owner", lambda path: (_ for _ in ()).throw(KeyError("uid")))
    assert clearing.other_owner(experiment) == "another user"


def test_an_environment_that_names_somebody_else_gives_no_right(tmp_path: Path, monkeypatch):
    """`su` and `sudo` may keep LOGNAME; on a disk whose files belong to nobody, the system's name
    decides."""
    monkeypatch.setenv("LOGNAME", "alice")
    experiment = born(tmp_path, "alice")
    assert clearing.other_owner(experiment) == "", "the name and the owner are ours"
    monkeypatch.setattr(clearing.os, "getuid", lambda: 4000000)
    assert clearing.other_owner(experiment) == "alice"
    monkeypatch.setattr(clearing, "_name_of", lambda uid: "alice")
    assert clearing.other_owner(experiment) == ""


RUN, LAUNCH = ["run", "--clear", *QUICK], ["launch", "--clear", "--no_tail", *QUICK]
RANKS = ["run", "-d", "--ddp_workers", "2", "--clear", *QUICK]
GRID = ["grid", "question", "--clear", "--no_monitoring"]


def verb(args: list[str]) -> str:
    return " ".join(word for word in args if word not in QUICK)


@pytest.fixture
def grid(tmp_path: Path, finished: Path) -> Project:
    """A copy of the project with a grid of that finished experiment."""
    project = with_results(Project.copy(tmp_path), finished)
    lines = [
        "from dora import Explorer",
        "@Explorer",
        "def explorer(launcher):",
        f"    launcher({QUICK!r})",
    ]
    (project.root / "grids" / "question.py").write_text("\n".join(lines))
    project.env["DORA_YES"] = "1"
    return project


@pytest.mark.parametrize("args", [RUN, RANKS, LAUNCH, GRID], ids=verb)
def test_the_results_of_another_user_are_never_removed(grid: Project, args: list[str]):
    grid.env |= {"LOGNAME": "bob", "USER": "bob"}
    before = content(grid.xp)
    output = said(grid, *args, code=1)
    assert f"made by {claims.user_name()}" in output and "tag=WORD" in output, output
    assert content(grid.xp) == before and not grid.xp.cleared.exists() and grid.xp.job() is None


# --- what is refused ---


@pytest.mark.parametrize(
    "args, words",
    [
        ([*RUN, "logger=[foo]"], 'unknown logger "foo"'),
        ([*RANKS, "logger=[foo]"], 'unknown logger "foo"'),
        ([*LAUNCH, "logger=[foo]"], 'unknown logger "foo"'),
        ([*RUN, "threads=0"], "threads=0"),
        ([*LAUNCH, "job.nodes=0"], "at least 0 GPUs and 1 node"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_before_anything_is_put_aside(done: Project, args, words):
    before = content(done.xp)
    output = said(done, *args, code=1)
    assert words in output and "Traceback" not in output
    assert content(done.xp) == before and not done.xp.cleared.exists()


def test_a_missing_disk_is_refused_before_anything_is_put_aside(project: Project, tmp_path: Path):
    for number in range(40):
        image = tmp_path / "disk" / "train" / "even odd".split()[number % 2] / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, number, 0)).save(image)
    project.env["DORA_TRAIN_DATA"] = str(tmp_path / "cache")
    args = [*QUICK, "data=image_folder", f"data.root={tmp_path / 'disk'}"]
    said(project, "run", *args)
    before = content(project.xp)
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    assert str(tmp_path / "disk") in said(project, "run", "--clear", *args, code=1)
    assert content(project.xp) == before and not project.xp.cleared.exists()


@pytest.mark.parametrize(
    "line, words",
    [
        ("launcher({args} + ['logger=[foo]'])", 'unknown logger "foo"'),
        ("launcher({args} + ['code=nonsense'])", "code=nonsense"),
        ("launcher.slurm_(gpus=3); launcher({args} + ['job.nodes=2'])", "cannot be shared evenly"),
    ],
)
def test_a_grid_is_refused_before_anything_is_put_aside(grid: Project, line: str, words: str):
    before = content(grid.xp)
    file = grid.root / "grids" / "question.py"
    file.write_text(
        "\n".join(
            [*file.read_text().splitlines()[:-1], f"    {line.replace('{args}', str(QUICK))}"]
        )
    )
    output = said(grid, *GRID, code=1)
    assert words in output and "grids/question.py:4: " in output and "Traceback" not in output, (
        output
    )
    assert content(grid.xp) == before and not grid.xp.cleared.exists()


@pytest.mark.parametrize(
    "args",
    [
        ["launch", "--clear", "-g", "3", "--no_tail", *QUICK],
        ["grid", "question", "--clear", "-g", "3", "--no_monitoring"],
    ],
    ids=verb,
)
def test_what_the_scheduler_refuses_is_put_back(grid: Project, args: list[str]):
    grid.env["CUDA_VISIBLE_DEVICES"] = "0"
    before = content(grid.xp)
    output = said(grid, *args, code=1)
    assert "a job of 3 GPUs; this machine has 1" in output and "Traceback" not in output
    assert "Its results are as they were." in output
    assert content(grid.xp) == before and not grid.xp.cleared.exists()
    assert grid.xp.state().state is State.COMPLETED and grid.xp.job() is None


# --- from the old results to the new ones ---


def test_the_old_results_go_with_the_first_checkpoint(done: Project):
    before = done.xp.state().started
    assert "  new  " in said(done, "run", "--clear", *QUICK)
    assert done.xp.state().state is State.COMPLETED and done.xp.state().started != before
    assert not done.xp.cleared.exists() and len(done.experiments()) == 1


@pytest.mark.slow
def test_a_run_that_fails_before_it_says_how_to_have_them_back(tmp_path: Path, finished: Path):
    project = with_results(Project.copy(tmp_path), finished)
    before = content(project.xp)
    project.edit(
        "dora_train/train.py", "def main(cfg):\n", "def main(cfg):\n    assert False, 'it broke'\n"
    )
    output = said(project, "run", "--clear", *QUICK, code=1)
    assert project.xp.cleared.exists() and not project.xp.last_checkpoint.exists()
    [line] = [line for line in output.splitlines() if "To have them back: " in line]
    assert line in project.dora("info", *QUICK)
    assert line in project.xp.log.read_text()
    subprocess.run(line.partition("back: ")[2], shell=True, check=True, cwd=project.root)
    assert content(project.xp) == before and not project.xp.cleared.exists()


@pytest.mark.slow
@pytest.mark.parametrize("writes", [range(1, 16), range(16, 64, 4)], ids=["each", "later"])
def test_killed_at_any_moment_either_results_are_whole(
    done: Project, finished: Path, writes: range
):
    before, sig = content(done.xp), done.xp.sig
    for number in writes:
        shutil.rmtree(done.out)
        shutil.copytree(finished, done.out)
        run = Run(done, "run", "--clear", *QUICK, fault=("write", number))
        assert run.wait() == -signal.SIGKILL, run.text
        xp = Experiment(done.out / "xps" / sig)
        aside = Experiment(xp.cleared)
        kept = [one for one in (xp, aside) if one.has_results()]
        assert kept, f"killed at write {number}: both are lost"
        old = [one for one in kept if (one.folder / "result.json").exists()]
        assert len(old) <= 1 and all(content(one) == before for one in old), f"at write {number}"
        assert [one.sig for one in done.experiments()] in ([], [sig]), "never two"
        if old != [xp]:
            output = said(done, "run", *QUICK)
            assert "finished" in output and not xp.cleared.exists(), f"at write {number}"


@pytest.mark.slow
@pytest.mark.parametrize("args", [LAUNCH, GRID], ids=verb)
def test_a_command_that_is_killed_between_old_and_new_loses_nothing(
    grid: Project, args: list[str], machine: Any
):
    grid.env |= {**machine.env, "DORA_FAULT": "created"}
    before = content(grid.xp)
    assert "Traceback" not in said(grid, *args, code=137)
    assert content(Experiment(grid.xp.cleared)) == before and grid.xp.state().state is State.NEW
    del grid.env["DORA_FAULT"]
    again = [word for word in args if word not in ("--clear", "--no_tail", "--no_monitoring")]
    assert "finished" in said(grid, *again) or grid.xp.state().state is State.COMPLETED
    assert not grid.xp.cleared.exists() and grid.xp.state().state is State.COMPLETED
