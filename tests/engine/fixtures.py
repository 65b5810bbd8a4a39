"""The fixtures of all tests: a project to drive, a real SLURM, and a work tree that must stay as it
was."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from grid_project import GridProject, Machine
from listener import Listener
from project import REPOSITORY, ROOT, Project
from slurm_cluster import SlurmCluster

# tests and jobs at the same time must not fight for cores
os.environ.setdefault("OMP_NUM_THREADS", "2")
# threads that wait for each other sleep: on a busy machine, spinning takes ten times as long
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
# A shell starts what it puts into the background with Ctrl-C ignored, and what a test starts
# inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A property must hold however long the machine takes for an example.
hypothesis.settings.register_profile("dora_train", deadline=None)
hypothesis.settings.load_profile("dora_train")
for _name in [
    name
    for name in os.environ
    if name.startswith(
        ("SLURM_", "DORA_DIR", "DORA_PACKAGE", "DORA_CLUSTER", "DORA_QUEUE", "DORA_YES")
    )
]:
    del os.environ[_name]


# Files that take longest, by `--durations=0`: they come first, so that no process is left alone
# with one of them at the end.
LONGEST = [
    "test_grid_slurm",
    "test_exact_slurm",
    "test_night",
    "test_exact",
    "test_pack",
    "test_run",
    "test_foreign",
    "test_search",
    "test_basic",
    "test_three_ways",
    "test_yours",
    "test_tasks",
    "test_warm",
    "test_healing",
    "test_elsewhere",
    "test_flags",
    "test_sweep",
    "test_model",
    "test_pl_hydra",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = item.path.stem
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The work tree itself, with its outputs in a folder of the test's."""
    return Project(tmp_path / "outputs")


@pytest.fixture
def copy(tmp_path: Path) -> Project:
    """A copy of the project, to edit."""
    return Project.copy(tmp_path)


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    """Skips where SLURM is not installed, saying how to get it; CI promises that it is, and fails
    instead."""
    missing = "; ".join(SlurmCluster.missing())
    if missing and os.environ.get("DORA_TRAIN_REQUIRE_SLURM"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def cluster(
    slurm_installed: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmCluster]:
    """A real SLURM of two nodes."""
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A web server of this machine that keeps what is sent to it."""
    found = Listener()
    yield found
    found.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A queue on this machine."""
    machine = Machine(tmp_path)
    yield machine
    machine.kill_all()


@pytest.fixture(
    params=[
        pytest.param("cluster", marks=pytest.mark.slurm),
        pytest.param("machine", marks=pytest.mark.slow),
    ],
    ids=["slurm", "local"],
)
def grids(request: pytest.FixtureRequest, tmp_path: Path) -> GridProject:
    """A project whose grids a test writes: once on the cluster, once on this machine."""
    return GridProject(tmp_path, request.getfixturevalue(request.param))


@pytest.fixture(autouse=True)
def clean_slate(request: pytest.FixtureRequest) -> Iterator[None]:
    """No job of a test lives on in the next one."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").cancel_all()


def _changes(folder: Path) -> str | None:
    """What git says about a folder: edited, new and ignored files, without the tools' own."""
    command = ["git", "-C", str(folder), "status", "--porcelain", "--ignored"]
    try:
        done = subprocess.run([*command, "--untracked-files=all"], capture_output=True, text=True)
    except OSError:
        return None
    ours = (
        ".pytest_cache",
        ".hypothesis",
        ".mypy_cache",
        ".ruff_cache",
        ".venv",
        "env/",
        "__pycache__",
    )
    return "\n".join(
        line for line in done.stdout.splitlines() if not any(name in line for name in ours)
    )


@pytest.fixture(scope="session", autouse=True)
def clean_work_tree() -> Iterator[None]:
    """The tests leave nothing behind in the work tree, nor in the project under test."""
    folders = {REPOSITORY} if os.environ.get("CI") else set()  # elsewhere someone may edit it
    if ROOT != REPOSITORY:
        folders.add(ROOT)
    before = {folder: _changes(folder) for folder in folders}
    yield
    assert {folder: _changes(folder) for folder in folders} == before
