"""The rules of the house that can be checked: who may import whom, and that the configuration is its own manual."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from project import ROOT

PACKAGE = ROOT / "dora_train"
ENGINE = PACKAGE / "engine"
ROOMS = {"data", "model", "module", "train"}
MEETING = {"train", "predict", "sweep", "search", "code"}  # where the rooms and the engine meet


def imported(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Full names of the modules that a file imports, those of our own package as `dora_train...`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    parts = ["dora_train", *path.relative_to(PACKAGE).parts[:-1]] if path.is_relative_to(PACKAGE) else []
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts[:len(parts) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def reaches(names: Iterator[str], *forbidden: str) -> list[str]:
    return [name for name in names if any(name == word or name.startswith(word + ".") for word in forbidden)]


@pytest.mark.parametrize("room", sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in MEETING))
def test_the_researchers_rooms_know_nothing_of_dora_or_hydra(room: str):
    forbidden = ["dora", "hydra", "omegaconf", "submitit", "dora_train.engine"]
    if room != "module":
        forbidden += ["pytorch_lightning", "lightning"]
    assert not reaches(imported(PACKAGE / f"{room}.py"), *forbidden)


def test_what_uses_an_experiment_composes_nothing_and_needs_no_lightning():
    forbidden = ["dora", "hydra", "omegaconf", "submitit", "pytorch_lightning", "lightning", "dora_train.train",
                 "dora_train.engine.main"]
    assert not reaches(imported(PACKAGE / "predict.py"), *forbidden)
    assert not reaches(imported(ENGINE / "find.py"), *(name for name in forbidden if name != "omegaconf"))
    code = "import sys, dora_train.predict; print(sorted({'dora', 'hydra', 'pytorch_lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", files(PACKAGE / "report"), ids=lambda path: path.name)
def test_the_report_reads_files_alone(path: Path):
    forbidden = ["dora", "torch", "torchvision", "pytorch_lightning", "lightning", "hydra", "submitit",
                 "dora_train.engine.run", "dora_train.engine.main", "dora_train.engine.upstream.dora",
                 "dora_train.train"]
    assert not reaches(imported(path), *forbidden)


def test_a_report_is_made_without_what_takes_long_to_import():
    modules = "__main__ watch diff sheet"
    code = "import sys; " + "".join(f"import dora_train.report.{name}; " for name in modules.split()) + \
           "print(sorted({'torch', 'dora', 'hydra', 'pytorch_lightning', 'pandas', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_siblings_know_nothing_of_the_engine():
    for path in [*files(ROOT / "basic"), *files(ROOT / "pl_hydra")]:
        assert not reaches(imported(path), "dora_train.engine", "dora_train.train"), path


@pytest.mark.parametrize("path", files(ENGINE), ids=lambda path: str(path.relative_to(ENGINE)))
def test_the_engine_never_imports_the_rooms(path: Path):
    if path.name == "job.py":  # it starts the program: `main` comes from there
        return
    assert not reaches(imported(path), *(f"dora_train.{room}" for room in ROOMS))


@pytest.mark.parametrize("path", files(ENGINE / "grid"), ids=lambda path: path.name)
def test_the_grid_never_imports_the_run(path: Path):
    assert not reaches(imported(path), "dora_train.engine.run", "torch", "pytorch_lightning", "torchvision")


@pytest.mark.parametrize("path", files(ENGINE / "run"), ids=lambda path: path.name)
def test_the_run_never_imports_the_grid(path: Path):
    assert not reaches(imported(path), "dora_train.engine.grid")


PRIVATE = re.compile(r"(?:\.|\bimport .*\b)(_(?!_)[a-z]\w*)")


@pytest.mark.parametrize("path", files(ENGINE), ids=lambda path: str(path.relative_to(ENGINE)))
def test_only_upstream_touches_private_names(path: Path):
    """A private name that an engine file reads off something else must be one of the engine's own."""
    if path.parent.name == "upstream":
        return
    tree = ast.parse(path.read_text())
    own = {name for file in files(ENGINE) for name in re.findall(r"\b_[a-z]\w*", " ".join(_defined(file)))}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
            and node.attr.startswith("_") and not node.attr.startswith("__")}
    assert used <= own, f"private names of others: {sorted(used - own)}"


def _defined(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_reading_costs_no_torch():
    code = "import sys, dora_train, dora_train.engine.store, dora_train.engine.find, dora_train.engine.claims;" \
           "print(sorted({'torch', 'dora', 'hydra', 'pytorch_lightning', 'omegaconf'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_verb_is_spared_lightning():
    code = "import sys, dora_train.train; print(sorted({'pytorch_lightning', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: path.name)
def test_the_configuration_names_no_classes_and_no_place(path: Path):
    text = path.read_text()
    assert "_target_" not in text
    assert not re.search(r":\s*/\w", text), "a path of one machine"


def test_every_key_has_its_comment():
    """YAML is the manual: every key that holds a value has a comment beside it; a blank one says what blank means."""
    lines = (ROOT / "conf" / "config.yaml").read_text().splitlines()
    wanting = []
    for line, following in zip(lines, [*lines[1:], ""]):
        is_section = re.fullmatch(r"[a-z_]+:", line) and following.startswith("  ")
        if re.match(r"\s*[a-z_]+:", line) and "#" not in line and not is_section:
            wanting.append(line)
    assert not wanting


def test_folders_beside_the_package_hold_no_init():
    """Dora takes a folder with `__init__.py` and `train.py` for the project's package, and stops at two."""
    found = [path.parent.name for path in ROOT.glob("*/__init__.py") if (path.parent / "train.py").exists()]
    assert found == ["dora_train"]
