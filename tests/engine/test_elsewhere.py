"""On a system that is not Linux: what a Mac has in its place, and the engine's promises without it.

No Mac is needed: `elsewhere.py` hides from the project what only Linux has.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from elsewhere import hide_linux
from forked import Run
from omegaconf import OmegaConf
from project import REPOSITORY, ROOT, Project, same_run

from dora_train import counters
from dora_train.engine import machine
from dora_train.engine.config.defaults import with_defaults
from dora_train.engine.errors import UserError
from dora_train.engine.jobs.queue import watching
from dora_train.engine.run import checks
from dora_train.engine.run.averages import Averages
from dora_train.engine.run.checks import check_precision


@pytest.fixture
def mac(monkeypatch, tmp_path: Path):
    """No /proc, and a `sysctl` that counts its calls."""
    script = tmp_path / "sysctl"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/asked\necho 5B2C-UUID\n')
    script.chmod(0o755)
    monkeypatch.setattr(machine, "PROC", tmp_path / "no proc")
    monkeypatch.setattr(machine, "SYSCTL", str(script))
    machine._sysctl.cache_clear()
    yield tmp_path
    machine._sysctl.cache_clear()


def test_the_boot_has_an_id_that_no_clock_moves(mac: Path, monkeypatch):
    monkeypatch.setattr(psutil, "boot_time", lambda: 1.0)
    assert machine.boot_id() == machine.boot_id() == "5B2C-UUID"
    assert (mac / "asked").read_text() == "-n kern.bootsessionuuid\n", "asked once"


@pytest.mark.parametrize("line", ["exit 1", "sleep 300"], ids=["fails", "hangs"])
def test_without_an_answer_the_time_of_the_boot_is_taken(mac: Path, monkeypatch, line):
    (mac / "sysctl").write_text(f"#!/bin/sh\nexec sh -c '{line}'\n")
    run = subprocess.run
    monkeypatch.setattr(
        machine.subprocess, "run", lambda *args, **how: run(*args, **{**how, "timeout": 0.2})
    )
    monkeypatch.setattr(psutil, "boot_time", lambda: 1.5)
    assert machine.boot_id() == "1"


def test_a_disk_is_found_whatever_the_case_of_its_letters(monkeypatch):
    disks = [
        SimpleNamespace(mountpoint="/", fstype="apfs"),
        SimpleNamespace(mountpoint="/Volumes/Lab", fstype="smbfs"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: disks)
    assert machine.is_local(Path("/volumes/lab/outputs")), "another folder on Linux"
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert not machine.is_local(Path("/volumes/lab/outputs"))
    assert machine.is_local(Path("/Volumes/Laboratory"))


def test_who_has_a_file_open_is_found_without_proc(tmp_path: Path):
    path = tmp_path / "alive"
    with open(path, "w") as file:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[file.fileno()])
    try:
        with open(path):  # this process looks at the file as well
            assert watching._openers(str(path)) == [child.pid]
    finally:
        child.kill()
        child.wait()
    assert watching._openers(str(path)) == []


# --- MPS ---


def test_sums_of_a_mac_s_gpu_are_float64_on_the_cpu():
    averages = Averages()
    averages.load({"names": ["loss"], "sums": [1.5], "count": 3}, torch.device("mps"), True)
    [group] = averages.groups.values()
    assert (group.sums.dtype, group.sums.device.type) == (torch.float64, "cpu")


def test_its_generator_is_seeded(monkeypatch):
    seeds: list[int] = []
    monkeypatch.setattr(counters, "_has_mps", lambda: True)
    monkeypatch.setattr(torch.mps, "manual_seed", seeds.append)
    counters.seed_all("weights", 3)
    assert seeds == [counters.seed_of("weights", 3)]


def test_a_precision_that_torch_cannot_do_is_refused(monkeypatch):
    for precision in ("32-true", "bf16-mixed", "bf16-true", "64-true"):
        check_precision("cpu", precision)

    def disabled(device: str, dtype: torch.dtype) -> torch.autocast:
        return autocast(device, dtype, enabled=False)

    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", disabled)
    for precision in ("bf16-mixed", "16-mixed", "bf16", "16"):
        message = (
            rf"trainer.precision={precision}: torch .* cannot .*\(it computes in torch.float32"
        )
        with pytest.raises(UserError, match=message):
            check_precision("cpu", precision)
    # as MPS refuses float64
    with pytest.raises(UserError, match="trainer.precision=64-true: torch .* cannot compute in it"):
        check_precision("meta:7:8", "64-true")


@pytest.mark.parametrize(
    "accelerator, asked", [("auto", ["mps"]), ("gpu", ["mps"]), ("mps", ["mps"]), ("cpu", [])]
)
def test_the_precision_is_tried_where_the_run_trains(monkeypatch, accelerator, asked):
    tried: list[str] = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(checks, "check_precision", lambda device, precision: tried.append(device))
    monkeypatch.setattr(checks, "check_trainer", lambda keywords: None)
    trainer = {"accelerator": accelerator, "precision": "bf16-mixed"}
    checks.check_run(OmegaConf.create(with_defaults({"trainer": trainer})))
    assert tried == asked


# --- workers that are not forks ---

SPAWN = "import multiprocessing\nmultiprocessing.set_start_method('spawn', force=True)\n"


@pytest.mark.slow
def test_spawned_workers_read_the_same(copy: Project):
    command = ["run", "task=lightning", "debug=fast", "trainer.accelerator=cpu"]
    plain = Run(copy, *command, "data.num_workers=0")
    assert plain.wait() == 0, plain.text
    [first] = copy.experiments()
    reference = first.history()
    copy.edit("dora_train/train.py", "from .data.image_list", f"{SPAWN}from .data.image_list")
    first.folder.rename(copy.out / "plain")
    run = Run(copy, *command, "data.num_workers=1")
    assert run.wait() == 0, run.text
    assert copy.xp.history() == reference


def test_what_cannot_be_sent_to_workers_is_said(copy: Project):
    copy.edit("dora_train/train.py", "from .data.image_list", f"{SPAWN}from .data.image_list")
    copy.edit(
        "dora_train/tasks/lightning.py",
        "        return DataLoader(dataset, shuffle=shuffle, **self.hparams)",
        "        dataset.transform = lambda image: image\n"
        "        return DataLoader(dataset, shuffle=shuffle, **self.hparams)",
    )
    run = Run(copy, "run", "task=lightning", "debug=fast", "data.num_workers=1")
    assert run.wait() == 1, run.text
    assert "cannot be sent to data workers" in run.text and "data.num_workers=0" in run.text
    assert "Traceback" not in run.text


BUSY = """
import os, sys, time
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, sys.argv[1])
from dora_train.engine.run.workers import settings_of


class Busy(Dataset):  # a worker that reads looks at nothing else
    def __len__(self):
        return 1

    def __getitem__(self, row):
        print(os.getpid(), flush=True)
        time.sleep(600)


if __name__ == "__main__":
    given = DataLoader(Busy(), num_workers=1, multiprocessing_context="spawn")
    next(iter(DataLoader(given.dataset, **settings_of(given, False))))
"""


@pytest.mark.slow
def test_a_spawned_worker_ends_with_a_killed_run(tmp_path: Path):
    (tmp_path / "busy.py").write_text(BUSY)
    run = subprocess.Popen(
        [sys.executable, str(tmp_path / "busy.py"), str(ROOT)], stdout=subprocess.PIPE, text=True
    )
    with run:
        assert run.stdout is not None
        worker = psutil.Process(int(run.stdout.readline()))
        run.kill()
    _, left = psutil.wait_procs([worker], timeout=30)
    assert not left


# --- the whole engine ---


@pytest.mark.slow
def test_killed_twice(copy: Project):
    """A run that was killed is seen as gone, and ends with the same bits."""
    hide_linux(copy.root)
    plain = Project(copy.out.with_name("plain"), copy.root)
    command = ["run", "debug=fast", "trainer.max_epochs=3"]
    whole = Run(plain, *command)
    assert whole.wait() == 0, whole.text
    for fault in (("step", 5), ("torch.save", 2)):
        assert Run(copy, *command, fault=fault).wait() == -9
    last = Run(copy, *command)
    assert last.wait() == 0 and "attempt 3" in last.text, last.text
    same_run(copy.xp, plain.xp)


def test_a_second_start_is_refused_while_the_first_one_runs(copy: Project):
    hide_linux(copy.root)
    first = Run(copy, "run", "trainer.max_epochs=-1", "trainer.max_steps=1000000")
    try:
        while not copy.experiments() or not copy.xp.history():
            assert first.poll() is None, first.text
        second = Run(copy, "run", "trainer.max_epochs=-1", "trainer.max_steps=1000000")
        assert second.wait() == 1 and "is running on" in second.text, second.text
    finally:
        first.kill()
        first.wait()


# Tests of what only Linux has, and of what a machine is named by, which `hide_linux` sets.
LINUX = ["process_id_used_again", "container_without_a_proc"]
NAMES = ["mac_names_its_boot", "names_no_boot"]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_claims.py", "test_local_queue.py"])
def test_claims_and_the_local_queue(file: str):
    tests = [str(REPOSITORY / "tests/engine" / file), "-m", "not slow and not slurm"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests, "-k", f"not ({' or '.join(LINUX + NAMES)})"],
        cwd=REPOSITORY,
        env={**os.environ, "DORA_TEST_ELSEWHERE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
