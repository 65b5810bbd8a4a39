"""Data that have changed since an experiment began are never mixed in silence.

Neither by a resume, nor by `continue_from`, nor by predict. An older experiment is made here by
removing what it lacks: `data.rules` in its birth, and `data.json.gz`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import Run
from PIL import Image
from project import Project, same_run, sig_of, stored

from dora_train.data.image_folder import listed
from dora_train.engine.errors import UserError
from dora_train.engine.experiment.folder import Experiment
from dora_train.predict import load, main, measure

pytestmark = pytest.mark.slow
ARGS = (
    "data=image_folder data.image_size=8 data.crop=0 data.batch_size=16 data.num_workers=0 "
    "threads=1 trainer.max_epochs=3 trainer.accelerator=cpu model_args.width=8 logger=[]"
).split()


def images(root: Path, first: int = 0, last: int = 60) -> None:
    for label, name in enumerate(("cat", "dog")):
        (root / "train" / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, last):
            draw = np.random.default_rng([label, number])
            pixels = draw.integers(0, 200, (8, 8, 3), dtype=np.uint8) + np.uint8(50 * label)
            Image.fromarray(pixels).save(
                root / "train" / name / f"{number:03}.png", compress_level=0
            )  # of one size


class Birds:
    """A finished run on a folder of images, and one that was killed in its second epoch."""

    def __init__(self, folder: Path):
        self.root, self.pristine = folder / "images", folder / "outputs"
        images(self.root)
        shutil.copytree(self.root, folder / "backup")
        made = self.project(self.pristine)
        assert self.run(made) == 0 and self.run(made, "tag=killed", fault=("train", 10)) == -9
        finished, killed = sorted(made.experiments(), key=lambda xp: xp.result() is None)
        self.finished, self.killed = finished.sig, killed.sig
        assert len(killed.history()) == 1

    def project(self, out: Path) -> Project:
        return Project(out, env={"DORA_TRAIN_DATA": str(self.root.parent / "cache")})

    def copy(self, out: Path) -> Project:
        """Its experiments in a folder of a test's own, and the images as they were."""
        shutil.rmtree(self.root)
        shutil.copytree(self.root.parent / "backup", self.root)
        shutil.copytree(self.pristine, out)
        return self.project(out)

    def run(self, project: Project, *args: str, **how: Any) -> int:
        self.last = Run(project, "run", *ARGS, f"data.root={self.root}", *args, **how)
        return self.last.wait()

    def cat(self, name: str) -> Path:
        return self.root / "train" / "cat" / name


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Birds:
    return Birds(tmp_path_factory.mktemp("birds"))


@pytest.fixture
def project(birds: Birds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = birds.copy(tmp_path / "outputs")
    for name in ("DORA_DIR", "DORA_TRAIN_DATA"):  # for `load` and `measure`
        monkeypatch.setenv(name, project.env[name])
    return project


def experiment(project: Project, sig: str) -> Experiment:
    return Experiment(project.out / "xps" / sig)


def make_old(experiment: Experiment) -> None:
    """As a run left it before data were stored, and before rules had numbers."""
    birth = stored(experiment.folder / "birth.json")
    del birth["config"]["data"]["rules"]
    (experiment.folder / "birth.json").write_text(json.dumps(birth))
    (experiment.folder / "data.json.gz").unlink()


# --- a resume ---


def test_what_does_not_count(birds: Birds, project: Project):
    """The times of the files, and where they lie."""
    elsewhere = birds.root.parent / "another disk"
    shutil.copytree(birds.root, elsewhere, copy_function=shutil.copyfile)
    shutil.rmtree(birds.root)
    birds.root.symlink_to(elsewhere)
    try:
        assert birds.run(project, "tag=killed") == 0, birds.last.text
    finally:
        birds.root.unlink()
        elsewhere.rename(birds.root)
    assert "resumed at epoch 2" in birds.last.text
    assert (
        experiment(project, birds.killed).history() == experiment(project, birds.finished).history()
    )


def test_a_resume_on_other_files_is_refused(birds: Birds, project: Project):
    killed = experiment(project, birds.killed)
    files = {
        path: path.read_bytes() for path in (killed.last_checkpoint, killed.folder / "data.json.gz")
    }
    images(birds.root, 60, 85)
    birds.cat("000.png").unlink()
    for args in (("tag=killed",), ("-f", birds.killed)):
        last = Run(
            project, "run", *(args if "-f" in args else [*ARGS, f"data.root={birds.root}", *args])
        )
        assert last.wait() == 1 and "Traceback" not in last.text and "epoch 2/3" not in last.text
        said = last.text.strip().splitlines()[-3:]
        assert said[0] == (
            f"XP {birds.killed} began with other data. Since then: 50 added (train/cat/060.png, "
            "train/cat/061.png, train/cat/062.png ...), 1 removed (train/cat/000.png)."
        )
        assert "restore the files" in said[1] and "--clear" in said[2] and "tag=WORD" in said[2]
        assert "decoding" not in last.text, "said before anything is decoded"
    assert {path: path.read_bytes() for path in files} == files
    birds.copy(project.out / "unused")
    assert birds.run(project, "tag=killed") == 0, "restored"
    assert (
        experiment(project, birds.killed).history() == experiment(project, birds.finished).history()
    )


def test_another_content_of_the_same_size_is_seen(birds: Birds, project: Project):
    size = birds.cat("000.png").stat().st_size
    Image.new("RGB", (8, 8)).save(birds.cat("000.png"), compress_level=0)
    assert birds.cat("000.png").stat().st_size == size
    assert birds.run(project, "tag=killed") == 1
    assert "Since then: 1 changed (train/cat/000.png)." in birds.last.text


def test_before_the_first_checkpoint_nothing_was_learned(birds: Birds, project: Project):
    assert birds.run(project, "tag=early", fault=("train", 3)) == -9
    images(birds.root, 60, 61)
    assert birds.run(project, "tag=early") == 0, birds.last.text
    assert len(experiment(project, sig_of(birds.last.text)).contents() or ()) == 122


def test_an_older_experiment_keeps_its_images_and_its_split(birds: Birds, project: Project):
    """The same command resumes it by its own rules. `data.rules=1` gives the same bits."""
    old, named = ("tag=old",), ("data.rules=1",)
    assert birds.run(project, *named) == 0
    reference = experiment(project, sig_of(birds.last.text))
    assert birds.run(project, *named, *old, fault=("train", 10)) == -9
    by_name = experiment(project, sig_of(birds.last.text))
    assert birds.run(project, *old, fault=("train", 1)) == -9
    killed = experiment(project, sig_of(birds.last.text))
    # what a run by the older rules had left
    for name in ("last.ckpt", "best.ckpt", "inputs.json", "history.json"):
        shutil.copy(by_name.folder / name, killed.folder / name)
    make_old(killed)
    birds.cat("new.webp").write_bytes(birds.cat("001.png").read_bytes())
    for sig_or_same in (["-f", killed.sig], [*ARGS, f"data.root={birds.root}", *old]):
        kept = shutil.copytree(killed.folder, project.out / "kept" / killed.sig)
        last = Run(project, "run", *sig_or_same)
        assert last.wait() == 0 and "1 .webp" in last.text and "resumed at epoch 2" in last.text, (
            last.text
        )
        same_run(killed, reference)
        shutil.rmtree(killed.folder)
        shutil.move(kept, killed.folder)
    birds.cat("new.png").write_bytes(birds.cat("000.png").read_bytes())
    assert birds.run(project, *old) == 1
    assert (
        f"XP {killed.sig} began with other data. Since then: another mean and std of the tr"
        in birds.last.text
    )


# --- first weights ---


def test_weights_go_on_with_more_images(birds: Birds, project: Project):
    """Those that it was tested on are not learned now, nor the other way round."""
    images(birds.root, 60, 85)
    assert birds.run(project, f"continue_from={birds.finished}") == 0, birds.last.text
    assert (
        f"since XP {birds.finished} was trained, the data have changed: 50 added ("
        in birds.last.text
    )
    before = experiment(project, birds.finished).contents() or {}
    now = experiment(project, sig_of(birds.last.text)).contents() or {}
    assert len(before) == 120 and {name: now[name] for name in before} == before


def test_weights_that_have_learned_what_is_held_out_are_refused(birds: Birds, project: Project):
    for name in ("cat", "dog"):
        (birds.root / "test" / name).mkdir(parents=True)
        for path in sorted((birds.root / "train" / name).iterdir())[:10]:
            path.rename(birds.root / "test" / name / f"another name {path.name}")
    assert birds.run(project, f"continue_from={birds.finished}") == 1
    before = experiment(project, birds.finished).contents() or {}
    learned = sum(
        before[f"train/{name}/{number:03}.png"][0] == "train"
        for name in ("cat", "dog")
        for number in range(10)
    )
    said = birds.last.text.strip().splitlines()[-3:]
    assert said[0].startswith(f"continue_from={birds.finished}: {learned} of the ") and learned > 10
    assert (
        f"are among those that XP {birds.finished} was trained on (test/cat/another name 0"
        in said[0]
    )
    file = said[2].partition("continue_from=")[2]
    assert birds.run(project, f"continue_from={file}") == 0, birds.last.text


def test_weights_of_an_older_experiment_hold_out_by_its_rules(birds: Birds, project: Project):
    assert birds.run(project, "data.rules=1") == 0
    old = experiment(project, sig_of(birds.last.text))
    make_old(old)
    given = f"continue_from={old.sig}"
    assert birds.run(project, given) == 1
    said = birds.last.text.strip().splitlines()[-3:]
    assert "may have learned what this run holds out: it had another mean and std" in said[0]
    assert said[1].endswith(f"XP {old.sig} had data.rules=1")
    assert birds.run(project, given, "data.rules=1") == 0, birds.last.text
    images(birds.root, 60, 61)
    assert birds.run(project, given, "data.rules=1", "seed=1") == 1, "files have come since"


# --- predict ---


def measured(sig: str, capsys: pytest.CaptureFixture) -> tuple[dict[str, float], str]:
    threads = torch.get_num_threads()
    try:
        main([sig])
    finally:
        torch.set_num_threads(threads)
    out, said = capsys.readouterr()
    return json.loads(out), said


def test_a_test_set_that_stayed_gives_the_same_numbers(
    birds: Birds, project: Project, capsys: pytest.CaptureFixture
):
    """Also if new images move the mean of the training set: the old mean was stored."""
    result = experiment(project, birds.finished).result() or {}
    assert measured(birds.finished, capsys) == (
        result["test"],
        f"XP {birds.finished}, best.ckpt, on the test set\n",
    )
    before = experiment(project, birds.finished).contents() or {}
    images(birds.root, 60, 85)
    for name, (part, *_) in listed(str(birds.root)).items():
        if name not in before and part == "test":
            (birds.root / name).unlink()
    test, said = measured(birds.finished, capsys)
    assert test == result["test"]
    assert said.startswith(
        f"warning: since XP {birds.finished} was trained, its data have changed: 4"
    )


def test_a_test_set_that_was_learned_is_none(birds: Birds, project: Project):
    for name in ("cat", "dog"):
        shutil.copytree(birds.root / "train" / name, birds.root / "test" / name)
    with pytest.raises(
        UserError, match="of the 120 test images are among those that it was trained on"
    ) as refusal:
        measure(load(birds.finished))
    assert "120 added (test/cat/000.png" in str(refusal.value)


def test_the_test_set_of_an_older_experiment(
    birds: Birds, project: Project, capsys: pytest.CaptureFixture
):
    assert birds.run(project, "data.rules=1") == 0
    old = experiment(project, sig_of(birds.last.text))
    make_old(old)
    assert measured(old.sig, capsys)[0] == (old.result() or {})["test"], "its own split"
    images(birds.root, 60, 61)
    with pytest.raises(UserError, match=r"drawn anew when files come or go \(data\.rules=1\)"):
        measure(load(old.sig))
