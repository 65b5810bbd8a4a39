"""Images decoded into one file: continued after a stop, with lines of progress on the way."""

from __future__ import annotations

import logging
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dora_train.data import packed as packing
from dora_train.data.image_files import Decoded, InFiles
from dora_train.data.packed import packed
from dora_train.data_error import DataError

COUNT = 100  # images; they are decoded in batches of 32


class Stopped(BaseException):
    """As a signal is heard: not an Exception."""


class Files(InFiles):
    """Counts what is decoded, and is stopped after so many batches."""

    stop_after = 99
    decoded = 0

    def decode(self, wanted: Iterator[Tensor]) -> Iterator[Decoded]:  # type: ignore[override]
        for number, batch in enumerate(super().decode(wanted)):
            if number == self.stop_after:
                raise Stopped
            self.decoded += len(batch.pixels)
            yield batch


@pytest.fixture
def files(tmp_path: Path) -> Files:
    draw = np.random.default_rng(0)
    for number in range(COUNT):
        Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(
            tmp_path / f"{number:03}.png"
        )
    return again(tmp_path)


def again(folder: Path, stop_after: int = 99) -> Files:
    made = Files(
        [str(path) for path in sorted(folder.glob("*.png"))],
        (3, 6, 6),
        0,
        unreadable=folder / "cache" / "unreadable.txt",
    )
    made.stop_after = stop_after
    return made


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").iterdir()} - {"pack.lock"}


def test_pixels_and_checksums(files: Files, tmp_path: Path):
    source, checksums = packed(files, tmp_path / "cache" / "pack", "root")
    rows = torch.arange(COUNT)
    assert torch.equal(next(source.read([rows])), next(InFiles.read(files, [rows])))
    assert checksums.tolist() == [
        zlib.crc32(path.read_bytes()) for path in sorted(tmp_path.glob("*.png"))
    ]
    assert left(tmp_path) == {"pack"}


def test_a_decoding_that_was_stopped_is_continued(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    expected, sums = packed(files, tmp_path / "whole" / "pack", "root")
    for stop_after, done in ((2, 64), (1, 32)):
        stopped = again(tmp_path, stop_after)
        with pytest.raises(Stopped):
            packed(stopped, tmp_path / "cache" / "pack", "root")
        assert stopped.decoded == done and left(tmp_path) == {"pack.half", "pack.half.json"}
    last = again(tmp_path)
    source, checksums = packed(last, tmp_path / "cache" / "pack", "root")
    assert last.decoded == COUNT - 96 and "96 of them were decoded before" in caplog.messages[-2]
    assert torch.equal(source.pixels, expected.pixels) and np.array_equal(checksums, sums)
    assert left(tmp_path) == {"pack"}


def test_a_killed_process_had_noted_how_far_it_was(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Here it writes a note after each batch, and none when it is stopped."""
    monkeypatch.setattr(packing, "NOTED", -1.0)
    stopped = again(tmp_path, 2)
    with pytest.raises(Stopped), monkeypatch.context() as patch:
        real = packing._Half.note
        patch.setattr(
            packing._Half, "note", lambda half: real(half) if stopped.decoded < 64 else None
        )
        packed(stopped, tmp_path / "cache" / "pack", "root")
    last = again(tmp_path)
    source, _ = packed(last, tmp_path / "cache" / "pack", "root")
    assert last.decoded == COUNT - 32, "the second batch was not noted"
    assert torch.equal(source.pixels, next(InFiles.read(last, [torch.arange(COUNT)])))


@pytest.mark.parametrize(
    "note", ["", "{", "[]", '{"done": "x", "errors": []}', '{"done": 1000000, "errors": []}']
)
def test_a_note_that_means_nothing(files: Files, note: str, tmp_path: Path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "pack.half").write_bytes(b"half")
    (tmp_path / "cache" / "pack.half.json").write_text(note)
    source, _ = packed(files, tmp_path / "cache" / "pack", "root")
    assert files.decoded == COUNT and left(tmp_path) == {"pack"}
    assert torch.equal(source.pixels, next(InFiles.read(files, [torch.arange(COUNT)])))


def test_two_that_decode_the_same_give_one_whole_file(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """If locks do not work: another process begins later, and is done first."""
    monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: None)
    path = tmp_path / "cache" / "pack"

    class Slow(Files):
        def decode(self, wanted: Iterator[Tensor]) -> Iterator[Decoded]:  # type: ignore[override]
            for number, batch in enumerate(super().decode(wanted)):
                if number == 2:
                    packed(again(tmp_path), path, "root")
                yield batch

    slow = Slow(files.files.paths.astype(str).tolist(), (3, 6, 6), 0)
    source, _ = packed(slow, path, "root")
    assert torch.equal(source.pixels, next(InFiles.read(files, [torch.arange(COUNT)]))) and left(
        tmp_path
    ) == {"pack"}


def test_what_nobody_continues_is_removed_after_a_week(files: Files, tmp_path: Path):
    (tmp_path / "cache").mkdir()
    for name, days in (
        ("old.half", 8),
        ("old.half.json", 8),
        (".old.1234", 8),
        ("young.half", 6),
        ("whole", 99),
    ):
        path = tmp_path / "cache" / name
        path.touch()
        os.utime(path, (time.time() - days * 24 * 3600,) * 2)
    packed(files, tmp_path / "cache" / "pack", "root")
    assert left(tmp_path) == {"young.half", "whole", "pack"}


# --- what cannot be read ---


def test_unreadable_images_are_all_in_a_file(files: Files, tmp_path: Path):
    names = [f"{number:03}.png" for number in range(0, COUNT, 2)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(
            [b"", b"not an image", b"\x89PNG\r\n\x1a\n garbage"][number % 3]
        )
    for workers in (0, 2):
        broken = again(tmp_path)
        broken.num_workers = workers
        with pytest.raises(DataError) as refusal:
            packed(broken, tmp_path / "cache" / "pack", "root")
        first, second = str(refusal.value).splitlines()
        listed = tmp_path / "cache" / "unreadable.txt"
        assert first.startswith(
            f"cannot read 50 image(s): {tmp_path}/000.png (cannot identify image file); "
        )
        assert (
            first.endswith(f"; and 47 more; all of them: {listed}.")
            and second == "Replace them or take them away"
        )
        lines = listed.read_text().splitlines()
        assert [line.split(" (")[0] for line in lines] == [str(tmp_path / name) for name in names]
        assert left(tmp_path) == {"unreadable.txt"}


def test_what_was_unreadable_before_a_stop_is_not_forgotten(files: Files, tmp_path: Path):
    for number in (3, 99):
        (tmp_path / f"{number:03}.png").write_bytes(b"no image")
    with pytest.raises(Stopped):
        packed(again(tmp_path, 2), tmp_path / "cache" / "pack", "root")
    with pytest.raises(DataError, match=r"cannot read 2 image\(s\): .*003\.png .*099\.png"):
        packed(again(tmp_path), tmp_path / "cache" / "pack", "root")


def test_a_full_disk_leaves_nothing(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dora_train.data.packed.os.pwrite", full)
    with pytest.raises(DataError, match=r"cannot write into .*cache: No space left on device"):
        packed(files, tmp_path / "cache" / "pack", "root")
    assert left(tmp_path) == set()


# --- what is said ---


def test_progress_off_a_terminal(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(packing, "SAID", 0.0)
    packed(files, tmp_path / "cache" / "pack", "/data/birds")
    first, *lines = caplog.messages
    assert first.startswith("decoding the 100 images of /data/birds once, into ")
    assert lines[0].startswith("decoded 32 of 100 images, ") and lines[-1].startswith(
        "decoded 100 of 100 images, "
    )


def test_lines_become_seldom(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """An hour of decoding is two dozen lines."""
    caplog.set_level(logging.INFO)
    clock = iter(range(10_000))
    monkeypatch.setattr(packing.time, "monotonic", lambda: next(clock))
    lines = packing._Lines(0, 3600)
    for _ in range(3600):
        lines.add(1, quiet=False)
    assert caplog.messages[0] == "decoded 5 of 3,600 images, 5 s" and len(caplog.messages) == 22
    assert caplog.messages[-1] == "decoded 3,600 of 3,600 images, 3600 s"
