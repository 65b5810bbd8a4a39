"""Which images of a folder are taken: those that torchvision takes. All other files are counted."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from data_files import write_image_folder
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from dora_train.data import DataError, load_data
from dora_train.data.image_list import RULES, SUFFIXES, list_images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_image_folder(tmp_path / "images", {"train": {"cat": 4, "dog": 4}}, size=8)
    return tmp_path / "images"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_suffixes_are_those_of_torchvision():
    assert set(SUFFIXES) == set(IMG_EXTENSIONS)


def test_all_that_torchvision_takes(root: Path, tmp_path: Path):
    cat = root / "train" / "cat"
    for suffix in IMG_EXTENSIONS:
        touch(cat / f"x{suffix}")
        touch(cat / f"deeper/and deeper/y{suffix.upper()}")
    touch(tmp_path / "elsewhere/z.webp")
    (cat / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "dog" / "one.png").symlink_to(tmp_path / "elsewhere" / "z.webp")
    (root / "train" / "emu").symlink_to(tmp_path / "elsewhere")
    touch(cat / "folder.png/inner.png")
    theirs, ours = ImageFolder(str(root / "train")), list_images(str(root))
    assert sorted(ours.paths) == sorted(path for path, _ in theirs.samples)
    assert (
        dict(zip(ours.paths, ours.labels)) == dict(theirs.samples)
        and ours.classes == theirs.classes
    )
    assert ours.ignored_line() == ""
    names = [name for name in ours.names if name.startswith("train/cat/")]
    assert "train/cat/deeper/and deeper/y.WEBP" in names and names == sorted(names)


def test_a_link_to_a_folder_above_has_no_end(root: Path):
    (root / "train" / "cat" / "again").symlink_to(root / "train")
    listing = list_images(str(root))
    assert len(listing.paths) == 4 + 4 + 4, "dog, cat, and dog once more behind the link"
    assert listing.ignored_line() == f"ignored in {root}: 1 links to a folder above"


def test_what_is_ignored_is_counted_in_one_line(root: Path, caplog: pytest.LogCaptureFixture):
    cat = root / "train" / "cat"
    for name in ("a.txt", "more/b.TXT", "c.gif", ".hidden.jpg", "Makefile"):
        touch(cat / name)
    touch(root / "train" / ".cache/x.jpg")
    touch(root / "train" / "loose.jpg")
    touch(root / "validation" / "cat" / "x.jpg")
    touch(root / "README.md")
    os.mkfifo(cat / "pipe.png")
    caplog.set_level(logging.INFO)
    with pytest.raises(
        DataError, match="no image is left for the valid set"
    ):  # said before anything is decoded
        load_data(
            "image_folder",
            2,
            root=str(root),
            folder=str(root.parent / "cache"),
            image_size=8,
            valid=0.01,
        )
    [line] = [line for line in caplog.messages if line.startswith("ignored")]
    found = set(line.removeprefix(f"ignored in {root}: ").split(", "))
    assert found == {
        "2 .txt",
        "2 hidden",
        "1 .gif",
        "1 without a suffix",
        "1 no regular file",
        "1 folder validation/",
        "1 .jpg outside of a class",
        "1 .md outside of a class",
    }
    assert line.startswith(f"ignored in {root}: 2 "), "the most frequent first"


def test_older_rules_find_what_they_found(root: Path):
    cat = root / "train" / "cat"
    for name in ("x.webp", "y.bmp", "deeper/z.png", "w.PNG", "v.jpeg"):
        touch(cat / name)
    listing = list_images(str(root), RULES[1])
    assert [Path(path).name for path in listing.paths[:6]] == [
        "0000.png",
        "0001.jpg",
        "0002.png",
        "0003.jpg",
        "v.jpeg",
        "w.PNG",
    ]
    assert listing.ignored_line() == f"ignored in {root}: 1 .webp, 1 .bmp, 1 folders in a class"


def test_a_class_of_folders_and_other_files_alone_is_empty(root: Path):
    shutil.rmtree(root / "train" / "dog")
    touch(root / "train" / "dog" / "deeper" / "notes.txt")
    with pytest.raises(DataError, match=r"dog holds no image \(\.jpg, \.jpeg, \.png, \.ppm, "):
        list_images(str(root))


def test_the_same_names_in_another_form_of_unicode(tmp_path: Path):
    """A disk of macOS writes an accent as a letter of its own."""
    for root, accented in (("one", "é"), ("two", "e\u0301")):
        for name in ("cat", f"Caf{accented}"):
            (tmp_path / root / "train" / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / root / "train" / name / f"{accented}.png")
    one, two = (list_images(str(tmp_path / root)).names for root in ("one", "two"))
    assert sorted(one) == sorted(two)
