"""Code that counts (`tag=@code`), and code that does not count and is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from dora.conf import SubmitRules
from experiments import experiment
from project import QUICK, Project, sig_of
from test_plan import ME, decided
from test_project import tree

from dora_train import snapshots as command
from dora_train.engine.errors import UserError
from dora_train.engine.experiment import todays_code as todays_module
from dora_train.engine.experiment.code import Code
from dora_train.engine.experiment.counted_code import conf_parts, python_parts, tag_of
from dora_train.engine.experiment.records import RunState, Start, State
from dora_train.engine.experiment.snapshot import packed
from dora_train.engine.experiment.todays_code import TodaysCode
from dora_train.engine.grid.plan import Known, Wanted, make_plan
from dora_train.engine.grid.show import print_plan
from dora_train.engine.grid.table import Row
from dora_train.engine.watch.status import Status
from dora_train.train import main

MAIN = "app/train.py"
LOSS = '''"""The loss."""

from torch.nn import functional as F


def loss(output, target):
    """A docstring."""
    return F.mse_loss(output, target, reduction="mean")  # a comment
'''


def files(**contents: str) -> dict[str, tuple[bytes, bool]]:
    """A project of these files: `app__loss`, or `app/loss`, is `app/loss.py`."""
    found = {}
    for name, text in contents.items():
        path = name if "/" in name else name.replace("__", "/")
        found[f"{path}.py"] = (text.encode(), False)
    found["app/__init__.py"] = (b"", False)
    return found


def counted(values: dict | None = None, **contents: str) -> set[str]:
    """The files that count, less the module that the run starts in."""
    return set(python_parts(files(**contents), MAIN, values or {})) - {MAIN, "app/__init__.py"}


# --- what counts ---


@pytest.mark.parametrize(
    "before, after, same",
    [
        ("# a comment", "# another comment", True),
        ("A docstring.", "Another docstring.", True),
        ("The loss.", "Another loss.", True),
        ('    """A docstring."""\n', "", True),
        ("loss(output, target):\n", "loss(\n    output,\n    target,\n):\n\n", True),
        ('"mean"', "'mean'", True),
        ('"mean"', '"sum"', False),
        ("mse_loss", "l1_loss", False),
        ("def loss(", "def loss_(", False),
        ("(output, target, red", "(target, output, red", False),
        ("return F", "return 2 * F", False),
    ],
)
def test_the_meaning_of_a_file_counts(before: str, after: str, same: bool):
    assert before in LOSS
    edited = LOSS.replace(before, after, 1)
    start = "from .loss import loss"
    one = python_parts(files(app__train=start, app__loss=LOSS), MAIN, {})
    other = python_parts(files(app__train=start, app__loss=edited), MAIN, {})
    assert (tag_of(one) == tag_of(other)) is same
    assert one.keys() == {MAIN, "app/loss.py", "app/__init__.py"}


def test_a_file_that_is_no_python_counts_by_its_bytes():
    assert counted(app__train="from . import odd", app__odd="def (") == {"app/odd.py"}
    compiled = files(app__train="import app.fast") | {"app/fast.cpython-311.so": (b"\0", False)}
    assert "app/fast.cpython-311.so" in python_parts(compiled, MAIN, {})


@pytest.mark.parametrize(
    "start",
    [
        "import app.loss",
        "import app.loss as it",
        "from app import loss",
        "from app.loss import loss",
        "from . import loss",
        "from .loss import *",
        "def main():\n    from .loss import loss",
        "try:\n    from . import other\nexcept ImportError:\n    from . import loss",
        "from .through import x",
        "class A:\n    def f(self):\n        import app.loss",
    ],
)
def test_a_module_that_a_run_may_import_counts(start: str):
    found = counted(app__train=start, app__loss=LOSS, app__through="from .loss import loss")
    assert found - {"app/through.py"} == {"app/loss.py"}


@pytest.mark.parametrize(
    "start",
    [
        "",
        "import loss",
        "from ..app2 import loss",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import loss",
        "from .engine_room import loss",
    ],
)
def test_a_module_that_no_run_imports_does_not_count(start: str):
    assert "app/loss.py" not in counted(app__train=start, app__loss=LOSS, tests__loss=LOSS)


def test_a_value_of_the_configuration_may_name_a_module():
    contents = {
        "app__train": "from .tasks import load",
        "app/tasks/__init__": "from importlib import import_module\ndef load(n):\n    import_module(n)",
        "app/tasks/text": "from . import words",
        "app/tasks/words": "",
        "app/tasks/tabular": "",
        "mine": "",
    }
    assert counted(None, **contents) == {"app/tasks/__init__.py"}
    named = counted({"task": "text"}, **contents)
    assert named == {f"app/tasks/{name}.py" for name in ("__init__", "text", "words")}
    callback = {"callbacks": [{"_target_": "mine.Callback", "path": "tabular/x", "n": 3}]}
    assert "mine.py" in counted(callback, **contents)


def test_a_package_that_only_surrounds_a_module_counts_without_its_functions():
    contents = {
        "app__train": "import lib.loss",
        "lib/__init__": "from . import names\ndef load():\n    from . import lazy",
        "lib__loss": LOSS,
        "lib__names": "",
        "lib__lazy": "",
    }
    assert counted(**contents) == {"lib/__init__.py", "lib/loss.py", "lib/names.py"}


def test_files_beside_a_module_count():
    """A vocabulary, or the source of an operator. Not those at the root, such as requirements."""
    project = files(app__train="from .ops import fast", app__ops="")
    project |= {
        "app/kernel.cu": (b"", False),
        "setup.cfg": (b"", False),
        "other/x.txt": (b"", False),
    }
    assert set(python_parts(project, MAIN, {})) - {MAIN} == {
        "app/__init__.py",
        "app/ops.py",
        "app/kernel.cu",
    }


def test_of_the_engine_only_what_runs_counts():
    start = (
        "from dora_train.engine.run.trainer import train\nfrom dora_train.engine.grid import sync"
    )
    project = files(app__train=start)
    for path in ("run/trainer", "grid/sync", "jobs/queue"):
        project[f"dora_train/engine/{path}.py"] = (b"import dora_train.engine.jobs.queue", False)
    assert set(python_parts(project, MAIN, {})) == {
        MAIN,
        "app/__init__.py",
        "dora_train/engine/run/trainer.py",
    }


def conf(
    text: str, name: str = "config.yaml", exclude: tuple[str, ...] = ("threads", "data.folder")
):
    return conf_parts({f"conf/{name}": (text.encode(), False)}, "conf", exclude)


def test_the_values_of_the_configuration_count():
    base = "optim:\n  lr: 0.1\nthreads: 2\nseed: 1\n"
    for same in (
        base + "# a comment\n",
        base.replace("threads: 2", "threads: 3"),
        "seed: 1  # first\noptim: {lr: 0.1}\n",
    ):
        assert conf(base) == conf(same)
    for other in (base.replace("0.1", "0.2"), base.replace("seed: 1\n", ""), base + "new: 1\n"):
        assert conf(base) != conf(other)
    assert conf("folder: a", "data/x.yaml") == conf("folder: b", "data/x.yaml")
    assert conf("folder: a", "other/x.yaml") != conf("folder: b", "other/x.yaml")
    # Hydra's comment with the package counts, and says where the keys land
    header = "# @package data\n"
    assert conf(header + "folder: a", "x.yaml") == conf(header + "folder: b", "x.yaml")
    odd = ["[1]", "", "a: [", "1: {2: 3}", "\0"]
    assert len({str(conf(text)) for text in odd}) == len(odd)


def test_a_recipe_counts_by_its_values():
    """Its name and the same values typed by hand are one experiment, also with a tag."""
    assert conf("optim: {lr: 1}", "experiment/mine.yaml") == {}


# --- the tag ---


def todays(root: Path, monkeypatch, out: Path) -> TodaysCode:
    """Today's code of a project whose module is `app/train.py`."""
    monkeypatch.setattr(todays_module, "ROOT", root)
    monkeypatch.setattr(todays_module, "read_project", lambda _: Code.of(root))
    found = TodaysCode(main.main, root / "conf", main.dora)
    found.module = MAIN
    return found


def test_the_tag_is_resolved_once(tmp_path, monkeypatch):
    """All experiments of a command have one tag, and its jobs run the code that it names."""
    root = tree(tmp_path, MAIN, text="a = 1")
    code = todays(root, monkeypatch, tmp_path)
    tag = code.resolved({})
    (root / MAIN).write_text("a = 2")
    code.read_again()
    assert code.resolved({"seed": 3}) == tag and code.now.files[MAIN][0] == b"a = 1"
    code.refuse_other({"tag": tag})
    again = todays(root, monkeypatch, tmp_path)
    for same in ({"tag": tag[5:]}, {"tag": None}, {}):
        again.refuse_other(same)
    with pytest.raises(UserError, match="names other code than today's"):
        again.refuse_other({"tag": tag})
    with pytest.raises(UserError, match="use a snapshot"):
        code.for_jobs({"tag": tag, "code": "live"})
    (root / MAIN).write_text("a = 1  # undone")
    assert todays(root, monkeypatch, tmp_path).resolved({}) == tag


def test_the_tag_is_in_the_signature_and_in_the_overrides():
    plain, tagged = main.get_xp(["seed=1"]), main.get_xp(["tag=@code", "seed=1"])
    tag = tagged.values["tag"]
    assert tag.startswith("code@") and len(tag) == 15
    assert dict(tagged.delta or []) == {"seed": 1, "tag": tag}
    assert tagged.argv == ["seed=1", f"tag={tag}"] and tagged.sig != plain.sig
    assert main.get_xp(list(tagged.argv)).sig == tagged.sig
    assert main.get_xp(main.value_to_argv({"tag": "@code", "seed": 1})).sig == tagged.sig
    main.check(tagged)
    with pytest.raises(UserError, match="names other code"):
        main.check(main.get_xp(["tag=code@0123456789"]))


# --- code that does not count ---


def finished(out: Path, code: Code):
    made = experiment(out, {"seed": 1})
    made.write_start(1, Start(1, code.stored()))
    code.keep(made.code_archive(code.hash))
    return made


def test_the_files_that_differ_are_found(tmp_path, monkeypatch):
    root = tree(tmp_path / "root", MAIN, "app/loss.py", "app/notes.py", text="a = 1\n")
    (root / MAIN).write_text("from . import loss")
    code = todays(root, monkeypatch, tmp_path)
    xp = finished(tmp_path / "out", code.now)
    assert code.differs(xp, {}) == []
    (root / "app" / "loss.py").write_text("a = 1  # a comment\n")
    (root / "app" / "notes.py").write_text("a = 2\n")
    assert todays(root, monkeypatch, tmp_path).differs(xp, {}) == []
    (root / "app" / "loss.py").write_text("a = 2\n")
    (root / MAIN).write_text("from . import loss, new")
    tree(root, "app/new.py")
    again = todays(root, monkeypatch, tmp_path)
    assert again.differs(xp, {}) == ["app/loss.py", "app/new.py", "app/train.py"]
    archive = xp.code_archive(code.now.hash)
    archive.write_bytes(packed({MAIN: (b"", False)}))
    assert again.differs(xp, {}) != [], "one archive of each code is read"
    assert todays(root, monkeypatch, tmp_path).differs(xp, {}) == [], "it is another's"
    archive.unlink()
    assert todays(root, monkeypatch, tmp_path).differs(xp, {}) == [], "its files are lost"
    assert again.differs(experiment(tmp_path / "out", {"seed": 2}), {}) == []


def test_the_plan_counts_and_the_table_marks_them(capsys):
    done = Status(State.COMPLETED)
    known = {sig: Known(done, other_code=sig != "c") for sig in "abc"}
    actions = make_plan([Wanted("a"), Wanted("b"), Wanted("c")], known, SubmitRules(), ME)
    print_plan("mine", actions, {}, "")
    assert "  2 finished with other code than today's" in capsys.readouterr().out
    print_plan("mine", make_plan([Wanted("c")], known, SubmitRules(), ME), {}, "")
    assert "other code" not in capsys.readouterr().out
    again = make_plan([Wanted("a")], known, SubmitRules(replace_done=True), ME)
    assert not again[0].other_code and not decided(done).other_code
    run = RunState()
    assert Row("x", done, run, 1, other_code=True).line().values["Meta"]["code"] == "differs"
    run.codes = 2
    assert (
        Row("x", done, run, 1, other_code=True).line().values["Meta"]["code"] == "2 codes, differs"
    )
    assert Row("x", done, run, 1).line().values["Meta"]["code"] == "2 codes"


def test_the_difference_is_shown(tmp_path, monkeypatch):
    root = tree(tmp_path / "root", MAIN, "gone.py", "same.py", "data.txt", text="a = 1\nb = 2\n")
    xp = finished(tmp_path / "out", Code.of(root))
    monkeypatch.setattr(command, "read_project", lambda _: Code.of(root))
    [same] = command.diff(tmp_path / "out", xp.sig[:4])
    assert same == f"XP {xp.sig} ran today's code: there is no difference."
    (root / MAIN).write_text("a = 1\nb = 3\n")
    (root / "gone.py").unlink()
    (root / "data.txt").write_bytes(b"\xff\0")
    (root / "same.py").chmod(0o755)
    tree(root, "new.py", text="c\n")
    lines = list(command.diff(tmp_path / "out", xp.sig))
    assert lines[:6] == [
        f"--- a/{MAIN}",
        f"+++ b/{MAIN}",
        "@@ -1,2 +1,2 @@",
        " a = 1",
        "-b = 2",
        "+b = 3",
    ]
    assert "data.txt: binary files differ" in lines
    assert lines[7:9] == ["--- a/gone.py", "+++ /dev/null"]
    assert lines[-4:] == ["+++ b/new.py", "@@ -0,0 +1 @@", "+c", SAID]


SAID = "same.py: only one of the two files may be executed"


@pytest.mark.slow
def test_a_day_with_code_that_counts(copy: Project):
    """Two edits are two experiments, and undoing one finds the first again."""
    first = copy.dora("run", *QUICK, "tag=@code")
    copy.edit("dora_train/module.py", "\nfrom ", "\n# a comment\nfrom ")
    again = copy.dora("run", *QUICK, "tag=@code")
    assert "nothing to do" in again and "other code" not in again
    copy.edit("dora_train/model.py", "def build_model(", "EDITED = 1\n\n\ndef build_model(")
    second = copy.dora("run", *QUICK, "tag=@code")
    assert "nothing to do" not in second and sig_of(second) != sig_of(first)
    said = copy.dora("run", "-f", sig_of(first)).splitlines()
    assert "nothing to do" in said[1] and said[2].startswith(
        "it ran other code than today's: dora_train/model.py · "
    )
    [tag] = {word for word in first.split() if word.startswith("tag=")}
    grid = f'launcher({{"debug": "fast", "tag": "{tag[4:]}"}})\n    launcher(debug="fast", tag="@code")'
    text = f"from dora_train.explorers import MainMetrics\n\n\n@MainMetrics\ndef explorer(launcher):\n    {grid}\n"
    (copy.root / "grids" / "mine.py").write_text(text)
    plan = copy.dora("grid", "mine", "--dry_run")
    assert "= 2 kept" in plan and "  1 finished with other code than today's" in plan
    rows = {line.split()[1]: line for line in plan.splitlines() if " completed " in line}
    assert "differs" in rows[sig_of(first)] and "differs" not in rows[sig_of(second)]
    copy.edit("dora_train/model.py", "EDITED = 1\n\n\n", "")
    undone = copy.dora("run", *QUICK, "tag=@code")
    assert "nothing to do" in undone and sig_of(undone) == sig_of(first)
