"""The rules of the house that can be checked: who may import whom, and that the configuration is
its own manual."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from project import ROOT

PACKAGE = ROOT / "dora_train"
ENGINE = PACKAGE / "engine"


def imported(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Full names of the modules that a file imports, those of our own package as
    `dora_train...`."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and _is_for_types(test)
        for node in ast.walk(test)
    }
    nodes = [
        node
        for node in (tree.body if top_level_only else ast.walk(tree))
        if id(node) not in for_types
    ]
    parts = (
        ["dora_train", *path.relative_to(PACKAGE).parts[:-1]]
        if path.is_relative_to(PACKAGE)
        else []
    )
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _is_for_types(test: ast.If) -> bool:
    return isinstance(test.test, ast.Name) and test.test.id == "TYPE_CHECKING"


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def reaches(names: Iterator[str], *forbidden: str) -> list[str]:
    return [
        name
        for name in names
        if any(name == word or name.startswith(word + ".") for word in forbidden)
    ]


# --- one direction ---

# A module may reach those of its own layer and of the layers before it, whatever stands between.
LAYERS = [
    "base",
    "upstream",
    "config",
    "experiment",
    "jobs",
    "watch",
    "experiments",
    "run",
    "grid",
    "search",
    "dora",
]
# these never reach each other
APART = [("run", "grid"), ("grid", "run"), ("search", "run"), ("search", "grid")]
# they reach nothing of ours but each other
NEUTRAL = {"best_so_far", "children", "counters", "data_error"}
# by which the researcher's files reach the engine
DOORS = {"engine.dora.main", "engine.run.trainer"}
# `python -m dora_train.NAME`
COMMANDS = {"check", "predict", "search", "snapshots", "sweep", "code"}
COMMANDS |= {"clean"}
COMMANDS |= {"trained", "evaluate"}  # parts of predict
READABLE = {"base", "config", "experiment", "jobs", "watch"}  # for the report


def modules() -> dict[str, Path]:
    """Every module of the package by its name below it: `engine.run.trainer`."""
    found = {}
    for path in files(PACKAGE):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def edges() -> dict[str, set[str]]:
    """Whom each module imports, in functions too; what is imported for its types alone does not
    count."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        names = {
            full.removeprefix("dora_train.")
            for full in imported(path)
            if full.startswith("dora_train.")
        }
        found[name] = {
            other for other in names if other in known and known[other].name != "__init__.py"
        } - {name}
    return found


def closure(name: str, graph: dict[str, set[str]]) -> set[str]:
    """All modules that `name` reaches, by any number of imports."""
    reached: set[str] = set()
    left = [name]
    while left:
        new = graph[left.pop()] - reached
        reached |= new
        left += new
    return reached


def layer(name: str) -> str:
    """Of the engine; a module beside the folders is of the base."""
    first = name.split(".")[1] if name.startswith("engine.") else ""
    return first if first in LAYERS else "base" if first else ""


GRAPH = edges()
PROGRAMS = ("engine.job", "engine.pack")  # of jobs
ENGINE_ROOM = sorted(name for name in GRAPH if name.startswith("engine.") and name not in PROGRAMS)


@pytest.mark.parametrize("name", ENGINE_ROOM)
def test_the_engine_has_one_direction(name: str):
    """The programs of jobs import what they run: the project's `main`, and the signals of a run."""
    reached, own = closure(name, GRAPH), layer(name)
    later = {
        other
        for other in reached
        if layer(other) and LAYERS.index(layer(other)) > LAYERS.index(own)
    }
    assert not later, "a later layer"
    assert not {other for other in reached if (own, layer(other)) in APART}, "the other wing"
    foreign = {other for other in reached if not other.startswith("engine.")} - NEUTRAL
    if own == "dora":  # the door shows the report's verdicts in the live table
        foreign = {other for other in foreign if not other.startswith("report.")}
    assert not foreign, "the researcher's files"
    assert name not in reached, "a circle"


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_neutral_files_reach_nothing_of_ours(name: str):
    assert closure(name, GRAPH) <= NEUTRAL


@pytest.mark.parametrize(
    "name",
    sorted(
        name for name in GRAPH if not name.startswith(("engine", "report")) and name not in COMMANDS
    ),
)
def test_the_researchers_files_reach_the_engine_by_two_doors(name: str):
    entered = {other for other in GRAPH[name] if other.startswith("engine.")}
    assert entered <= (DOORS if name == "train" else set())
    if name not in ("train", "module", "explorers") and not name.startswith("tasks."):
        forbidden = ["dora", "hydra", "omegaconf", "submitit", "pytorch_lightning", "lightning"]
        assert not reaches(imported(modules()[name]), *forbidden)


@pytest.mark.parametrize("name", sorted(name for name in GRAPH if name.startswith("report")))
def test_the_report_reaches_what_can_be_read(name: str):
    """By itself; what those reach in their turn is the engine's own business."""
    assert {layer(other) for other in GRAPH[name] if layer(other)} <= READABLE


def test_what_uses_an_experiment_composes_nothing_and_needs_no_lightning():
    forbidden = [
        "dora",
        "hydra",
        "omegaconf",
        "submitit",
        "pytorch_lightning",
        "lightning",
        "dora_train.train",
        "dora_train.engine.dora.main",
    ]
    forbidden.remove("omegaconf")
    assert not reaches(imported(PACKAGE / "predict.py"), *forbidden)
    assert not reaches(imported(ENGINE / "experiment" / "find.py"), *forbidden)
    code = "import sys, dora_train.predict; print(sorted({'dora', 'hydra', 'pytorch_lightning'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", files(PACKAGE / "report"), ids=lambda path: path.name)
def test_the_report_reads_files_alone(path: Path):
    forbidden = [
        "dora",
        "torch",
        "torchvision",
        "pytorch_lightning",
        "lightning",
        "hydra",
        "submitit",
        "dora_train.engine.run",
        "dora_train.engine.dora.main",
        "dora_train.engine.upstream.dora",
        "dora_train.train",
    ]
    assert not reaches(imported(path), *forbidden)


def test_a_report_is_made_without_what_takes_long_to_import():
    modules = "__main__ watch diff sheet"
    code = (
        "import sys; "
        + "".join(f"import dora_train.report.{name}; " for name in modules.split())
        + "print(sorted({'torch', 'dora', 'hydra', 'pytorch_lightning', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", files(ENGINE / "grid"), ids=lambda path: path.name)
def test_the_grid_never_imports_the_run(path: Path):
    assert not reaches(
        imported(path), "dora_train.engine.run", "torch", "pytorch_lightning", "torchvision"
    )


PRIVATE = re.compile(r"(?:\.|\bimport .*\b)(_(?!_)[a-z]\w*)")


@pytest.mark.parametrize("path", files(ENGINE), ids=lambda path: str(path.relative_to(ENGINE)))
def test_only_upstream_touches_private_names(path: Path):
    """A private name that an engine file reads off something else must be one of the engine's
    own."""
    if path.parent.name == "upstream":
        return
    tree = ast.parse(path.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
    }
    others = used - private_names_of_the_engine()
    assert not others, f"private names of others: {sorted(others)}"


@cache
def private_names_of_the_engine() -> set[str]:
    found: set[str] = set()
    for file in files(ENGINE):
        found.update(re.findall(r"\b_[a-z]\w*", " ".join(_defined(file))))
    return found


def _defined(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_reading_costs_no_torch():
    names = ", ".join(
        f"dora_train.engine.experiment.{name}" for name in ("folder", "find", "claims")
    )
    code = (
        f"import sys, dora_train, {names};"
        "print(sorted({'torch', 'dora', 'hydra', 'pytorch_lightning', 'omegaconf'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_verb_is_spared_lightning():
    code = "import sys, dora_train.train; print(sorted({'pytorch_lightning', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: path.name
)
def test_the_configuration_names_no_classes_and_no_place(path: Path):
    text = path.read_text()
    assert "_target_" not in text
    assert not re.search(r":\s*/\w", text), "a path of one machine"


def test_every_key_has_its_comment():
    """YAML is the manual: every key that holds a value has a comment beside it; a blank one says
    what blank means."""
    files = [ROOT / "conf/config.yaml", ROOT / "conf/engine.yaml", *ROOT.glob("conf/task/*.yaml")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    wanting = []
    for line, following in zip(lines, [*lines[1:], ""]):
        is_section = re.fullmatch(r"[a-z_]+:", line) and following.startswith("  ")
        if re.match(r"\s*[a-z_]+:", line) and "#" not in line and not is_section:
            wanting.append(line)
    assert not wanting


def _reads_of_the_environment(source: str) -> list[int]:
    """The lines that read an environment variable. Setting or removing one is allowed."""
    writes, found = set(), []
    tree = ast.parse(source)
    for node in ast.walk(tree):
        is_set = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
        if is_set or (isinstance(node, ast.Attribute) and node.attr == "update"):
            writes.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv"):
            if id(node) not in writes:
                found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "line", ["os.environ.get('A')", "os.environ['A']", "'A' in os.environ", "{**os.environ}"]
)
def test_each_way_to_read_the_environment_is_seen(line: str):
    assert _reads_of_the_environment(line) == [1]
    assert not _reads_of_the_environment("os.environ['A'] = ''; del os.environ['A']")


@pytest.mark.parametrize("path", files(ENGINE), ids=lambda path: str(path.relative_to(ENGINE)))
def test_one_file_reads_the_environment(path: Path):
    """job.py starts before the engine can be imported."""
    if path.relative_to(ENGINE).as_posix() not in ("environment.py", "job.py"):
        assert not _reads_of_the_environment(path.read_text())


def test_every_variable_is_in_the_docs():
    text = (ROOT / "docs/environment.md").read_text()
    names = set()
    for name in ("environment.py", "job.py"):
        for node in ast.walk(ast.parse((ENGINE / name).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.update(re.findall(r"^[A-Z][A-Z_]{3,}$", node.value))
    assert {"DORA_DIR", "DORA_TAKE", "WANDB_PROJECT"} <= names
    missing = {name for name in names if name not in text and not name.startswith("SLURM_")}
    assert missing <= {"RUNNING"}, missing  # a state of SLURM's


# --- short files, and types ---


@pytest.mark.parametrize("path", files(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_classes_are_read_in_one_go(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in classes}
    assert not [name for name, length in lengths.items() if length > 200]


def test_few_parameters_are_of_any_type():
    """Where a value really may be anything, `object` says so, and mypy checks what is done to it."""
    parameters = [
        node
        for path in files(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.arg) and node.arg not in ("self", "cls") and node.annotation
    ]
    untyped = [node for node in parameters if ast.unparse(node.annotation) == "Any"]
    assert len(parameters) > 1000 and len(untyped) <= 0.02 * len(parameters)


def test_nothing_is_multiplied_by_a_truth_value():
    """`"s" * (count != 1)` is a riddle; a conditional expression is none."""
    found = []
    for path in files(PACKAGE):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
                sides = (node.left, node.right)
                if any(isinstance(side, (ast.Compare, ast.BoolOp)) for side in sides):
                    found.append(f"{path.name}:{node.lineno}")
    assert not found
