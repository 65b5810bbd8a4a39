"""A copy of the project whose grid files a test writes, on the tests' SLURM or on a queue of this
machine."""

import copy
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from forked import Run
from project import ROOT, Project

from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.jobs.queue.queue import Queue

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


class Machine:
    """A queue on this machine, where tests have a cluster otherwise.

    Two GPUs are made up: two jobs at a time.
    """

    def __init__(self, folder: Path):
        self.folder = folder / "queue, it's (ä=1) %d"
        self.env = {
            "DORA_CLUSTER": "local",
            "DORA_QUEUE": str(self.folder),
            "DORA_GPU_LOCKS": str(self.folder) + ".gpus",
            "CUDA_VISIBLE_DEVICES": "0,1",
        }

    def wait(self, predicate, timeout: float = 180):
        """The first true value of `predicate`."""
        end = time.monotonic() + timeout
        while not (value := predicate()):
            assert time.monotonic() < end, f"not reached within {timeout} s"
            time.sleep(0.05)
        return value

    def live(self) -> list[str]:
        """The names of the jobs that wait or run."""
        return [job["name"] for job in Queue(str(self.folder)).active()]

    def processes(self) -> list[psutil.Process]:
        """All that runs for this queue: runners, jobs, and what jobs have started."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = (
                    process.environ().get("DORA_QUEUE") == str(self.folder)
                    and process.pid != os.getpid()
                )
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill_all(self) -> None:
        """What a loss of power does."""
        while found := self.processes():
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found, timeout=0.2)

    cancel_all = kill_all


class GridProject:
    """A copy of the project, with an outputs folder whose name is as odd as names get."""

    def __init__(self, folder: Path, cluster):
        self.folder, self.out, self.cluster = (
            folder / "project",
            folder / "out, it's (ä=1)",
            cluster,
        )
        for name in ("conf", "dora_train", "grids"):
            shutil.copytree(
                ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        self.env = {
            **os.environ,
            "DORA_QUEUE": str(folder / "queue"),
            "DORA_DIR": str(self.out),
            "OMP_NUM_THREADS": "1",
            **cluster.env,
        }
        self.is_local = isinstance(cluster, Machine)
        if self.is_local:  # on a machine with any number of cores
            keys = self.folder / "conf/engine.yaml"
            keys.write_text(keys.read_text().replace("  jobs:  ", "  jobs: 2", 1))

    def grid(self, *lines: str, name: str = "question") -> None:
        (self.folder / "grids" / f"{name}.py").write_text(
            HEAD + "".join(f"    {line}\n" for line in lines)
        )

    def start(self, *args: str, **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            [DORA, *args],
            cwd=self.folder,
            env={**self.env, **env},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def hasten(self) -> None:
        """Let an open grid of this copy wait for moments only, where it waits for seconds."""
        for name, line, short in [
            ("grid/healing.py", "FIRST_WAIT = 10.0", "FIRST_WAIT = 0.2"),
            ("watch/live.py", "POLITE = 30.0", "POLITE = 1.0"),
            ("watch/live.py", "REDRAW = 1.0", "REDRAW = 0.3"),
            ("jobs/slurm.py", "PERIOD = 30 ", "PERIOD = 1 "),
        ]:
            path = self.folder / "dora_train" / "engine" / name
            text = path.read_text()
            assert line in text
            path.write_text(text.replace(line, short))

    def elsewhere(self, out: Path) -> "GridProject":
        """The same project with another outputs folder."""
        other = copy.copy(self)
        other.out, other.env = out, self.env | {"DORA_DIR": str(out)}
        return other

    def fork(self, *args: str, **env: str) -> Run:
        """A command that goes on, in a process that has the libraries already."""
        project = Project(self.out, self.folder)
        project.env = {**self.env, **env}
        return Run(project, *args)

    def dora(self, *args: str, code: int = 0, **env: str) -> str:
        """What `dora ARGS` prints, in a process that has the libraries already."""
        project = Project(self.out, self.folder)
        project.env = {**self.env, **env}
        output = project.dora(*args, code=code)
        assert "Traceback" not in output and "\x1b" not in output
        return output

    def sync(self, name: str = "question", code: int = 0, **env: str) -> str:
        return self.dora("grid", name, "--no_monitoring", code=code, **env)

    def xps(self) -> list[Experiment]:
        return [
            Experiment(path)
            for path in sorted((self.out / "xps").glob("*"))
            if not path.name.startswith(".")
        ]

    def live(self) -> list[str]:
        if self.is_local:
            return self.cluster.live()
        return self.cluster.run("squeue", "--noheader", "--array", "--format=%j").split()
