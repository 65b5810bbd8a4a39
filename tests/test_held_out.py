"""Which images of a folder are held out: the name of an image alone decides."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from data_files import write_image_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from dora_train.data import DataError, load_data
from dora_train.data.image_folder import _held_out_by_name, listed
from dora_train.data.image_list import Listing


def listing(counts: dict[str, int], parts: tuple[str, ...] = ("train",)) -> Listing:
    made = Listing("/root", sorted(counts))
    for part in parts:
        for label, name in enumerate(made.classes):
            for number in range(counts[name]):
                made.names.append(f"{part}/{name}/{number:05}.jpg")
                made.labels.append(label)
                made.parts.append(part)
    return made


def used(
    counts: dict[str, int], valid: float = 0.1, parts: tuple[str, ...] = ("train",)
) -> dict[str, str]:
    """What each image is used for."""
    made = listing(counts, parts)
    return {
        made.names[row]: part
        for part, rows in _held_out_by_name(made, valid).items()
        for row in rows.tolist()
    }


@given(st.integers(60, 200), st.integers(60, 200), st.integers(0, 60), st.sampled_from([0.1, 0.3]))
@settings(max_examples=20)
def test_nobody_changes_sides_when_others_come_or_go(cats: int, dogs: int, more: int, valid: float):
    before = used({"cat": cats, "dog": dogs}, valid)
    after = used({"cat": cats + more, "dog": max(60, dogs - more), "emu": 60}, valid)
    assert all(after[name] == part for name, part in before.items() if name in after)
    assert len(before) == cats + dogs, "each image is used once"


def test_nobody_changes_sides_when_another_part_gets_a_folder():
    held, own = (
        used({"cat": 200, "dog": 200}),
        used({"cat": 200, "dog": 200}, parts=("train", "valid")),
    )
    assert {name for name, part in held.items() if part == "test"} == {
        name for name, part in own.items() if part == "test"
    }
    assert all(part == "valid" for name, part in own.items() if name.startswith("valid/"))


def test_a_smaller_share_is_a_part_of_a_larger_one():
    few, many = used({"cat": 500, "dog": 500}, 0.1), used({"cat": 500, "dog": 500}, 0.3)
    assert all(many[name] == part for name, part in few.items() if part != "train")


def test_about_the_same_share_of_each_class():
    """Within five standard deviations of the share that was asked for."""
    counts = {f"class {number}": 2000 for number in range(10)}
    for valid in (0.1, 0.25):
        found = used(counts, valid)
        for name in counts:
            for part in ("valid", "test"):
                held = sum(
                    file.startswith(f"train/{name}/") and used == part
                    for file, used in found.items()
                )
                assert abs(held - 2000 * valid) < 5 * (2000 * valid * (1 - valid)) ** 0.5


@pytest.mark.parametrize(
    "part, cats, dogs",
    [
        ("valid", [17, 26, 28, 34, 37, 38, 48], [15, 27, 29, 46]),
        ("test", [1, 11, 33, 42], [6, 19, 24, 28, 32, 52, 53]),
    ],
)
def test_which_they_are_is_for_ever(part: str, cats: list[int], dogs: list[int]):
    """Every experiment on a folder stands on it."""
    held = [name for name, use in used({"cat": 60, "dog": 60}).items() if use == part]
    assert held == [
        f"train/{name}/{number:05}.jpg"
        for name, numbers in (("cat", cats), ("dog", dogs))
        for number in numbers
    ]


@pytest.mark.parametrize(
    "counts, valid, said",
    [
        ({"cat": 1, "dog": 300}, 0.49, "no image is left for the train set of cat"),
        ({"cat": 3, "dog": 3}, 0.01, "no image is left for the valid set of cat, dog"),
    ],
)
def test_no_part_is_left_empty_without_a_word(counts: dict[str, int], valid: float, said: str):
    with pytest.raises(DataError, match=said) as refusal:
        for name in (
            "cat",
            "a cat",
            "this cat",
            "one more cat",
            "his cat",
            "her cat",
        ):  # one of them is held out
            used(
                {name: counts["cat"], "dog": counts["dog"]} if counts["cat"] == 1 else counts, valid
            )
    assert "data.valid" in str(refusal.value) and len(str(refusal.value).splitlines()) == 2


def test_a_class_that_is_not_held_out_is_named(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    used({"cat": 2, "dog": 300}, 0.05)
    assert caplog.messages[0].endswith("set has no image of 1 classes: cat")


COUNTS = {
    "train": {"cat": 60, "dog": 90},
    "valid": {"cat": 4, "dog": 6},
    "test": {"cat": 5, "dog": 5},
}


@pytest.mark.parametrize(
    "parts", [["train"], ["train", "valid"], ["train", "test"], ["train", "valid", "test"]]
)
def test_what_has_no_folder_is_held_out_of_train(tmp_path: Path, parts: list[str]):
    write_image_folder(tmp_path / "images", {part: COUNTS[part] for part in parts}, size=8)
    data = load_data(
        "image_folder", 8, root=str(tmp_path / "images"), folder=str(tmp_path), image_size=8
    )
    assert all(
        getattr(data, part).num_samples == sum(COUNTS[part].values())
        for part in parts
        if part != "train"
    )
    rows = torch.cat([data.train.rows, data.valid.rows, data.test.rows])
    assert sorted(rows.tolist()) == list(range(len(data.contents())))
    uses = {
        part: {name for name, (used, *_) in data.contents().items() if used == part}
        for part in COUNTS
    }
    for part in ("valid", "test"):
        assert len(uses[part]) == getattr(data, part).num_samples
        assert {name.partition("/")[0] for name in uses[part]} == {
            part if part in parts else "train"
        }
    cheap = listed(str(tmp_path / "images"))
    assert {name: file[:2] for name, file in cheap.items()} == {
        name: file[:2] for name, file in data.contents().items()
    }
