"""One pipeline, three ways, one result: vanilla PyTorch, Lightning + Hydra, and Dora compute the
same bits."""

from __future__ import annotations

import ast
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT, Project, stored, weights

EPOCHS = 3
WAYS = ("basic", "pl_hydra", "dora")
HYDRA_ARGS = [
    "seed=3",
    "optim.lr=0.02",
    "optim.weight_decay=1e-3",
    "data.batch_size=100",
    "schedule.warmup_epochs=0.5",
    "schedule.name=plateau",
    "schedule.patience=0",
    "schedule.factor=0.5",
    "loss.label_smoothing=0.1",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.accelerator=cpu",
    "threads=1",
]
BASIC_ARGS = [
    "--seed",
    "3",
    "--lr",
    "0.02",
    "--weight-decay",
    "1e-3",
    "--batch-size",
    "100",
    "--warmup-epochs",
    "0.5",
    "--schedule",
    "plateau",
    "--patience",
    "0",
    "--factor",
    "0.5",
    "--label-smoothing",
    "0.1",
    "--epochs",
    str(EPOCHS),
    "--accelerator",
    "cpu",
    "--threads",
    "1",
]
# With dropout, which draws from torch's global generator in each step, and with batch norm.
HYDRA_MODEL = ["model=mobilenet_v2", "model_args.width_mult=0.5"]
BASIC_MODEL = ["--model", "mobilenet_v2", "--model-args", "width_mult=0.5"]


@dataclass
class Way:
    """One of the three pipelines, with its outputs in a folder of the test's."""

    name: str
    project: Project

    @property
    def command(self) -> list[str]:
        return {
            "basic": ["python", "-m", "basic.train", *BASIC_ARGS, *BASIC_MODEL],
            "pl_hydra": ["python", "-m", "pl_hydra.train", *HYDRA_ARGS, *HYDRA_MODEL],
            "dora": ["dora", "run", *HYDRA_ARGS, *HYDRA_MODEL],
        }[self.name]

    @property
    def folder(self) -> Path:
        """Of the only experiment there is."""
        parent = self.project.out / {"dora": "xps"}.get(self.name, self.name)
        [folder] = [
            path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")
        ]
        return folder

    def epochs(self) -> int:
        try:
            return len(stored(self.folder / "history.json"))
        except (OSError, ValueError):
            return 0

    def kill(self, delay: float) -> None:
        """Start it, and end it with SIGKILL some time after its first epoch."""
        process = self.project.start(*self.command)
        while self.epochs() < 1:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        time.sleep(delay)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.close()

    def numbers(self) -> dict[str, Any]:
        """Losses and accuracies of each epoch, and of the test."""
        result = stored(self.folder / "result.json")
        assert set(result) == {"best", "test", "epochs", "steps", "reason"}
        return {"history": stored(self.folder / "history.json"), "result": result}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Way]:
    """All three, trained without an interruption."""
    ways = {name: Way(name, Project(tmp_path_factory.mktemp(name))) for name in WAYS}
    for way in ways.values():
        way.project.run(*way.command)
    return ways


@pytest.mark.slow
def test_same_numbers(finished: dict[str, Way]):
    first, *others = finished.values()
    assert len(first.numbers()["history"]) == EPOCHS
    for other in others:
        assert other.numbers() == first.numbers(), f"{other.name} differs from {first.name}"


@pytest.mark.slow
@pytest.mark.parametrize("file", ["best.ckpt", "last.ckpt"])
def test_same_weights_under_the_same_names(finished: dict[str, Way], file: str):
    first, *others = [weights(way.folder / file) for way in finished.values()]
    for other in others:
        assert list(other) == list(first)
        assert all(other[name].equal(first[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_same_numbers_after_a_kill(finished: dict[str, Way], name: str, tmp_path: Path):
    way, reference = Way(name, Project(tmp_path)), finished["basic"]
    delay = random.uniform(0, 1.5)
    way.kill(delay)
    way.project.run(*way.command)
    assert way.numbers() == reference.numbers(), f"killed {delay:.3f} s after the first epoch"
    for file in ("best.ckpt", "last.ckpt"):
        mine, theirs = weights(way.folder / file), weights(reference.folder / file)
        assert all(mine[key].equal(theirs[key]) for key in theirs), (
            f"{file}, killed after {delay:.3f} s"
        )


def test_same_loss_of_networks_with_auxiliary_outputs():
    import torch

    from basic.train import losses_of
    from dora_train.model import WithAuxiliary
    from dora_train.module import Classifier

    first, second, labels = torch.randn(7, 10), torch.randn(7, 10), torch.arange(7)
    outputs = WithAuxiliary(first, (second, first), 0.3)
    classifier = Classifier(torch.nn.Identity(), {}, {}, {"label_smoothing": 0.1})
    assert losses_of(outputs, labels, 0.1).equal(classifier.loss(outputs, labels))
    assert losses_of(outputs, labels).equal(classifier.eval().loss(outputs, labels)), (
        "smoothed in training alone"
    )


# --- what may know what ---


@pytest.mark.parametrize("folder", ["basic", "pl_hydra"])
def test_no_package_beside_dora_train(folder: str):
    """Dora takes the one folder with `__init__.py` and `train.py` for the project, and stops when
    it finds two."""
    assert (ROOT / folder / "train.py").exists()
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize(
    "module, forbidden",
    [
        (
            "basic.train",
            ["dora_train.engine", "dora", "hydra", "omegaconf", "pytorch_lightning", "lightning"],
        ),
        (
            "basic.grid",
            ["dora_train.engine", "dora", "hydra", "omegaconf", "pytorch_lightning", "lightning"],
        ),
        ("pl_hydra.train", ["dora_train.engine", "dora"]),
    ],
)
def test_siblings_stand_alone(module: str, forbidden: list[str]):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.split()) & set(forbidden)


@pytest.mark.parametrize(
    "file", [*ROOT.glob("basic/*.py"), *ROOT.glob("pl_hydra/*.py")], ids=lambda path: path.name
)
def test_nothing_of_the_engine_is_imported_later(file: Path):
    """Nor inside a function, where importing the module does not show it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        assert not [
            name for name in names if re.match(r"dora(\.|$)|dora_train\.(engine|train)", name)
        ]


# --- the table in the README: which lines of which pipeline take care of what ---

CONCERNS = [
    "naming",
    "configuration",
    "logging",
    "checkpoints",
    "resume",
    "distribution",
    "scheduling",
    "grid",
    "monitoring",
]
HEADER = re.compile(r"^\| *concern *\| *basic *\| *pl_hydra *\| *dora_train *\|$", re.MULTILINE)


def rows_of(text: str) -> dict[str, list[str]]:
    """{concern: [cell of basic, of pl_hydra, of dora_train]}; empty without such a table."""
    header = HEADER.search(text)
    rows = {}
    for line in text[header.end() :].splitlines()[2:] if header else []:
        if not line.startswith("|"):
            break
        concern, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[concern] = cells
    return rows


def stale(cell: str, root: Path = ROOT) -> list[str]:
    """What a cell names and the project does not have.

    A cell holds words, and in backquotes files (with a slash) and names that the file before them
    defines: a function, a class, a method as `Class.method`, a variable, or a key of a YAML file as
    `hydra.run.dir`.
    """
    missing, known, file = [], set(), ""
    for word in re.findall(r"`([^`]+)`", cell):
        if "/" in word:
            file, path = word, root / word
            known = names_in(path) if path.is_file() else set()
            missing += [] if path.exists() else [word]
        elif word not in known:
            missing.append(f"{word} in {file or 'no file'}")
    return missing


def names_in(path: Path) -> set[str]:
    if path.suffix == ".yaml":
        return set(keys_of(yaml.safe_load(path.read_text())))
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef)
            }
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def keys_of(config: Any, parent: str = "") -> list[str]:
    if not isinstance(config, dict):
        return []
    keys = [f"{parent}{key}" for key in config]
    return keys + [
        inner for key, value in config.items() for inner in keys_of(value, f"{parent}{key}.")
    ]


ROWS = rows_of((ROOT / "docs/three_ways.md").read_text())


@pytest.mark.parametrize("concern", CONCERNS)
def test_the_table_of_the_three_ways_is_true(concern: str):
    cells = ROWS[concern]
    assert len(cells) == 3 and all(cells)
    assert [stale(cell) for cell in cells] == [[], [], []]


def test_table_check_sees_what_is_stale():
    text = "| concern | basic | pl_hydra | dora_train |\n| --- | --- | --- | --- |\n| naming | a | b | c |\n\n| x |"
    assert rows_of(text) == {"naming": ["a", "b", "c"]}
    assert (
        stale(
            "`basic/train.py` `name_of`, `Means.add`; `conf/pl_hydra.yaml` `hydra.run.dir`; nothing else"
        )
        == []
    )
    assert stale(
        "`basic/train.py` `gone`; `conf/pl_hydra.yaml` `hydra.no`; `basic/gone.py`; `name_of`"
    ) == [
        "gone in basic/train.py",
        "hydra.no in conf/pl_hydra.yaml",
        "basic/gone.py",
        "name_of in basic/gone.py",
    ]


@pytest.mark.parametrize(
    "file", [*ROOT.glob("basic/*.py"), *ROOT.glob("pl_hydra/*.py")], ids=lambda path: path.name
)
def test_the_siblings_know_nothing_of_the_engine(file: Path):
    words = file.read_text()
    assert not re.search(r"(from|import) dora_train(\.engine|\.train\b)", words)


def test_folders_beside_the_package_hold_no_init():
    """Dora takes a folder with `__init__.py` and `train.py` for the project's package, and stops at
    two."""
    found = [
        path.parent.name
        for path in ROOT.glob("*/__init__.py")
        if (path.parent / "train.py").exists()
    ]
    assert found == ["dora_train"]
