"""For scripts: `DORA_JSON=1`, and AGENTS.md, which documents its keys."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from experiments import experiment
from forked import Run
from project import QUICK, REPOSITORY, Project

from dora_train.engine import output
from dora_train.engine.errors import UserError, report_user_errors
from dora_train.engine.experiment.code import Code
from dora_train.engine.experiment.records import State
from dora_train.engine.experiment.snapshot import unpacked
from dora_train.engine.watch import json_lines
from dora_train.engine.watch.status import Status

PAGE = REPOSITORY / "AGENTS.md"
OF_GRIDS = {"grid", "action", "reason", "other_code"}


def records(text: str) -> list[dict[str, Any]]:
    """The lines of JSON among other lines."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture
def said(monkeypatch) -> io.StringIO:
    """What is printed as JSON. Words go to the standard error."""
    stream = io.StringIO()
    monkeypatch.setattr(output, "_for_json", [])
    monkeypatch.setattr(sys, "stdout", stream)
    output.keep_for_json()
    return stream


def test_the_page_documents_every_key(tmp_path: Path):
    """The states, too."""
    text = PAGE.read_text()
    table = text.partition("| key | value |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    keys = re.findall(r"`(\w+)`", " ".join(rows))
    described = json_lines.described(experiment(tmp_path, {"seed": 1}))
    assert set(keys) == {"command", *described} | OF_GRIDS and len(keys) == len(set(keys))
    assert all(f'"{state}"' in table for state in State)


def test_one_object_a_line(said: io.StringIO, tmp_path: Path, capsys):
    print("words")
    xp = experiment(tmp_path, {"seed": 1, "tag": "code@1a2b3c4d5e"}, acc=float("nan"))
    json_lines.say(
        "info", xp, Status(State.COMPLETED, where="node7, job 8"), more=(1, float("inf"))
    )
    json_lines.say("run", experiment(tmp_path, {"seed": 2}, state=State.FAILED, cause="why\nnot"))
    first, second = records(said.getvalue())
    assert len(said.getvalue().splitlines()) == 2 and "NaN" not in said.getvalue()
    assert (first["sig"], first["state"], first["where"]) == (xp.sig, "completed", "node7, job 8")
    assert first["tag"] == "code@1a2b3c4d5e" and first["overrides"]["seed"] == 1
    assert first["test"] == {"loss": None, "acc": None} and first["more"] == [1, None]
    assert (second["state"], second["cause"], second["test"]) == ("failed", "why\nnot", None)


def test_without_the_variable_there_are_words_alone(capsys, tmp_path: Path):
    json_lines.say("info", experiment(tmp_path, {"seed": 1}))
    assert capsys.readouterr().out == ""


def test_an_error_is_an_object(said: io.StringIO, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    report_user_errors()
    sys.excepthook(UserError, UserError("unknown key", "did you mean"), None)
    assert records(said.getvalue()) == [{"error": "unknown key\ndid you mean"}]


@pytest.mark.slow
def test_the_verbs(copy: Project):
    """As an agent calls them, with the two streams apart."""
    copy.env["DORA_JSON"] = "1"
    [ran] = records(copy.dora("run", *QUICK, "tag=@code"))
    assert ran["command"] == "run" and ran["state"] == "completed" and ran["attempt"] == 1
    assert ran["folder"] == str(copy.xp.folder) and ran["code"] == copy.xp.codes()[-1].code
    grid = "\n".join(
        [
            "from dora_train.explorers import MainMetrics\n\n\n@MainMetrics",
            "def explorer(launcher):",
            '    launcher.bind_({"debug": "fast", "tag": "@code"})',
            '    launcher()\n    launcher({"seed": 1})\n',
        ]
    )
    (copy.root / "grids" / "mine.py").write_text(grid)
    process = copy.start("dora", "grid", "mine", "--dry_run", stderr=subprocess.PIPE)
    out, error = process.communicate(timeout=120)
    first, second = map(json.loads, out.splitlines())
    assert first.keys() - ran.keys() == OF_GRIDS and "= 1 kept" in error
    assert (first["sig"], first["action"], first["state"]) == (ran["sig"], "kept", "completed")
    assert (second["action"], second["state"], second["grid"]) == ("new", "new", "mine")
    two = ["run", "-d", "--ddp_workers", "2", *QUICK, "tag=@code"]
    assert records(copy.dora(*two)) == [ran], "once, and not by each rank"
    [info] = records(copy.dora("info", "-f", ran["sig"]))
    moves = {"command", "where"}
    assert all(info[key] == ran[key] for key in ran.keys() - moves)
    [refused] = records(copy.dora("launch", "optim.lrr=1", code=1))
    assert refused["error"].startswith('unknown key "optim.lrr"')


AGENTS, EDITS = 4, 10
TINY = ["trainer.max_epochs=1", "trainer.limit_train_batches=3", "logger=[]", "threads=1"]
OFTEN = "checkpoint.every_minutes=0.000001"


@pytest.mark.slow
def test_four_agents_edit_forty_times(tmp_path: Path):
    """In four clones of one folder of results; ten of the runs are killed."""
    out = tmp_path / "outputs"
    env = {"DORA_JSON": "1"}
    clones = [Project(out, Project.copy(tmp_path / f"agent{at}").root, env) for at in range(AGENTS)]
    sources: dict[str, bytes] = {}
    kills = 0
    for edit in range(EDITS):
        runs = []
        for at, clone in enumerate(clones):
            module = clone.root / "dora_train/module.py"
            text = re.sub(r"\n\n\nEDIT = .*", "", module.read_text().rstrip())
            module.write_text(f'{text}\n\n\nEDIT = "{at} {edit}"\n')
            args = ["run", "debug=fast", "tag=@code", *TINY, OFTEN]
            fault = ("step", 2) if at == edit % AGENTS else None
            runs.append((clone, args, Run(clone, *args, fault=fault, folder=tmp_path)))
        for clone, args, run in runs:
            attempts = 1
            if run.wait() != 0:
                kills, attempts = kills + 1, 2
                run = Run(clone, *args, folder=tmp_path)
                assert run.wait() == 0, run.text
            [record] = records(run.text)
            assert (record["state"], record["attempt"]) == ("completed", attempts), run.text
            sources[record["sig"]] = (clone.root / "dora_train/module.py").read_bytes()
            assert record["code"]["hash"] == Code.of(clone.root).hash
    made = {xp.sig: xp for xp in clones[0].experiments()}
    assert kills == 10 and len(sources) == AGENTS * EDITS and made.keys() == sources.keys()
    tags = set()
    for sig, xp in made.items():
        [start] = xp.codes()
        files = unpacked(xp.code_archive(start.code["hash"]))
        assert files["dora_train/module.py"][0] == sources[sig]
        birth = xp.birth()
        assert birth is not None and xp.result() is not None
        tags.add(birth.config["tag"])
    assert len(tags) == AGENTS * EDITS
