"""This machine and its processes: how to identify them, and whether a process still runs.

The answers do not change if the clock is set or the host gets another name. `claims.py` and the
local queue ask here.
"""

import ctypes
import gc
import getpass
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

PROC, MACHINE_ID = Path("/proc"), Path("/etc/machine-id")  # absent on macOS
SYSCTL = "/usr/sbin/sysctl"
SAME_START = 0.05  # seconds: kernels round the start of a process to a tick of 10 ms
DAY = 86_400.0  # seconds: no clock is set by more while a process runs
# File systems that one kernel alone can mount. All processes that see a file there see its locks.
LOCAL = {
    "apfs",
    "bcachefs",
    "btrfs",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hfs",
    "jfs",
    "overlay",
    "reiserfs",
    "tmpfs",
    "xfs",
    "zfs",
}


def user_name() -> str:
    """The user's name. `os.getlogin` would fail in containers and cron jobs."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for this user id
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def boot_id() -> str:
    """The kernel's own id of this boot. It is another one after each restart."""
    found = _read(PROC / "sys/kernel/random/boot_id") or _sysctl("kern.bootsessionuuid")
    if found:
        return found
    import psutil

    return str(int(psutil.boot_time()))


def machine_id() -> str:
    """An id that stays if the machine restarts or gets another name. Empty in most containers."""
    return _read(MACHINE_ID) or _host_uuid()


def namespace() -> str:
    """The namespace of process ids: each container has its own. Empty if the system knows none."""
    try:
        return os.readlink(PROC / "self/ns/pid")
    except OSError:
        return ""


def is_local(path: Path) -> bool:
    """Whether `path` lies on a disk of this machine.

    On a network's disk, locks and inode numbers prove nothing.
    """
    import psutil

    real = _as_on_disk(os.path.realpath(path))
    disks = psutil.disk_partitions(all=True)
    # The innermost mount counts. Of two at one place, the last one hides the other.
    holding = [disk for disk in disks if real.startswith(_as_on_disk(disk.mountpoint))]
    holding.sort(key=lambda disk: len(disk.mountpoint))
    return bool(holding) and holding[-1].fstype in LOCAL


def _as_on_disk(folder: str) -> str:
    """A folder with a slash at its end. A Mac's disk takes both cases of a letter for the same."""
    folder = os.path.join(folder, "")
    return folder.casefold() if sys.platform == "darwin" else folder


def wrote_elsewhere(folder: str, boot: str, here: Path) -> bool:
    """Whether the process that wrote to `folder` wrote to another place than `here`.

    Then `here` is a copy. A folder that was moved, or restored from a backup, is no copy.

    Args:
        folder: its real path, as the writer saw it. Empty if the writer did not store it.
        boot: `boot_id` of the writer's machine.
    """
    if boot == boot_id():  # a folder that does not exist any more may have been moved here
        return os.path.exists(folder) and not _is_same(folder, here)
    # On a network's disk, each machine may have another path to one place. On a local disk, the
    # path has to be the same.
    return os.path.realpath(here) != folder and is_local(here)


def _is_same(one: str, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


# --- processes ---


def own_start() -> tuple[int | None, float]:
    """The time at which this process started.

    Returns:
        (ticks of the clock that counts from the boot, seconds since the epoch). The seconds change
        if the clock is set, as they depend on the time of the boot. The ticks are None on a system
        without /proc.
    """
    import psutil

    status = _status("self")
    if status is None:
        return None, psutil.Process().create_time()
    return status[1] - _ticks_ahead(), psutil.boot_time() + status[1] / _ticks_per_second()


def lives(pid: int, ticks: int | None, started: float) -> bool | None:
    """Whether a process that was started at a known time still runs.

    Args:
        ticks, started: its `own_start`. Without ticks, the seconds are compared.

    Returns:
        None if a process of this id exists and may be another one: it is hidden (`hidepid`), or
        only the seconds are known and the clock may have been set since.
    """
    if not _exists(pid):
        return False
    if PROC.exists() and not _proc_is_ours():
        return None
    status = _status(pid)
    if status is not None and status[0] in "ZX":  # a zombie: its parent has yet to read its exit
        return False
    if status is not None and ticks is not None:
        return abs(status[1] - _ticks_ahead() - ticks) <= 1
    return _started_at(pid, started)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's, which /proc may hide
        return True
    return True


def _proc_is_ours() -> bool:
    """Whether /proc has the process ids of this namespace. After `unshare --pid` it may not."""
    try:
        return os.readlink(PROC / "self") == str(os.getpid())
    except OSError:
        return False


def _status(pid: int | str) -> tuple[str, int] | None:
    """(state, start in ticks since the boot) of /proc/PID/stat. None if that cannot be read."""
    line = _read(PROC / str(pid) / "stat")
    # The name of the program stands before the last ")". It may hold any letter.
    fields = line.rpartition(")")[2].split()
    if len(fields) < 20:
        return None
    return fields[0], int(fields[19])


def _ticks_ahead() -> int:
    """The ticks by which the time namespace of this process shifts the times in /proc."""
    for line in _read(PROC / "self/timens_offsets").splitlines():
        name, seconds, nanoseconds = line.split()
        if name == "boottime":
            return round((int(seconds) + int(nanoseconds) / 1e9) * _ticks_per_second())
    return 0


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")


def _started_at(pid: int, started: float) -> bool | None:
    """Whether a process was started at this time, by the wall clock.

    None if the two times are near: the clock may have been set since.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        difference = abs(process.create_time() - started)
    except psutil.Error:
        return None
    if difference < SAME_START:
        return True
    if difference < DAY:
        return None
    return False


# --- this process ---


@contextmanager
def without_collections() -> Iterator[None]:
    """Let Python not look for cycles again and again while thousands of experiments are read.

    Nor later among what was made here, which is freed when nothing refers to it, as ever.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()


# --- the system ---


def forks_survive() -> bool:
    """Whether a fork of a process can use the libraries that it has imported.

    On macOS, the system's own libraries do not survive a fork.
    """
    return sys.platform == "linux"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


@cache
def _sysctl(name: str) -> str:
    """A setting of macOS that stays until the next boot. Empty on other systems."""
    try:
        done = subprocess.run([SYSCTL, "-n", name], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if done.returncode != 0:
        return ""
    return done.stdout.strip()


def _host_uuid() -> str:
    """The id of a Mac's hardware. Empty on other systems."""
    try:
        call = ctypes.CDLL(None).gethostuuid
    except (OSError, AttributeError):
        return ""
    raw, wait = ctypes.create_string_buffer(16), (ctypes.c_long * 2)(1, 0)  # one second
    failed = call(raw, wait)
    if failed:
        return ""
    return raw.raw.hex()
