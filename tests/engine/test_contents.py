"""What a data set consists of, compared with what an experiment began with and has learned."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dora_train.data import load_data
from dora_train.data.images import Images
from dora_train.engine.experiment.contents import Changes, difference, learned
from dora_train.engine.experiment.folder import Birth, Experiment

BEFORE = {
    "train/cat/1.png": ["train", 10, "aa"],
    "train/cat/2.png": ["valid", 20, "bb"],
    "train/dog/1.png": ["test", 30, "cc"],
    "train/dog/2.png": ["train", 40, "dd"],
}


def test_the_same():
    assert not Changes.between(BEFORE, dict(reversed(BEFORE.items())))
    assert str(Changes.between(BEFORE, BEFORE)) == ""


@pytest.mark.parametrize(
    "name, now, said",
    [
        ("train/cat/3.png", ["train", 10, "ee"], "1 added (train/cat/3.png)"),
        ("train/cat/1.png", None, "1 removed (train/cat/1.png)"),
        ("train/cat/1.png", ["train", 10, "ee"], "1 changed (train/cat/1.png)"),
        ("train/cat/1.png", ["train", 11, "aa"], "1 changed (train/cat/1.png)"),
        ("train/cat/1.png", ["test", 10, "aa"], "1 in another part (train/cat/1.png)"),
        ("train/cat/1.png", ["train", 10, None], ""),
        ("train/cat/1.png", ["train", 11, None], "1 changed (train/cat/1.png)"),
        ("train/a\nb.png", ["train", 1, "aa"], r"1 added (train/a\nb.png)"),
    ],
)
def test_what_has_changed(name: str, now: list | None, said: str):
    after = {**BEFORE, name: now}
    if now is None:
        del after[name]
    assert str(Changes.between(BEFORE, after)) == said


def test_many_changes_are_counted_and_some_are_named():
    added = {f"train/cat/new {number:04}.png": ["train", 1, "aa"] for number in range(1234)}
    after = {**{name: BEFORE[name] for name in list(BEFORE)[1:]}, **added}
    assert str(Changes.between(BEFORE, after)) == (
        "1,234 added (train/cat/new 0000.png, train/cat/new 0001.png, train/cat/new 0002.png ...), "
        "1 removed (train/cat/1.png)"
    )


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["train", "valid", "test"])),
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["train", "valid", "test"])),
)
def test_learned_is_held_out_here_and_trained_on_there(before: dict[str, str], now: dict[str, str]):
    def files(parts: dict[str, str], checksum: bool = True) -> dict:
        return {
            f"{part}/x/{name}": [part, 5, name if checksum else None]
            for name, part in parts.items()
        }

    wanted = sorted(
        f"{part}/x/{name}"
        for name, part in now.items()
        if part != "train" and before.get(name) == "train"
    )
    assert sorted(learned(files(before), files(now))) == wanted
    assert sorted(learned(files(before, checksum=False), files(now))) == wanted, "by names"


def test_a_renamed_image_is_known_by_its_content():
    assert learned(BEFORE, {"test/bird/new name.png": ["test", 10, "aa"]}) == [
        "test/bird/new name.png"
    ]
    assert learned(BEFORE, {"test/cat/1.png": ["test", 10, "zz"]}) == [], (
        "another image under its name"
    )


def test_an_image_that_is_there_twice_was_held_out_before():
    before = {**BEFORE, "train/cat/copy.png": ["train", 30, "cc"]}
    assert learned(before, before) == []


# --- what an experiment stores ---


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    made = Experiment(tmp_path / "xps" / "5f3a91c2")
    made.write_birth(Birth("5f3a91c2", [], [], {}, 1, 1, {}, {}, 0.0))
    return made


def test_contents_are_stored_and_read(experiment: Experiment):
    contents = {**BEFORE, "train/é\udcff.png": ["train", 1, None]}
    assert experiment.contents() is None
    experiment.write_contents(contents)
    assert experiment.contents() == contents
    before = (experiment.folder / "data.json.gz").read_bytes()
    experiment.write_contents(contents)
    assert (experiment.folder / "data.json.gz").read_bytes() == before, "no clock in it"
    for damage in (b"", before[:20], b"x" + before):
        (experiment.folder / "data.json.gz").write_bytes(damage)
        assert experiment.contents() is None


def test_an_older_experiment_is_known_by_its_inputs(experiment: Experiment):
    inputs = {
        "classes": ["a", "b"],
        "shape": [3, 8, 8],
        "mean": [1.0],
        "std": [2.0],
        "on_white": True,
    }
    assert difference(experiment, BEFORE, inputs) == "", "nothing is known of it"
    experiment.write_inputs({key: inputs[key] for key in ("classes", "shape", "mean", "std")})
    assert difference(experiment, BEFORE, inputs) == ""
    changed = inputs | {"mean": [1.0000001], "std": [3.0]}
    assert difference(experiment, BEFORE, changed) == "another mean and std of the training set"
    experiment.write_contents(BEFORE)
    assert difference(experiment, BEFORE, changed) == "", "its files say more"


def test_classes_in_another_order(experiment: Experiment):
    """A copy on another disk may write an accent otherwise, which sorts otherwise."""
    experiment.write_contents(BEFORE)
    experiment.write_inputs({"classes": ["Zebra", "Äffchen"], "shape": [3, 8, 8]})
    same = {"classes": ["Zebra", "Äffchen"]}
    assert difference(experiment, BEFORE, same) == ""
    written_otherwise = {"classes": ["Zebra", "A\u0308ffchen"]}
    assert difference(experiment, BEFORE, written_otherwise) == ""
    other = {"classes": ["A\u0308ffchen", "Zebra"]}
    assert difference(experiment, BEFORE, other) == "the classes have another order"


# --- what data sets say of themselves ---


def test_pixels_in_memory():
    data = load_data("digits", 64)
    found = data.contents()
    assert {part: file[:2] for part, file in found.items()} == {
        "train": ["train", 1199],
        "valid": ["valid", 299],
        "test": ["test", 299],
    }
    assert found == load_data("digits", 100, augment=False, seed=9).contents(), (
        "how it is used does not count"
    )
    assert data.contents() is found


@pytest.mark.parametrize("change", ["a pixel", "a label", "another order"])
def test_another_set_in_memory_says_something_else(change: str):
    pixels = torch.randint(
        0, 256, (60, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    labels = torch.arange(60) % 3
    before = Images(pixels.clone(), labels.clone(), list("abc")).known_contents()
    if change == "a pixel":
        pixels[7, 0, 0, 0] ^= 1
    elif change == "a label":
        labels[[0, 1]] = labels[[1, 0]]
    else:
        pixels = pixels.flip(0)
    assert Images(pixels, labels, list("abc")).known_contents() != before


def test_inputs_and_contents_are_plain_python():
    data = load_data("digits", 64)
    assert type(asdict(data.inputs)["on_white"]) is bool
    assert {type(value) for file in data.contents().values() for value in file} == {str, int}
