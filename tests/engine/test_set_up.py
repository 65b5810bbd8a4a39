"""`make run` on a bare machine: uv or pip, pip's settings, and an environment that is whole or gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from dora_train.engine import set_up

PROGRAM = ROOT / "dora_train/engine/set_up.py"
SETTINGS = """\
:env:.cert='/etc/ssl/certs/ca.crt'
:env:.disable-pip-version-check='1'
global.index-url='https://one.example/simple'
global.extra-index-url='file:///a b/simple https://two.example/simple'
install.index-url='https://three.example/simple'
download.index-url='https://never.example'
:env:.default-timeout='180'
"""


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


# --- pip's settings in the words of uv ---


def test_uv_is_given_pip_s_settings():
    settings = set_up.settings_in(SETTINGS)
    assert settings["index-url"] == "https://three.example/simple"
    words, variables, unknown = set_up.of_uv(settings, ["-c", "constraints.txt", "-r", "some.txt"])
    assert words == [
        "--index-url",
        "https://three.example/simple",
        "--extra-index-url",
        "file:///a",
        "--extra-index-url",
        "b/simple",
        "--extra-index-url",
        "https://two.example/simple",
    ]
    assert variables == ["SSL_CERT_FILE=/etc/ssl/certs/ca.crt", "UV_HTTP_TIMEOUT=180"]
    assert unknown == ""


def test_a_setting_of_several_lines():
    """pip prints the `repr` of what pip.conf holds."""
    text = r"global.extra-index-url='\nhttps://a.example\nhttps://b.example'"
    assert set_up.settings_in(text) == {"extra-index-url": "https://a.example https://b.example"}


def test_the_command_counts_more_than_a_setting():
    settings = {"index-url": "https://one.example", "no-index": "true", "find-links": "/wheels"}
    words, _, _ = set_up.of_uv(settings, ["--index-url", "https://other.example"])
    assert words == ["--no-index", "--find-links", "/wheels"]
    assert set_up.of_uv({"no-index": "false"}, []) == ([], [], "")


@pytest.mark.parametrize(
    "settings, options, unknown",
    [
        ({"only-binary": ":all:"}, [], "pip's setting only-binary"),
        ({}, ["--require-hashes", "-r", "a.txt"], "--require-hashes"),
        ({}, ["--client-cert=a.pem"], "--client-cert"),
    ],
)
def test_pip_installs_what_uv_cannot(settings, options, unknown):
    assert set_up.of_uv(settings, options) == ([], [], unknown)


# --- the program ---


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """A machine with Python and nothing else on the path."""
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in ("sh", "env", "cat", "mkdir"):
        (bin / name).symlink_to(
            f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}"
        )
    return {
        "PATH": str(bin),
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PIP_CONFIG_FILE": os.devnull,
    }


def with_uv(machine: dict[str, str], folder: Path, *lines: str) -> None:
    """A uv that writes down its arguments, and makes an environment with a pip that knows its
    settings."""
    pip = "echo \"global.index-url='$PIP_INDEX_URL'\""
    script(
        Path(machine["PATH"]) / "uv",
        f'echo "$@" >> {folder}/asked',
        f"if [ $1 = venv ]; then mkdir -p {folder}/env/bin",
        f"cat > {folder}/env/bin/python <<'END'\n#!/bin/sh\n{pip}\nEND",
        f"/bin/chmod 755 {folder}/env/bin/python; exit 0; fi",
        *lines,
    )


def run(folder: Path, machine: dict[str, str], *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(PROGRAM), "env", *options],
        cwd=folder,
        env=machine,
        capture_output=True,
        text=True,
    )


def test_uv_is_used_where_it_is_on_the_path(tmp_path: Path, machine: dict[str, str]):
    with_uv(machine, tmp_path, "echo 'Resolved 3 packages'; echo ' + torch' >&2")
    done = run(tmp_path, machine, "-r", "requirements.txt")
    assert done.returncode == 0, done.stderr
    venv, install = (tmp_path / "asked").read_text().splitlines()
    assert venv == f"venv --quiet --seed --python {sys.executable} env"
    assert install == (
        "pip install --python env/bin/python --index-strategy unsafe-best-match --compile-bytecode "
        "--index-url https://mirror.example/simple -r requirements.txt"
    )
    first, last = done.stdout.splitlines()
    assert first == "installing with uv ..." and last.startswith("installed with uv in ")
    assert run(tmp_path, machine, "-r", "requirements.txt").returncode == 0
    assert "venv" not in (tmp_path / "asked").read_text().splitlines()[2], "it is there already"


def test_its_failure_is_shown(tmp_path: Path, machine: dict[str, str]):
    with_uv(machine, tmp_path, "echo no such package >&2; exit 2")
    done = run(tmp_path, machine, "nothing")
    assert done.returncode == 1 and "no such package" in done.stdout
    assert "uv could not install: env" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_without_uv_pip_installs(tmp_path: Path, machine: dict[str, str]):
    (tmp_path / "none.txt").write_text("")
    done = run(tmp_path, machine, "-r", "none.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("installing with pip ...\ninstalled with pip in ")
    assert (tmp_path / "env/bin/pip").exists()


@pytest.mark.parametrize("said", ["ensurepip is not available.", "no space left on device"])
def test_a_half_made_environment_is_removed(tmp_path: Path, monkeypatch, said):
    python = script(
        tmp_path / "python3", "mkdir -p $3/bin; > $3/bin/python", f'echo "{said}"; exit 1'
    )
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(SystemExit) as left:
        set_up.make(tmp_path / "env", None)
    assert not (tmp_path / "env").exists()
    if "ensurepip" in said:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        assert f"apt-get install python{version}-venv, and the same command again" in str(
            left.value
        )
    else:
        assert said in str(left.value)


@pytest.mark.slow
def test_one_without_pip_is_made_again(tmp_path: Path, machine: dict[str, str]):
    """As an earlier version left it where python3-venv is missing."""
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/python").symlink_to(sys.executable)
    (tmp_path / "none.txt").write_text("")
    done = run(tmp_path, machine, "-r", "none.txt")
    assert done.returncode == 0 and (tmp_path / "env/bin/pip").exists(), done.stdout + done.stderr


def test_a_terminal_has_one_line(tmp_path: Path, machine: dict[str, str]):
    pty = pytest.importorskip("pty")
    with_uv(machine, tmp_path, "echo first; echo second")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "env"], cwd=tmp_path, env=machine, stdout=theirs
    ) as process:
        process.wait()
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\r\x1b[Kinstalling with uv: first\r\x1b[Kinstalling with uv: second\r\x1b[K" in text
    assert text.count("\n") == 1 and "installed with uv in" in text
