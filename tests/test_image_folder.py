"""A user's own images: found, decoded once, packed, shared, and the same batches however they are
read."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from data_files import write_image_folder
from PIL import Image
from project import ROOT
from test_data import equal

from dora_train.data import Data, DataError, check_data, load_data, packed
from dora_train.data.image_files import InFiles

COUNTS = {
    "train": {"cat": 20, "dog": 30},
    "valid": {"cat": 4, "dog": 6},
    "test": {"cat": 5, "dog": 5},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_image_folder(tmp_path / "images", COUNTS)
    return tmp_path / "images"


def load(root: Path, **how) -> Data:
    how = {"batch_size": 8, "image_size": 16, "crop": 2, "flip": True, "num_workers": 0} | how
    return load_data("image_folder", root=str(root), folder=str(root.parent / "cache"), **how)


def packs(root: Path) -> list[Path]:
    return [path for path in (root.parent / "cache" / "packed").iterdir() if path.suffix != ".lock"]


def batches(data: Data) -> list:
    return [*data.train.epoch(1), *data.valid.epoch(), *data.test.epoch()]


def test_an_image_folder(root: Path):
    data = load(root)
    assert data.classes == ["cat", "dog"] and data.image_size == 16
    assert [part.num_samples for part in (data.train, data.valid, data.test)] == [50, 10, 10]
    assert data.valid.labels.tolist() == 4 * [0] + 6 * [1]
    images, labels = next(data.train.epoch())
    assert images.shape == (7, 3, 16, 16) and images.dtype == torch.float32
    bright = images.mean((1, 2, 3))
    assert bright[labels == 1].min() > bright[labels == 0].max()  # labels belong to their images


def test_it_is_decoded_once_for_all_jobs(root: Path, monkeypatch: pytest.MonkeyPatch):
    first = batches(load(root))
    assert len(packs(root)) == 1
    size = 70 * (3 * 16 * 16 + 4)  # pixels, and a checksum of each file
    assert packs(root)[0].stat().st_size == size
    monkeypatch.setattr(packed, "_pack", None)  # nobody may pack again
    assert equal(batches(load(root)), first)


def test_packed_or_not_and_any_number_of_workers_give_the_same(root: Path):
    expected = batches(load(root))
    for workers in (0, 1, 2):
        assert equal(batches(load(root, max_gb=0, num_workers=workers)), expected)
    shutil.rmtree(root.parent / "cache")
    assert equal(batches(load(root, num_workers=2)), expected)
    assert len(packs(root)) == 1


def test_files_go_on_in_the_middle_and_in_shares(root: Path):
    data = load(root, max_gb=0, num_workers=2).train
    whole = list(data.epoch(3))
    assert equal(list(data.epoch(3, start=4)), whole[4:])
    shares = [list(data.epoch(3, rank=rank, world_size=2)) for rank in range(2)]
    for (images, labels), *parts in zip(whole, *shares):
        assert torch.equal(images[0::2], parts[0][0]) and torch.equal(images[1::2], parts[1][0])
        assert torch.equal(labels[1::2], parts[1][1])


def test_reading_files_leaves_the_global_generator_alone(root: Path):
    data = load(root, max_gb=0)
    before = torch.get_rng_state()
    list(data.train.epoch())
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_share_is_an_empty_batch(root: Path):
    for limit in (0, 1):
        images, labels = next(
            load(root, max_gb=limit, batch_size=2).train.epoch(0, 0, rank=3, world_size=4)
        )
        assert images.shape == (0, 3, 16, 16) and len(labels) == 0


def test_a_change_is_noticed(root: Path):
    load(root)
    size = load(root, image_size=8)
    assert size.image_size == 8 and len(packs(root)) == 2
    Image.new("RGB", (30, 30), "red").save(root / "train" / "cat" / "0000.png")
    load(root)
    assert len(packs(root)) == 3
    (root / "train" / "cat" / "0001.jpg").unlink()
    assert load(root).train.num_samples == 49
    assert len(packs(root)) == 4


def test_other_pixels_under_the_same_size_and_time_are_noticed(root: Path):
    first = batches(load(root))
    image = root / "train" / "cat" / "0000.png"
    Image.new("RGB", (20, 20), "red").save(image)  # both as short, and of the same mtime
    image.write_bytes(image.read_bytes().ljust(2000))
    os.utime(image, ns=(10**18, 10**18))
    old = load(root)
    Image.new("RGB", (20, 20), "blue").save(image)
    image.write_bytes(image.read_bytes().ljust(2000))
    os.utime(image, ns=(10**18, 10**18))
    new = load(root)
    assert not equal(batches(new), batches(old)) and not equal(batches(old), first)


def test_a_truncated_pack_is_made_again(root: Path):
    expected = batches(load(root))
    file = packs(root)[0]
    file.write_bytes(file.read_bytes()[:1000])
    assert equal(batches(load(root)), expected)


def test_val_is_valid(root: Path):
    (root / "valid").rename(root / "val")
    assert load(root).valid.num_samples == 10


@pytest.mark.parametrize("name", ["Ein Käfer, groß", "'$HOME'", "a\nb", "-rf", "日本"])
def test_odd_names(tmp_path: Path, name: str):
    write_image_folder(tmp_path / name, {"train": {name: 12, "dog": 12}})
    data = load(tmp_path / name, max_gb=0, num_workers=1)
    assert name in data.classes and len(list(data.train.epoch())) > 0
    assert load(tmp_path / name).train.num_samples == data.train.num_samples


# --- what goes wrong ---


def refused(root: Path, **how) -> str:
    with pytest.raises(DataError) as caught:
        load(root, **how)
    assert len(str(caught.value).splitlines()) <= 2
    cache = root.parent / "cache" / "packed"
    assert not cache.exists() or {path.suffix for path in cache.iterdir()} <= {".lock"}, (
        "something half-written"
    )
    return str(caught.value)


def test_a_wrong_root(tmp_path: Path):
    assert "no such folder" in refused(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "no such folder" in refused(tmp_path / "file")
    (tmp_path / "images" / "cat").mkdir(parents=True)
    said = refused(tmp_path / "images")
    assert 'no folder "train"' in said and "There is: cat" in said
    (tmp_path / "images" / "train").mkdir()
    assert "at least two" in refused(tmp_path / "images")
    with pytest.raises(ValueError, match="at least two"):
        check_data("image_folder", 8, root=str(tmp_path / "images"))


def test_an_empty_class(root: Path):
    (root / "train" / "emu").mkdir()
    assert "emu holds no image (.jpg, .jpeg, .png, " in refused(root)


def test_a_class_that_train_does_not_know(root: Path):
    (root / "train" / "dog").rename(root / "train" / "hound")
    assert 'no class "dog" in train' in refused(root)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_while_files_are_read(root: Path, workers: int):
    data = load(root, max_gb=0, num_workers=workers)
    (root / "train" / "dog" / "0003.jpg").write_bytes(b"gone")
    with pytest.raises(DataError, match=r"cannot read 1 image\(s\): .*dog/0003\.jpg"):
        list(data.train.epoch())


def test_a_dangling_link(root: Path):
    os.symlink(root / "nowhere.png", root / "train" / "cat" / "link.png")
    assert "link.png" in refused(root)


def test_a_cache_that_cannot_be_written(root: Path):
    (root.parent / "cache").write_text("a file")
    with pytest.raises(DataError, match="cannot write into"):
        load(root)


def test_a_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dora_train.data.packed.os.fsync", full)
    assert "No space left" in refused(root)


def test_a_folder_without_locks(root: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("dora_train.data.cache.FileLock.acquire", refuse)
    load(root)
    assert len(packs(root)) == 1


# --- several at once ---

PROGRAM = """
import logging, sys
from dora_train.data import packed
logging.basicConfig(level=logging.INFO)
from dora_train.data import load_data
data = load_data("image_folder", 8, root=sys.argv[1], folder=sys.argv[2], image_size=16, num_workers=1)
print(float(sum(images.double().sum() for images, _ in data.train.epoch())))
"""


@pytest.mark.slow
def test_jobs_that_start_together_decode_once(root: Path):
    command = [sys.executable, "-c", PROGRAM, str(root), str(root.parent / "cache")]
    jobs = [
        subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    outputs = [job.communicate(timeout=120) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], outputs
    assert len({printed for printed, _ in outputs}) == 1
    assert sum("decoding the 70 images" in log for _, log in outputs) == 1
    assert len(packs(root)) == 1


def test_a_million_paths_are_one_array():
    """A list of strings would be copied into each worker as its reference counts change."""
    files = InFiles([f"/data/train/cat/{number:07}.jpg" for number in range(1000)], (3, 16, 16), 0)
    assert files.files.paths.dtype.kind == "S" and files.shape == (1000, 3, 16, 16)


def test_a_packed_file_says_which_folder_it_is_of(root: Path):
    load(root)
    [path] = packs(root)
    assert packed.root_of(path) == root
    moved = root.rename(root.with_name("moved"))
    load(moved)
    # a folder lists its files in any order
    assert {packed.root_of(path) for path in packs(root)} == {root, moved}
