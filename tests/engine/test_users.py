"""Two users with one outputs folder: what one keeps private is named to the other, with its owner.

Tests run as root, too, who may read everything. So the reader loses that right, and the folders get
another owner.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from experiments import experiment, sweep
from project import BIN, ROOT, Project

from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import State

NOBODY = 65534
AS_OTHERS = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)


def run(out: Path, *command: str) -> tuple[int, str]:
    """(exit code, output) of a command by a user who may read what the others may."""
    done = subprocess.run(
        [*AS_OTHERS, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "DORA_DIR": str(out), "DORA_QUEUE": f"{out}.queue"},
    )
    return done.returncode, done.stdout + done.stderr


def python(out: Path, line: str) -> str:
    """What a line of Python prints, with `out` for the folder."""
    code = f"""
import sys
from pathlib import Path
from dora_train.engine.experiment import claims, find
from dora_train.engine.errors import UserError
from dora_train.engine.watch import info, status
out = Path(sys.argv[1])
try:
    print({line})
except UserError as error:
    print(error)
"""
    code_, output = run(out, sys.executable, "-c", code, str(out))
    assert code_ == 0, output
    return output.strip()


def give_away(folder: Path) -> None:
    """To another user, if we may."""
    for path in [folder, *folder.rglob("*")] if os.geteuid() == 0 else ():
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


CLOSED: dict[str, Callable[[Experiment, Path], Path]] = {
    "experiment": lambda xp, out: xp.folder,
    "its attempts": lambda xp, out: xp.attempts,
    "its jobs": lambda xp, out: xp.jobs,
    "its state": lambda xp, out: xp.folder / "state.json",
    "all experiments": lambda xp, out: out / "xps",
    "everything": lambda xp, out: out,
}


@pytest.mark.parametrize("what", CLOSED)
def test_what_is_closed_is_named_with_its_owner_and_never_taken_for_missing(
    tmp_path: Path, what: str
):
    out = tmp_path / "out"
    xp = experiment(out, {"seed": 1}, state=State.RUNNING)
    xp.attempts.mkdir()
    xp.jobs.mkdir()
    give_away(out)
    closed = CLOSED[what](xp, out)
    closed.chmod(0)
    try:
        said = python(out, f"status.look([find.find(out, {xp.sig!r})], None)")
    finally:
        closed.chmod(0o755)
    owner = "nobody" if os.geteuid() == 0 else closed.owner()
    assert said.startswith(f"you may not read {closed}, which belongs to {owner}.")
    whole = closed if closed in (out, out / "xps") else xp.folder
    assert f"chmod -R go+rX {whole} " in said and len(said.splitlines()) == 2


def test_lists_leave_out_what_is_closed_and_say_so(tmp_path: Path):
    mine, theirs = sweep(tmp_path, rates=1, seeds=2)
    give_away(theirs.folder)
    theirs.folder.chmod(0)
    try:
        code, said = run(tmp_path, sys.executable, "-m", "dora_train.report")
        job = python(tmp_path, "info.find_job(out, '8812')")
    finally:
        theirs.folder.chmod(0o755)
    assert (
        code == 0
        and mine.sig in said
        and f"left out, as you may not read them: {theirs.sig}." in said
    )
    assert job.splitlines() == [
        f'no experiment under {tmp_path} was job "8812".',
        f"you may not read: {theirs.sig}.",
    ]


@pytest.mark.slow
def test_no_verb_shows_a_traceback(project: Project):
    words = ["debug=fast", "threads=1"]
    project.dora("run", *words)
    xp = project.xp
    give_away(project.out)
    xp.folder.chmod(0o700 if AS_OTHERS else 0)
    for command in (
        ["run", *words],
        ["launch", *words],
        ["info", "-f", xp.sig],
        ["export", xp.sig],
    ):
        code, said = run(project.out, str(BIN / "dora"), *command)
        assert code == 1 and said.startswith(f"you may not read {xp.folder}, which belongs to "), (
            command
        )
    xp.folder.chmod(0o755)
    xp.write_state(replace(xp.state(), state=State.INTERRUPTED))
    xp.folder.chmod(0o555)
    code, said = run(project.out, str(BIN / "dora"), "run", *words)
    xp.folder.chmod(0o755)
    assert code == 1 and said.startswith(f"you may not write into {xp.folder}, which belongs to ")
