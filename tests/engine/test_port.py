"""The engine's tests stay green in a project whose front page is somebody else's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from example import FRONT_PAGE, REPOSITORY, owned

FILES = ["test_plan.py", "test_signature.py"]


@pytest.mark.slow
def test_the_engines_tests_do_not_see_the_researchers_files(tmp_path: Path):
    root = tmp_path / "port"
    for name in [*FRONT_PAGE, *owned()]:
        source, target = REPOSITORY / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    for name in ("conf/task", "conf/data", "dora_train/data"):
        shutil.rmtree(root / name)
    for name in ("images", "text", "tabular", "lightning"):
        (root / f"dora_train/tasks/{name}.py").unlink(missing_ok=True)
    for name in ("train", "model", "module", "optim", "confusion"):
        (root / f"dora_train/{name}.py").write_text("raise ImportError('somebody else')\n")
    (root / "conf/config.yaml").write_text("defaults: [engine, _self_]\nmine: 1\n")

    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/engine"]
    collected = subprocess.run(
        [*command, "--collect-only"], cwd=root, env=env, capture_output=True, text=True
    )
    assert collected.returncode == 0, collected.stdout[-2000:]
    assert "test_exact.py" in collected.stdout and "test_rules.py" in collected.stdout
    command[-1:] = [f"tests/engine/{name}" for name in FILES]
    done = subprocess.run(
        [*command, "-m", "not slow"], cwd=root, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]
