"""A signal before the training ends a run at once, and the images decoded so far are kept."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Run
from PIL import Image
from project import Project

from dora_train.data.image_files import InFiles
from dora_train.engine.run.signals import CAUGHT, Interrupted, Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {signum: signal.getsignal(signum) for signum in CAUGHT}
    for signum in CAUGHT:  # whoever runs the tests may ignore some (nohup)
        signal.signal(signum, signal.SIG_DFL)
    yield Signals().install()
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_a_second_signal_does_not_disturb_what_is_kept(signals: Signals):
    with pytest.raises(Interrupted), signals.heard_at_once():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            kept = True
    assert kept and signals.signum == signal.SIGINT


def test_workers_stop_between_two_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run waits for its workers. Each would first decode the rest of its batches."""
    calls, count = tmp_path / "calls", 1000

    def decode(file: object, shape: tuple[int, ...], on_white: bool) -> int:
        with calls.open("ab") as stream:
            stream.write(b".")
        time.sleep(0.01)
        return 0

    monkeypatch.setattr("dora_train.data.image_files.decoded", decode)
    files = InFiles([__file__] * (2 * count + 2), (3, 8, 8), 2)
    batches = files.decode(torch.arange(2 * count + 2).split([1, 1, count, count]))
    next(batches)
    while calls.stat().st_size < 20:  # both are in the middle of a batch
        time.sleep(0.01)
    batches.close()
    assert calls.stat().st_size < count, "not even one batch"


@pytest.mark.parametrize("signum", CAUGHT)
def test_before_the_training_a_signal_is_heard_at_once(signum: int, signals: Signals):
    with pytest.raises(Interrupted) as interrupt, signals.heard_at_once():
        os.kill(os.getpid(), signum)
        raise AssertionError("it went on")
    assert interrupt.value.signum == signum and not signals.at_once


def test_in_the_training_it_waits_for_a_place_to_save(signals: Signals):
    with signals.heard_at_once():
        signals.at_once = False  # as the training says
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.signum == signal.SIGTERM


def test_a_signal_that_came_earlier_is_not_lost(signals: Signals):
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted), signals.heard_at_once():
        raise AssertionError("it went on")


def test_a_forked_worker_leaves_signals_to_the_run(signals: Signals):
    """SLURM signals every process of a job. If a worker died, the run would fail, and not save."""
    signals.at_once = True
    child = os.fork()
    if child == 0:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(signals.signum)
        finally:
            os._exit(99)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.slow
def test_a_run_that_decodes_images(tmp_path: Path):
    image = tmp_path / "image.png"
    Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    ).save(image)
    for number in range(4000):  # minutes of decoding
        folder = tmp_path / "images" / "train" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        os.link(image, folder / f"{number}.png")
    project = Project(tmp_path / "outputs", env={"DORA_TRAIN_DATA": str(tmp_path / "cache")})
    run = Run(
        project,
        "run",
        "data=image_folder",
        f"data.root={tmp_path}/images",
        "data.image_size=8",
        "threads=1",
        "data.num_workers=1",
    )
    half = f"{tmp_path}/cache/packed"
    while run.poll() is None:
        time.sleep(0.05)
        if os.path.isdir(half) and any(os.stat(path).st_size for path in os.scandir(half)):
            break
    assert run.kill(signal.SIGTERM), run.text
    assert run.wait() == 128 + signal.SIGTERM, run.text
    assert "interrupted by SIGTERM · go on" in run.text and "Traceback" not in run.text
    assert "decoded 4,000 of 4,000" not in run.text
    state = project.xp.state()
    assert (str(state.state), state.cause) == ("interrupted", "interrupted by SIGTERM")
    assert {path.name.rpartition(".")[2] for path in Path(half).iterdir()} == {
        "lock",
        "half",
        "json",
    }, "it is kept"
