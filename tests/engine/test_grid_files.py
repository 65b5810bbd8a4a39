"""Which file `dora grid NAME` runs: any name that a file can have, and never a suggestion that does
not work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dora import Explorer

from dora_train.engine.errors import UserError
from dora_train.engine.grid.grids import find_explorer
from dora_train.engine.grid.sync import run_grid

TEXT = '''"""Is {name} found?"""
from ._explorers import Own


@Own
def explorer(launcher):
    launcher("{name}")
'''
NAMES = [
    "mysweep",
    "my-sweep",
    "my sweep",
    "2024",
    "2024_11",
    "lr_0.1",
    "größe",
    "class",
    "a.b.c",
    "sweep(1)",
    "-x",
]
SUB = ["deeper.mysweep", "deeper.my-sweep", "deeper.lr_0.1", "paper-1.table 2"]


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A project whose grid files have all of these names."""
    folder = tmp_path / "odd_grids"
    explorers = "from dora import Explorer\n\n\nclass Own(Explorer):\n    pass\n"
    for sub in (folder, folder / "deeper", folder / "paper-1"):
        sub.mkdir()
        (sub / "_explorers.py").write_text(explorers)
    (folder / "__init__.py").write_text("")
    for name in [*NAMES, *SUB]:
        sub, _, file = name.partition(".") if name in SUB else ("", "", name)
        (folder / sub / f"{file}.py").write_text(TEXT.format(name=name))
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "mysweep.py").write_text("")
    (folder / "broken.py").write_text("explorer = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield SimpleNamespace(dora=SimpleNamespace(grid_package="odd_grids"), package="dora_train")
    for module in [module for module in sys.modules if module.startswith("odd_grids")]:
        del sys.modules[module]


def found(main: Any, name: str) -> Explorer:
    return find_explorer(SimpleNamespace(grid=name), main)


@pytest.mark.parametrize("name", [*NAMES, *SUB])
def test_any_file_name(main: Any, name: str):
    named: list[str] = []
    explorer = found(main, name)
    explorer(named.append)  # type: ignore[arg-type]
    assert named == [name] and type(explorer).__name__ == "Own"


@pytest.mark.parametrize(
    "name, near",
    [
        ("my-sweeb", "my-sweep"),
        ("my_sweep", "my-sweep"),
        ("lr_0_1", "lr_0.1"),
        ("deeper/mysweep", "deeper.mysweep"),
        ("deeper/lr_0.1.py", "deeper.lr_0.1"),
        ("odd_grids/mysweep.py", "mysweep"),
        ("MySweep", "mysweep"),
        ("mysweep.py", "mysweep"),
    ],
)
def test_what_is_suggested_works(main: Any, name: str, near: str):
    with pytest.raises(UserError) as error:
        found(main, name)
    assert near in str(error.value).partition("did you mean ")[2], str(error.value)
    found(main, near)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../odd_grids/mysweep", "/etc/passwd", "mysweep/", "deeper", "a.b"]
)
def test_other_names_are_unknown(main: Any, name: str):
    with pytest.raises(UserError, match="unknown grid"):
        found(main, name)


def test_a_file_without_an_explorer_says_so(main: Any):
    with pytest.raises(UserError, match='"explorer" is no dora.Explorer but int'):
        found(main, "broken")
    with pytest.raises(UserError, match='has no "explorer"'):
        found(main, "_explorers")


def test_the_list_has_each_grid_with_its_question(main: Any, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        find_explorer(SimpleNamespace(grid=None), main)
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0 and len(lines) == len(NAMES) + len(SUB) + 1  # `broken` asks nothing
    for name in [*NAMES, *SUB]:
        assert any(line.startswith(name) and f"Is {name} found?" in line for line in lines)
    assert not any("explorers" in line or "ipynb" in line for line in lines)


@pytest.mark.parametrize("name", ["", "a/b", "..", "/x"])
def test_a_name_from_a_notebook_is_the_name_of_a_folder(name: str):
    with pytest.raises(UserError, match="grid_name"):
        run_grid(None, None, name)  # type: ignore[arg-type]
