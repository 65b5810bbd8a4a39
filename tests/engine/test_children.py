"""Processes that a run starts end with it, however it ended. Here it is killed by SIGKILL."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from data_files import write_image_folder
from forked import Run
from project import ROOT, Project

SLEEPS = "import time; time.sleep(600)"


def gone(pids: list[int], patience: float = 120) -> bool:
    """Whether all of these end; one that nobody has waited for yet has ended."""
    deadline = time.monotonic() + patience
    while living := [pid for pid in pids if _lives(pid)]:
        if time.monotonic() > deadline:
            for pid in living:
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()
            return False
        time.sleep(0.05)
    return True


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def killed(program: str, *args: str) -> list[int]:
    """Run a program until it prints the ids of its children, kill it, and return them."""
    command = [sys.executable, "-c", program, *args]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    return [int(word) for word in line.split()]


@pytest.mark.parametrize("thread", [False, True])
def test_a_child_ends_with_its_parent(thread: bool):
    """And not with the thread that started it, as Linux would have it."""
    program = """
import multiprocessing, sys, threading, time
from dora_train.children import end_all_with_this_process
multiprocessing.set_start_method("fork")
end_all_with_this_process()
child = multiprocessing.Process(target=time.sleep, args=(600,))
def start():
    child.start()
    time.sleep(1)
if sys.argv[1] == "True":
    starter = threading.Thread(target=start)
    starter.start()
    starter.join()
    time.sleep(0.5)
    assert child.is_alive()
else:
    start()
print(child.pid, flush=True)
time.sleep(600)
"""
    children = killed(program, str(thread))
    assert len(children) == 1 and gone(children)


def test_a_child_whose_parent_has_ended_before_it_looked():
    program = """
import os, time
from dora_train.children import Parent, end_with
parent = Parent.here()
if os.fork() == 0:
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(0.5)  # its parent is gone by now
        end_with(Parent(os.getppid() + 1, in_main_thread=True))
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(600)
"""
    children = killed(program)
    assert len(children) == 1 and gone(children)


@pytest.mark.slow
def test_the_workers_of_a_loader_that_a_user_writes():
    """Each writes more into its pipe than fits, and does not look after its parent meanwhile."""
    program = """
import multiprocessing
from dora_train.children import end_all_with_this_process
multiprocessing.set_start_method("fork")
end_all_with_this_process()
import torch
from torch.utils.data import DataLoader
class Set(torch.utils.data.Dataset):
    def __len__(self): return 1000
    def __getitem__(self, row): return b"x" * 1_000_000
loader = iter(DataLoader(Set(), batch_size=2, num_workers=2, collate_fn=lambda batch: batch))
next(loader)
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
import time; time.sleep(600)
"""
    children = killed(program)
    assert len(children) == 2 and gone(children)


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_the_workers_that_decode_images(method: str, tmp_path: Path):
    """Without the engine: in a notebook, or in basic/."""
    write_image_folder(tmp_path / "images", {"train": {"cat": 30, "dog": 30}}, size=60)
    program = tmp_path / "program.py"
    program.write_text(f"""
import multiprocessing, sys, time
sys.path.insert(0, {str(ROOT)!r})
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    from dora_train.data import load_data
    data = load_data("image_folder", 8, root=sys.argv[1], image_size=300, max_gb=0, num_workers=2)
    batches = data.train.epoch()
    next(batches)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(600)
""")
    children = killed(
        f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')",
        str(tmp_path / "images"),
    )
    assert len(children) == 2 and gone(children)


@pytest.mark.slow
def test_whatever_a_run_starts_by_multiprocessing(copy: Project):
    copy.edit(
        "dora_train/train.py",
        '    seed_all("weights", cfg.seed)',
        """
    import multiprocessing, time
    child = multiprocessing.Process(target=time.sleep, args=(600,))
    child.start()
    print("child", child.pid, flush=True)
    time.sleep(600)""",
    )
    run = Run(copy, "run", "threads=1")
    said = None
    while not said and run.poll() is None:
        said = re.search(r"child (\d+)\n", run.text) if run.output.exists() else None
        time.sleep(0.5)
    assert run.kill() and said and gone([int(said[1])])


@pytest.mark.slow
def test_the_ranks_of_a_run_save_and_leave(project: Project):
    """The process that started them is killed: they are told as it would have told them."""
    process = project.start(
        "dora",
        "run",
        "-d",
        "--ddp_workers",
        "2",
        "threads=1",
        "trainer.max_epochs=1000",
        "trainer.accelerator=cpu",
    )
    while not any(xp.history() for xp in project.experiments()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    ranks = [child.pid for child in psutil.Process(process.pid).children()]
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and len(ranks) == 2 and gone(ranks)
    state = project.xp.state()
    assert (str(state.state), state.cause) == ("interrupted", "interrupted by SIGTERM")
    assert project.xp.last_checkpoint.exists()
    assert process.stdout is not None
    process.stdout.close()


SLOW_TO_LEAVE = "trap 'sleep 3; exit 143' TERM; echo up; while :; do sleep 0.05; done"
DIES = "sleep 0.2; exit 7"


@pytest.mark.parametrize(
    ("second", "signum", "code"),
    [(SLOW_TO_LEAVE, signal.SIGTERM, 143), (DIES, 0, 7)],
    ids=["asked by the user", "another one died"],
)
def test_only_ranks_that_have_lost_another_are_killed(monkeypatch, second, signum, code):
    """A rank that the user asks to leave may write its checkpoint first."""
    from dora_train.engine.run import spawn
    from dora_train.engine.run.signals import Signals

    monkeypatch.setattr(spawn, "GRACE", 1.0)
    ranks = []
    for program in (SLOW_TO_LEAVE, second):
        ranks.append(subprocess.Popen(["bash", "-c", program], stdout=subprocess.PIPE))
        if program == SLOW_TO_LEAVE:
            ranks[-1].stdout.readline()
    signals = Signals()
    signals.signum = signum
    assert spawn._watch(ranks, signals) == code
    assert ranks[0].wait() == (143 if signum else -9)


@pytest.mark.parametrize(
    ("gpus", "ranks", "accelerator", "refused"),
    [(0, 2, "auto", False), (1, 2, "auto", True), (2, 2, "auto", False), (1, 2, "cpu", False)],
)
def test_more_ranks_than_gpus_are_refused(monkeypatch, gpus, ranks, accelerator, refused):
    from omegaconf import OmegaConf

    from dora_train.engine.errors import UserError
    from dora_train.engine.run.spawn import _refuse_missing_gpus

    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    cfg = OmegaConf.create({"trainer": {"accelerator": accelerator}})
    if not refused:
        return _refuse_missing_gpus(cfg, ranks)
    with pytest.raises(UserError, match="trainer.accelerator=cpu"):
        _refuse_missing_gpus(cfg, ranks)
