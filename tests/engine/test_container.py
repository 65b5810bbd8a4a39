"""What containers often lack: a home folder, and a name for the user."""

from __future__ import annotations

import pwd
import tempfile
from pathlib import Path

import pytest

from dora_train.engine.experiment import claims
from dora_train.engine.jobs.queue.executor import Local, place


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id without an entry in /etc/passwd, and none of the variables that would tell."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_STATE_HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "DORA_QUEUE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_the_queue_lies_in_a_temporary_folder(
    nobody: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert place().is_relative_to(tmp_path) and place().is_absolute()
    assert not Local().missing()


def test_a_state_folder_that_is_named_by_the_home_is_none(
    nobody: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_STATE_HOME", "~/state")
    assert "~" not in str(place())


def test_the_user_is_a_number(nobody: None):
    assert claims.user_name().isdigit()
