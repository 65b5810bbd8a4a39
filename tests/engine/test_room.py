"""What a run does if the disk is full."""

import errno

import pytest

from dora_train.engine.errors import UserError
from dora_train.engine.run import room as module
from dora_train.engine.run.room import Room, minutes_to_wait
from dora_train.engine.run.signals import Interrupted, Signals


class Disk:
    """A disk that is full for some writes."""

    def __init__(self, times: int, number: int = errno.ENOSPC):
        self.times, self.number, self.writes = times, number, 0

    def write(self) -> str:
        self.writes += 1
        if self.writes <= self.times:
            raise OSError(self.number, "as it is")
        return "written"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes a room. Its clock goes on by the seconds of each pause."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    lines: list[str] = []

    def make(minutes: float, signals: Signals | None = None) -> tuple[Room, list[str]]:
        return Room(tmp_path, minutes, lines.append, signals or Signals()), lines

    return make


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_it_waits_says_so_once_and_goes_on(made, number):
    room, lines = made(1)
    disk = Disk(20, number)
    assert room.keep(disk.write) == "written" and disk.writes == 21
    assert len(lines) == 2 and "up to 1 minutes (DORA_DISK_WAIT)" in lines[0]
    assert "goes on" in lines[1] and room.left == 40


@pytest.mark.parametrize("minutes, writes", [(0, 1), (1, 61)])
def test_after_that_time_it_leaves_as_without(made, minutes, writes):
    room, _ = made(minutes)
    disk = Disk(1000)
    with pytest.raises(OSError):
        room.keep(disk.write)
    assert disk.writes == writes
    with pytest.raises(OSError):
        room.keep(disk.write)
    assert disk.writes == writes + 1, "the time is for the whole run"


@pytest.mark.parametrize("number", [errno.EIO, errno.EFBIG])
def test_other_errors_do_not_wait(made, number):
    room, lines = made(1)
    with pytest.raises(OSError):
        room.keep(Disk(1, number).write)
    assert not lines


def test_an_error_for_the_user_that_a_full_disk_led_to(made):
    room, lines = made(1)
    disk = Disk(1)

    def write():
        try:
            return disk.write()
        except OSError as error:
            raise UserError("cannot write last.ckpt") from error

    assert room.keep(write) == "written" and len(lines) == 2


def test_a_signal_ends_the_waiting(made):
    signals = Signals()
    room, _ = made(1, signals)
    signals.signum = 15
    with pytest.raises(Interrupted):
        room.keep(Disk(1000).write)


def test_a_line_of_a_logger_waits_for_room(made, tmp_path, monkeypatch):
    room, lines = made(1)
    disk = Disk(3)
    monkeypatch.setattr(module.os, "fsync", lambda file: disk.write())
    room.ensure()
    assert disk.writes == 4 and not list(tmp_path.iterdir())
    room, _ = made(0)
    room.ensure()
    assert disk.writes == 4, "without DORA_DISK_WAIT it costs nothing"


@pytest.mark.parametrize("text, minutes", [("", 0.0), ("30", 30.0), ("0.5", 0.5)])
def test_the_variable(monkeypatch, text, minutes):
    monkeypatch.setenv("DORA_DISK_WAIT", text)
    assert minutes_to_wait() == minutes


@pytest.mark.parametrize("text", ["ten", "-1", "inf", "nan"])
def test_a_value_that_is_no_time(monkeypatch, text):
    monkeypatch.setenv("DORA_DISK_WAIT", text)
    with pytest.raises(UserError, match="it takes minutes"):
        minutes_to_wait()
