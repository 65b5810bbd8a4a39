"""What a command prints may be lost, or hold letters that cannot be shown: no training ends."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from experiments import experiment
from forked import Run
from project import QUICK, ROOT, Project

from dora_train.engine.experiment.records import Job, State
from dora_train.engine.run.signals import CAUGHT
from dora_train.engine.shell import as_typed, typed

PRINTS = """
import sys
from dora_train.engine import output
from dora_train.engine.errors import report_user_errors
output.prepare(never_fails="never fails" in sys.argv)
report_user_errors()
{}
"""


def python(
    code: str, redirected: str = "", *args: str, **env: str
) -> subprocess.CompletedProcess[bytes]:
    """A command of ours that runs `code`, with the shell's redirections."""
    shell = f'exec "$0" -c "$@" {redirected}'
    return subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable, PRINTS.format(code), *args],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, **env},
    )


# --- letters ---


@pytest.mark.parametrize(
    "encoding, shown",
    [
        ("utf-8", "a · b │ c ± é ?".encode()),
        ("latin-1", "a · b | c ± é ?".encode("latin-1")),
        ("ascii", b"a - b | c +- ? ?"),
    ],
)
def test_letters_that_an_encoding_lacks(encoding: str, shown: bytes):
    done = python("print('a · b │ c ± é \\udce9')", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout, done.stderr) == (0, shown + b"\n", b"")


def test_a_run_whose_output_is_ascii(project: Project):
    project.env["PYTHONIOENCODING"] = "ascii"
    run = Run(project, "run", *QUICK)
    assert run.wait() == 0, run.text
    assert (
        "finished - best valid acc" in run.text
        and " | valid loss" in run.text
        and run.text.isascii()
    )
    assert "finished · best valid acc" in project.xp.log.read_text("utf-8"), (
        "the log has the letters themselves"
    )
    again = Run(project, "run", *QUICK)
    assert again.wait() == 0 and "- nothing to do - to run anew" in again.text


def test_an_override_that_cannot_be_decoded(project: Project):
    run = Run(project, "run", "tag=caf\udce9", *QUICK)
    assert run.wait() == 1
    assert (
        run.text.splitlines()[0]
        == '"tag=caf?" is not valid text in the encoding of this system (utf-8).'
    )
    assert len(run.text.splitlines()) == 2 and not project.out.exists()


def test_a_folder_of_outputs_that_cannot_be_decoded(project: Project, tmp_path: Path):
    project.env["DORA_DIR"] = f"{tmp_path}/caf\udce9"
    run = Run(project, "run", *QUICK)
    assert run.wait() == 1 and "DORA_DIR=folder" in run.text and len(run.text.splitlines()) == 2, (
        run.text
    )


# --- an output that is lost ---


@pytest.mark.parametrize(
    "redirected, said",
    [
        (">/dev/full", b"cannot write the output: No space left on device.\n"),
        ("| true", b""),
        ("2>/dev/full | true", b""),
    ],
)
def test_a_command_says_that_its_output_is_lost(redirected: str, said: bytes):
    done = python("for _ in range(100_000): print('word')", redirected)
    assert done.stderr == said and b"Traceback" not in done.stdout
    assert done.returncode == (1 if redirected.startswith(">") else 0), "of the pipe's last command"


@pytest.mark.parametrize(
    "redirected", [">/dev/full", ">&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "2>/dev/full"]
)
def test_work_goes_on_without_its_output(redirected: str, tmp_path: Path):
    done = python(
        f"for word in 'abc': print(word); print(word, file=sys.stderr)\n"
        f"open({str(tmp_path / 'done')!r}, 'w')",
        redirected,
        "never fails",
    )
    assert (tmp_path / "done").exists() and done.returncode == 0 and b"Traceback" not in done.stderr


def test_no_file_becomes_the_output(tmp_path: Path):
    """A checkpoint that is opened while descriptor 1 is free would hold what a library prints."""
    code = f"""
import os
file = open({str(tmp_path / "file")!r}, "w")
os.write(1, b"noise")
file.write("content")
"""
    assert python(code, "<&- >&- 2>&-").returncode == 0
    assert (tmp_path / "file").read_text() == "content"


@pytest.mark.parametrize("onto", ["/dev/full", "closed"])
def test_a_run_without_its_output(onto: str, project: Project):
    assert Run(project, "run", *QUICK, onto=onto).wait() == 0
    assert (
        project.xp.state().state is State.COMPLETED
        and "finished · best" in project.xp.log.read_text("utf-8")
    )


@pytest.mark.slow
def test_a_job_without_its_output(tmp_path: Path):
    made = experiment(tmp_path, {"seed": 1})
    made.intend_job(Job("of another submission", "local", 0.0, number=1))
    with open("/dev/full", "w") as full:
        job = [sys.executable, str(ROOT / "dora_train/engine/job.py"), str(made.folder), "token"]
        assert subprocess.run(job, cwd=ROOT, stdout=full).returncode == 0


@contextmanager
def terminal() -> Iterator[tuple[str, Callable[[], None]]]:
    """The name of a terminal, and what closes it."""
    outer, inner = pty.openpty()
    with open(outer, "wb", 0) as master, open(inner, "wb", 0):
        yield os.ttyname(inner), master.close


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a run", "under nohup"])
def test_a_terminal_that_is_closed(name: str, project: Project):
    """SIGHUP: a checkpoint at the next step. Under `nohup` the run continues unseen."""
    with terminal() as (path, close):
        ignored = (signal.SIGHUP,) if name == "under nohup" else ()
        run = Run(project, "run", "trainer.max_epochs=8", "threads=1", onto=path, ignored=ignored)
        while not any(xp.history() for xp in project.experiments()):
            assert run.poll() is None, run.text
            time.sleep(0.01)
        close()
        code = run.wait()
    state = project.xp.state()
    if ignored:
        assert (code, state.state) == (0, State.COMPLETED)
        return
    assert (code, state.state, state.cause) == (129, State.INTERRUPTED, "interrupted by SIGHUP")
    assert "interrupted by SIGHUP" in project.xp.log.read_text("utf-8")
    again = Run(project, "run", "trainer.max_epochs=8", "threads=1")
    assert again.wait() == 0 and "resumes at epoch" in again.text, again.text


# --- signals ---


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGPWR"])
def test_every_signal_leaves_a_checkpoint(name: str, project: Project):
    if not hasattr(signal, name):
        pytest.skip(f"this system has no {name}")
    signum = getattr(signal, name)
    run = Run(project, "run", "trainer.max_epochs=3", "threads=1", fault=("train", 25, signum))
    assert run.wait() == 128 + signum, run.text
    assert project.xp.state().cause == f"interrupted by {signum.name}"
    again = Run(project, "run", "trainer.max_epochs=3", "threads=1")
    assert again.wait() == 0 and "resumed at epoch 2, batch 7 of 19" in again.text, again.text


def test_a_way_out_is_left():
    """Ctrl-\\ ends a run that hangs in a step, where the flag of the others is never looked at."""
    assert signal.SIGQUIT not in CAUGHT and signal.SIGTSTP not in CAUGHT


# --- the commands that are printed ---


def test_a_command_as_it_can_be_typed(tmp_path: Path, monkeypatch):
    for folder in ("env/bin", "other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dora").write_text("#!/bin/sh\n")
        (tmp_path / folder / "dora").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env/bin/python"))
    for path, expected in [
        ("env/bin", "dora"),
        ("nowhere", "env/bin/dora"),
        ("other", "env/bin/dora"),
    ]:
        monkeypatch.setenv("PATH", str(tmp_path / path))
        assert typed() == expected
    assert typed("tensorboard") == "tensorboard", "an environment without it"


@pytest.mark.slow
def test_the_next_command_works_as_it_is_printed(project: Project):
    """As after `make run`: the environment is not active."""
    project.env["PATH"] = os.pathsep.join(
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not (Path(folder) / "dora").exists()
    )
    assert shutil.which("dora", path=project.env["PATH"]) is None
    run = Run(project, "run", *QUICK)
    assert run.wait() == 0
    look = next(line for line in run.text.splitlines() if line.startswith("look "))
    command = look.removeprefix("look").partition("     folder ")[0]
    done = subprocess.run(
        command, shell=True, cwd=project.root, env=project.env, capture_output=True, text=True
    )
    assert done.returncode == 0 and "completed" in done.stdout, done.stderr


@pytest.mark.parametrize("active", [False, True])
def test_make_run_ends_with_how_to_go_on(active: bool, tmp_path: Path):
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "dora").write_text("#!/bin/sh\necho trained\n")
    (programs / "dora").chmod(0o755)
    (tmp_path / "venv" / ".run").touch()
    path = f"{programs if active else tmp_path}:/usr/bin:/bin"
    done = subprocess.run(
        ["make", "--no-print-directory", "run", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={**os.environ, "PATH": path},
        check=True,
    )
    last = done.stdout.splitlines()[-1]
    assert last == "trained" if active else last.endswith(f"source {programs}/activate")


@pytest.mark.parametrize(
    "args", [["info", "-f", "XP"], ["export", "XP"], ["grid", "mysweep", "--dry_run"]]
)
def test_verbs_that_only_look(args: list[str], project: Project):
    project.env |= {"DORA_CLUSTER": "local", "PYTHONIOENCODING": "ascii"}
    assert Run(project, "run", *QUICK).wait() == 0
    words = [project.xp.sig if word == "XP" else word for word in args]
    run = Run(project, *words)
    assert run.wait() == 0 and run.text.isascii() and "Traceback" not in run.text
    assert Run(project, *words, onto="/dev/full").wait() == 1
    assert Run(project, *words, onto="closed").wait() == 0


@pytest.mark.parametrize(
    "message, shown",
    [
        (
            "again: dora run -f 5f3a     or dora grid mine --retry",
            "again: bin/dora run -f 5f3a     or bin/dora grid mine --retry",
        ),
        ("DORA_TAKE=1 dora launch", "DORA_TAKE=1 bin/dora launch"),
        ("/env/bin/dora run", "/env/bin/dora run"),
        ("of dora.Explorer; dora is here", "of dora.Explorer; dora is here"),
    ],
)
def test_a_refusal_names_commands_as_they_can_be_typed(message: str, shown: str, monkeypatch):
    monkeypatch.setattr("dora_train.engine.shell.typed", lambda: "bin/dora")
    assert as_typed(message) == shown
