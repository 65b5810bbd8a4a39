"""A copy of the project whose grid files a test writes, on the tests' SLURM."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dora_train.engine.store import Experiment

ROOT = Path(__file__).parents[1]
DORA = Path(sys.executable).with_name("dora")
HEAD = '''"""A test's question."""
import treetable as tt
from dora import Explorer


class Digits(Explorer):
    def get_grid_metrics(self):
        return [tt.group("valid", [tt.leaf("acc", ".3f")])]

    def process_history(self, history):
        return dict(history[-1]) if history else {}


@Digits
def explorer(launcher):
    launcher.slurm_(cpus_per_gpu=1, mem_per_gpu=1, time=10).bind_({"debug": "fast"})
'''
ASLEEP = 'launcher.slurm_(setup=["sleep 300"])'


class GridProject:
    """A copy of the project, with an outputs folder whose name is as odd as names get."""

    def __init__(self, folder: Path, cluster):
        self.folder, self.out, self.cluster = folder / "project", folder / "out, it's (ä=1)", cluster
        for name in ("conf", "dora_train", "grids"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.env = {**os.environ, **cluster.env, "DORA_DIR": str(self.out), "OMP_NUM_THREADS": "1"}

    def grid(self, *lines: str, name: str = "question") -> None:
        (self.folder / "grids" / f"{name}.py").write_text(HEAD + "".join(f"    {line}\n" for line in lines))

    def start(self, *args: str, **env: str) -> subprocess.Popen:
        return subprocess.Popen([DORA, *args], cwd=self.folder, env={**self.env, **env}, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def dora(self, *args: str, code: int = 0, **env: str) -> str:
        """The output, both streams."""
        process = self.start(*args, **env)
        out, err = process.communicate(timeout=240)
        assert process.returncode == code, out + err
        assert "Traceback" not in err and "\x1b" not in out + err
        return out + err

    def sync(self, name: str = "question", code: int = 0, **env: str) -> str:
        return self.dora("grid", name, "--no_monitoring", code=code, **env)

    def xps(self) -> list[Experiment]:
        return [Experiment(path) for path in sorted((self.out / "xps").glob("*")) if not path.name.startswith(".")]

    def live(self) -> list[str]:
        return self.cluster.run("squeue", "--noheader", "--array", "--format=%j").split()
