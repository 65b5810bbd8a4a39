"""Who holds an experiment: one process, whatever happens to clocks, host names, containers and
folders."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from project import ROOT

from dora_train.engine import machine
from dora_train.engine.errors import UserError
from dora_train.engine.experiment import claims
from dora_train.engine.experiment.claims import Holder
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import Job, RunState, State

HOLD = """
import sys
from pathlib import Path
from dora_train.engine import machine
from dora_train.engine.experiment import claims
from dora_train.engine.experiment.folder import Experiment
{before}
claims.claim(Experiment(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""
ASK = """
import os, psutil, sys
from pathlib import Path
from dora_train.engine import machine
from dora_train.engine.experiment import claims
from dora_train.engine.experiment.folder import Experiment
{before}
print(claims.holder(Experiment(Path(sys.argv[1])))[1])
"""
ELSEWHERE = {"host": "node7", "boot_id": "of node7", "machine_id": "of node7"}
OLD = (
    "attempt",
    "host",
    "boot_id",
    "namespace",
    "pid",
    "started",
    "since",
    "user",
    "job_id",
    "token",
    "inode",
)  # what earlier versions knew


@pytest.fixture
def xp(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path / "xps" / "0123abcd")


@pytest.fixture
def open_xp() -> Iterator[Experiment]:
    """In a folder that every user of this machine may read, which pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="claims"))
    folder.chmod(0o755)
    yield Experiment(folder / "xps" / "0123abcd")
    shutil.rmtree(folder)


class Run:
    """A process that holds an experiment until it is killed; `prefix` is a command to start it
    with."""

    def __init__(self, xp: Experiment, *prefix: str, before: str = ""):
        command = [*prefix, sys.executable, "-c", HOLD.format(before=before), str(xp.folder)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout is not None and self.process.stdout.readline() == b"held\n"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def asked(xp: Experiment, *prefix: str, before: str = "") -> str:
    """Whether another process believes that the experiment is held: "True", "False" or "None"."""
    command = [*prefix, sys.executable, "-c", ASK.format(before=before), str(xp.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def needs(*command: str) -> list[str]:
    """The command, if this system allows it; else the test is skipped."""
    try:
        able = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    except OSError:
        able = False
    if not able:
        pytest.skip(f"{' '.join(command)} is not allowed here")
    return list(command)


def rewrite(xp: Experiment, old: bool = False, **what: object) -> None:
    """Change the last claim in place, so that its inode stays.

    Args:
        old: leave what earlier versions knew.
    """
    path = xp.attempts / f"{xp.attempt_numbers()[-1]}.json"
    content = json.loads(path.read_text()) | what
    path.write_text(json.dumps({key: content[key] for key in OLD} if old else content))


def is_held(xp: Experiment) -> bool | None:
    return claims.holder(xp)[1]


# --- one at a time ---


def test_one_holder_at_a_time(xp: Experiment):
    mine = claims.claim(xp)
    assert mine.attempt == 1 and claims.holder(xp) == (claims.latest(xp), True)
    assert claims.latest(xp).in_reach() and claims.latest(xp).this_process()
    claims.refuse_if_held(xp)  # nobody else does
    assert [path.name for path in xp.attempts.iterdir()] == ["1.json"]
    xp.write_state(RunState(State.COMPLETED, attempt=1))
    assert claims.holder(xp) == (None, False), "an attempt that said its end holds nothing"


def test_an_end_frees_the_claim_of_its_own_attempt_alone(xp: Experiment):
    claims.claim(xp)
    xp.write_state(RunState(State.FAILED, attempt=1))
    with Run(xp) as run:
        assert is_held(xp) is True, "the second attempt has yet to say its first word"
        with pytest.raises(
            UserError, match=f"is running on .*, process {run.process.pid}, since [^(]*$"
        ):
            claims.claim(xp)
        xp.write_state(RunState(State.RUNNING, attempt=2, epoch=3, epochs=5))
        with pytest.raises(UserError, match=r"\(epoch 3 of 5\)\.\nwatch it: dora info -f"):
            claims.claim(xp)


@pytest.mark.parametrize("state", [State.NEW, State.RUNNING])
def test_a_word_that_is_no_end_frees_nothing(xp: Experiment, state: State):
    with Run(xp):
        xp.write_state(RunState(state, attempt=1))
        assert is_held(xp) is True


def _claim(folder: str, gate, results) -> None:
    gate.wait()
    try:
        claims.claim(Experiment(Path(folder)))
        results.put("mine")
        gate.wait()  # stay alive until all have tried
    except UserError:
        results.put("refused")
        gate.wait()


def test_of_many_at_once_one_claims(xp: Experiment):
    context = multiprocessing.get_context("fork")
    gate, results = context.Barrier(6), context.Queue()
    processes = [
        context.Process(target=_claim, args=(str(xp.folder), gate, results)) for _ in range(6)
    ]
    for process in processes:
        process.start()
    said = sorted(results.get(timeout=30) for _ in processes)
    for process in processes:
        process.join(30)
    assert said == ["mine"] + ["refused"] * 5
    assert len(list(xp.attempts.glob("*.json"))) == 1


def test_a_dead_holder_holds_nothing(xp: Experiment):
    with Run(xp) as run:
        assert is_held(xp) is True
        run.kill()
    assert claims.latest(xp) is not None and claims.holder(xp) == (None, False)
    assert claims.claim(xp).attempt == 2


def test_a_process_that_its_parent_has_not_buried_holds_nothing(xp: Experiment):
    with Run(xp) as run:
        run.process.kill()
        os.waitid(os.P_PID, run.process.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie
        assert is_held(xp) is False


def test_a_process_id_used_again_is_nobody(xp: Experiment):
    mine = Holder.here(1)
    assert mine.alive() is True
    assert replace(mine, ticks=mine.ticks - 100).alive() is False
    assert replace(mine, boot_id="before the reboot").alive() is False


def test_the_same_process_id_elsewhere_is_not_this_process(xp: Experiment):
    far = replace(Holder.here(1), **ELSEWHERE, job_id="8812")
    assert claims._make(xp.attempts / "1.json", far)
    with pytest.raises(UserError, match="is running on node7, job 8812"):
        claims.claim(xp, ask=lambda holder: True)


def test_a_holder_elsewhere_is_not_overruled(xp: Experiment, monkeypatch):
    far = replace(Holder.here(1), **ELSEWHERE)
    assert far.alive() is None and far.alive(lambda holder: True) is None, "it is no job"
    assert replace(far, job_id="8812").alive() is None
    assert replace(far, job_id="8812").alive(lambda holder: False) is False
    assert replace(Holder.here(1), namespace="another").alive() is None
    assert claims._make(xp.attempts / "1.json", far)
    with pytest.raises(UserError, match="node7, process .*cannot check whether(.|\n)*DORA_TAKE=1"):
        claims.claim(xp)
    monkeypatch.setenv("DORA_TAKE", "1")
    assert claims.claim(xp).attempt == 2


def test_what_is_proven_to_run_is_not_taken(xp: Experiment, monkeypatch):
    monkeypatch.setenv("DORA_TAKE", "1")
    with Run(xp), pytest.raises(UserError, match="is running on"):
        claims.claim(xp)


# --- clocks, names ---


def test_a_clock_that_is_set_kills_nobody(xp: Experiment, monkeypatch):
    """psutil counts from the boot, whose time is another one after a step."""
    with Run(xp) as run:
        real, boot = psutil.Process(run.process.pid).create_time(), psutil.boot_time()
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + 3600)
        assert psutil.Process(run.process.pid).create_time() == real + 3600, "the fake works"
        assert is_held(xp) is True
        run.kill()
        assert is_held(xp) is False


def test_a_time_namespace_kills_nobody(xp: Experiment):
    """As a container has one that was moved to another machine: its /proc counts from elsewhere."""
    shifted = needs("unshare", "--time", "--boottime", "100000")
    with Run(xp):
        assert asked(xp, *shifted) == "True"
    second = Experiment(xp.folder.with_name("0123abce"))
    with Run(second, *shifted):
        assert asked(second) == "True"


def test_another_host_name_changes_nothing(xp: Experiment, monkeypatch):
    with Run(xp) as run:
        monkeypatch.setattr(socket, "gethostname", lambda: "laptop.on.another.network")
        assert is_held(xp) is True
        run.kill()
        assert is_held(xp) is False and claims.claim(xp).attempt == 2


def test_a_boot_ends_what_ran_on_this_machine_and_on_no_other(xp: Experiment):
    with Run(xp):
        rewrite(xp, boot_id="before")
        assert is_held(xp) is False
        rewrite(xp, machine_id="a machine of the same name")
        assert is_held(xp) is None


# --- what earlier versions wrote ---


def test_a_claim_of_an_earlier_version_is_judged_as_before(xp: Experiment):
    with Run(xp) as run:
        rewrite(xp, old=True)
        assert claims.latest(xp).ticks is None and is_held(xp) is True
        run.kill()
        assert is_held(xp) is False


def test_an_earlier_version_knew_the_start_by_the_wall_clock_alone(xp: Experiment):
    """Off by hours, it may be a clock that was set, and the process is not declared dead."""
    with Run(xp) as run:
        started = psutil.Process(run.process.pid).create_time()
        rewrite(xp, old=True, started=started - 3600)
        assert is_held(xp) is None
        with pytest.raises(UserError, match="This machine cannot check(.|\n)*DORA_TAKE=1"):
            claims.claim(xp)
        rewrite(xp, old=True, started=started - 10 * 86400)
        assert is_held(xp) is False, "no clock is set by ten days: the id was given again"


def test_an_earlier_version_took_the_time_of_the_boot_for_its_id_on_a_mac(xp: Experiment):
    with Run(xp) as run:
        rewrite(xp, old=True, boot_id=str(int(psutil.boot_time()) - 3))
        assert is_held(xp) is True
        run.kill()
        assert is_held(xp) is False


def test_an_earlier_version_can_read_a_claim_of_today(xp: Experiment):
    mine = claims.claim(xp)
    content = json.loads((xp.attempts / "1.json").read_text())
    assert set(OLD) <= set(content) and content["inode"] == (xp.attempts / "1.json").stat().st_ino
    assert abs(content["started"] - psutil.Process().create_time()) < 0.05
    assert asdict(mine).keys() == content.keys()


# --- hidden processes, containers ---

NOT_LOCAL = "machine.is_local = lambda path: False"
NOBODY = "os.setgid(65534); os.setuid(65534)"


def hidden() -> list[str]:
    """A command in a system whose /proc shows nobody the processes of others."""
    proc = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    return [*needs("unshare", "--mount", "sh", "-c", proc, "sh")]


@pytest.mark.parametrize("local", [True, False])
def test_another_users_process_that_proc_hides_is_alive(open_xp: Experiment, local: bool):
    """A lock says so on a local disk; elsewhere nobody can tell whether it is the run."""
    before = "" if local else NOT_LOCAL
    with Run(open_xp, before=before) as run:
        assert claims.latest(open_xp).locked is local
        assert asked(open_xp, *hidden(), before=f"{NOBODY}; {before}") == (
            "True" if local else "None"
        )
        run.kill()
    assert asked(open_xp, *hidden(), before=f"{NOBODY}; {before}") == "False", "there is no such id"


def test_hidden_and_its_id_is_in_use_again(open_xp: Experiment):
    """By another user's process, of which nothing can be seen. The lock is free."""
    with Run(open_xp):
        pass
    rewrite(open_xp, pid=os.getpid())
    assert asked(open_xp, *hidden(), before=NOBODY) == "False"


CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def test_a_container_that_lives_and_one_that_is_gone(xp: Experiment):
    with Run(xp, *needs(*CONTAINER)) as run:
        assert is_held(xp) is True, "by its lock: process ids mean nothing between containers"
        assert asked(xp, *CONTAINER) == "True"
        with pytest.raises(UserError, match="is running on"):
            claims.claim(xp)
        assert not claims.latest(xp).in_reach(), (
            "its id is another process's here: no signal may be sent to it"
        )
        run.kill()
    assert asked(xp, *CONTAINER) == "False", "started again, it goes on unasked"
    assert claims.claim(xp).attempt == 2


def test_a_container_on_a_disk_whose_locks_may_lie_cannot_be_asked(xp: Experiment, monkeypatch):
    with Run(xp, *needs(*CONTAINER)):
        pass
    assert is_held(xp) is False
    monkeypatch.setattr(machine, "is_local", lambda path: False)
    assert is_held(xp) is None


def test_a_container_without_a_proc_of_its_own(xp: Experiment):
    """What it sees in /proc are other processes, under the same numbers."""
    bare = needs("unshare", "--pid", "--fork", "--kill-child")
    with Run(xp, *bare) as run:
        assert asked(xp, *bare) == "True"
        assert is_held(xp) is True
        [inside] = psutil.Process(run.process.pid).children()
        join = needs("nsenter", "--pid", "--target", str(inside.pid))
        assert asked(xp, *join) == "True"
        assert asked(xp, *join, before=NOT_LOCAL) == "None", "nothing can be seen of it"


@pytest.mark.parametrize("answer", [True, False, None])
def test_a_job_whose_process_cannot_be_looked_at_is_asked_about(xp: Experiment, answer):
    """In a container without a lock: the scheduler knows."""
    with Run(xp):
        rewrite(xp, namespace="another container's", locked=False, job_id="8812")
        assert claims.holder(xp, lambda holder: answer)[1] is answer


def test_a_lock_is_believed_of_the_file_that_was_locked_alone(xp: Experiment):
    """A backup wrote the claim anew: that nobody has locked this file says nothing."""
    with Run(xp, *needs(*CONTAINER)):
        path = xp.attempts / "1.json"
        shutil.copy(path, xp.folder / "copy")
        os.replace(xp.folder / "copy", path)
        assert is_held(xp) is None


def test_a_file_system_without_locks(xp: Experiment):
    with Run(xp, before="def fcntl(*words): raise OSError\nclaims.fcntl.flock = fcntl"):
        assert claims.latest(xp).locked is False and is_held(xp) is True
        rewrite(xp, namespace="another container's")
        assert is_held(xp) is None


# --- folders that are copied, restored, moved ---


def test_a_copy_of_a_folder_is_free_while_its_original_runs(xp: Experiment, tmp_path: Path):
    with Run(xp):
        shutil.copytree(xp.folder, tmp_path / "copy" / xp.sig)
        copied = Experiment(tmp_path / "copy" / xp.sig)
        assert claims.latest(copied) is None and claims.holder(copied) == (None, False)
        assert claims.claim(copied).attempt == 2
        assert is_held(xp) is True


def restored(xp: Experiment) -> None:
    """By a backup: the same files under the same names, with other inodes."""
    shutil.copytree(xp.folder, xp.folder.with_suffix(".new"))
    xp.folder.rename(xp.folder.with_suffix(".old"))
    xp.folder.with_suffix(".new").rename(xp.folder)


def moved(xp: Experiment) -> None:
    """To another disk, with a link in its old place."""
    shutil.copytree(xp.folder.parent, xp.folder.parents[1] / "disk")
    shutil.rmtree(xp.folder.parent)
    xp.folder.parent.symlink_to(xp.folder.parents[1] / "disk")


@pytest.mark.parametrize("happens", [restored, moved])
def test_a_folder_that_is_rewritten_while_its_run_lives_stays_held(xp: Experiment, happens):
    with Run(xp) as run:
        happens(xp)
        assert is_held(xp) is True
        with pytest.raises(UserError, match="is running on"):
            claims.claim(xp)
        run.kill()
        assert claims.claim(xp).attempt == 2


def test_a_folder_that_was_moved_away_from_its_run_stays_held(xp: Experiment, tmp_path: Path):
    with Run(xp):
        shutil.copytree(xp.folder, tmp_path / "elsewhere" / xp.sig)
        shutil.rmtree(xp.folder)
        assert is_held(Experiment(tmp_path / "elsewhere" / xp.sig)) is True


def test_a_folder_that_came_from_another_machine(xp: Experiment, tmp_path: Path, monkeypatch):
    """On a disk of our own it is a copy.

    On a network's it may be that machine's, under another path.
    """
    with Run(xp):
        pass
    rewrite(xp, **ELSEWHERE)
    assert is_held(xp) is None
    shutil.copytree(xp.folder, tmp_path / "copy" / xp.sig)
    copied = Experiment(tmp_path / "copy" / xp.sig)
    assert claims.holder(copied) == (None, False)
    restored(xp)
    assert is_held(xp) is None, "the same place: that machine may write to it"
    monkeypatch.setattr(machine, "is_local", lambda path: False)
    assert is_held(copied) is None


@pytest.mark.parametrize(
    "happens, local, held",
    [(lambda xp: None, True, None), (restored, True, False), (restored, False, None)],
)
def test_a_claim_from_elsewhere_of_an_earlier_version(
    xp: Experiment, monkeypatch, happens, local, held
):
    """It does not name its folder. On a disk of ours another inode means a copy."""
    with Run(xp):
        pass
    rewrite(xp, old=True, host="node7", boot_id="of node7")
    happens(xp)
    monkeypatch.setattr(machine, "is_local", lambda path: local)
    assert is_held(xp) is held


# --- a Mac ---


def test_without_proc(xp: Experiment, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(machine, "PROC", tmp_path / "nowhere")
    monkeypatch.setattr(machine, "_sysctl", lambda name: f"what the Mac says of {name}")
    mac = "machine.PROC = Path('/nowhere'); machine._sysctl = lambda name: f'what the Mac says of {name}'"
    with Run(xp, before=mac) as run:
        last = claims.latest(xp)
        assert (last.ticks, last.namespace) == (None, "") and "bootsessionuuid" in last.boot_id
        assert is_held(xp) is True
        run.kill()
        assert is_held(xp) is False
    with Run(xp, before=mac):
        rewrite(xp, started=claims.latest(xp).started - 2)
        assert is_held(xp) is True, "the clock of a Mac was set: the lock tells"
        monkeypatch.setattr(machine, "is_local", lambda path: False)
        assert is_held(xp) is None


class Libc:
    """A Mac's."""

    def gethostuuid(self, raw, wait):
        raw.raw = bytes(range(16))
        return 0


def test_a_mac_names_its_boot_and_itself(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(machine, "PROC", tmp_path / "nowhere")
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: Libc())
    monkeypatch.setattr(machine, "MACHINE_ID", tmp_path / "nowhere")
    monkeypatch.setattr(machine, "_sysctl", lambda name: f"id of {name}")
    assert machine.boot_id() == "id of kern.bootsessionuuid"
    assert machine.machine_id() == "000102030405060708090a0b0c0d0e0f"
    (tmp_path / "id").write_text("of Linux\n")
    monkeypatch.setattr(machine, "MACHINE_ID", tmp_path / "id")
    assert machine.machine_id() == "of Linux"


def test_a_system_that_names_no_boot_goes_by_its_time(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(machine, "PROC", tmp_path / "nowhere")
    assert machine.boot_id() == str(int(psutil.boot_time()))
    assert Holder.here(1).alive() is True


# --- the order of attempts and submissions ---


def test_order_goes_by_numbers_and_only_without_them_by_clocks(xp: Experiment):
    with Run(xp):
        before = claims.latest(xp)
    assert before.submissions == 0
    behind = Job("t", "slurm", submitted=before.since - 300, number=1)  # by a clock that is late
    assert not before.is_after(behind) and replace(before, submissions=None).is_after(behind)
    assert xp.intend_job(replace(behind, submitted=time.time() + 300))
    with Run(xp):
        assert claims.latest(xp).submissions == 1 and claims.latest(xp).is_after(xp.job())


def test_where_a_file_lies():
    assert machine.is_local(ROOT / "nothing here") in (True, False)
    if Path("/proc").exists():
        assert not machine.is_local(Path("/proc/self")), "no disk"


def test_a_claim_that_comes_between_the_look_and_the_number_is_seen(xp: Experiment, monkeypatch):
    """Another process claims at the worst moment: it was looked for before, and is there now."""
    look = claims.refuse_if_held

    def slow(experiment: Experiment, ask=None) -> None:
        look(experiment, ask)
        monkeypatch.setattr(claims, "refuse_if_held", look)
        claims.claim(experiment)

    monkeypatch.setattr(claims, "refuse_if_held", slow)
    with pytest.raises(UserError):
        claims.claim(xp)
    assert xp.attempt_numbers() == [1]


def test_a_lock_that_cannot_be_asked_for_is_not_known(tmp_path: Path, monkeypatch):
    """Neither held nor free: on a file system without locks, other signs decide."""
    import fcntl

    def without(file: int, how: int) -> None:
        raise OSError(38, "Function not implemented")

    path = tmp_path / "1.json"
    path.touch()
    assert claims._is_locked(path) is False
    monkeypatch.setattr(fcntl, "flock", without)
    assert claims._is_locked(path) is None
