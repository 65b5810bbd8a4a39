"""A port: the project with somebody else's module and data (foreign/) in the place of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

from project import ROOT, Project

GUIDE = (ROOT / "docs/extending.md").read_text()
TRAIN = GUIDE.partition("```python\n")[2].partition("```")[0]  # as the guide has it
DATA = "name: {name}\nbatch_size: 16\nnum_workers: 0\n"
QUICK = ["trainer.max_epochs=4", "trainer.accelerator=cpu", "threads=1", "optim.lr=0.01"]
EVERY_STEP = "checkpoint.every_minutes=0.000001"


def port(folder: Path, name: str) -> Project:
    """A copy of the project whose `main` takes `parts(cfg)` of a file of foreign/."""
    project = Project.copy(folder)
    source = Path(__file__).parent / "foreign" / f"{name}.py"
    shutil.copy(source, project.root / "dora_train" / source.name)
    (project.root / "dora_train/train.py").write_text(TRAIN.replace("mine", name))
    (project.root / "conf/data" / f"{name}.yaml").write_text(DATA.format(name=name))
    project.edit("conf/config.yaml", "- data: digits", f"- data: {name}")
    project.edit("conf/task/images.yaml", "model: small ", "model: # ")
    return project
