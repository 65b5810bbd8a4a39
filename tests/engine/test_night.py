"""A night on a real SLURM: jobs are preempted, nodes are lost, the controller restarts, and nobody
is at the keyboard. In the morning every experiment is completed, with the bits of a quiet night.

Only the open `dora grid` acts. A job's steps are slow while a file says so, so that there is time
to hit it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from grid_project import GridProject
from project import same_run

from dora_train.engine.experiment.folder import Experiment

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

RUNS = 12
STEP = "def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:"
SLOW = f"""{STEP}
        import os, time
        if os.path.exists(os.environ["DORA_DIR"] + "/slow"):
            time.sleep(0.3)"""
MANY = [
    "launcher.slurm_(cpus_per_gpu=1, mem_per_gpu=1, time=60)",
    f"for seed in range({RUNS}):",
    '    launcher({"trainer.max_epochs": 20}, "trainer.accelerator=cpu", seed=seed)',
]


class Night(GridProject):
    """A grid of twelve small runs, and what befalls them."""

    def __init__(self, folder: Path, cluster):
        super().__init__(folder, cluster)
        self.hasten()
        module = self.folder / "dora_train" / "module.py"
        assert STEP in module.read_text()
        module.write_text(module.read_text().replace(STEP, SLOW))
        self.out.mkdir()
        self.slow = self.out / "slow"
        self.slow.touch()

    def hit(self, node: str) -> list[Experiment]:
        """The experiments that run on a node, once each has saved a checkpoint in this attempt.

        SLURM would start some jobs again by itself. Here none of them is, as on many clusters.
        """
        self.cluster.wait(lambda: self.saved_on(node), timeout=180)
        for job_id in self.cluster.run("squeue", "--noheader", "--format=%i").split():
            self.cluster.run("scontrol", "update", f"JobId={job_id}", "Requeue=0", check=False)
        return self.saved_on(node)

    def saved_on(self, node: str) -> list[Experiment]:
        """The experiments that run on a node. Empty until each has saved a checkpoint."""
        words = ("squeue", "--noheader", f"--nodelist={node}", "--states=R", "--format=%i")
        jobs = self.cluster.run(*words).split()
        found = []
        for xp in self.xps():
            job, run = xp.job(), xp.state()
            if job is None or job.job_id not in jobs:
                continue
            if run.job_id != job.job_id or run.fruitless or not run.epoch:
                return []
            found.append(xp)
        return found

    def befall(self, node: str, *words: str) -> None:
        """Hit a node, and see all that ran there submitted again."""
        xps = self.hit(node)
        numbers = {xp.sig: xp.job_number() for xp in xps}
        assert xps
        if words:
            self.cluster.run(*words)
        else:
            self.cluster.kill_node(node)
        self.cluster.wait(lambda: all(xp.job_number() > numbers[xp.sig] for xp in xps), timeout=120)
        self.cluster.resume_node(node)


def test_nobody_is_at_the_keyboard(tmp_path, cluster, listener):
    night = Night(tmp_path, cluster)
    night.grid(f"launcher.bind_({{'notify': '{listener.address}'}})", *MANY)
    command = night.fork("grid", "question")
    cluster.run("scontrol", "update", "PartitionName=main", "PreemptMode=CANCEL")
    try:
        urgent = ("--partition=urgent", "--nodelist=n1", "--exclusive", "--wrap=sleep 1")
        night.befall("n1", "sbatch", f"--output={cluster.folder}/urgent.out", *urgent)
        night.befall("n2", "scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
        night.befall("n1")
        cluster.restart_controller()
        night.slow.unlink()
        assert command.wait(300) == 0, command.text
    finally:
        cluster.run("scontrol", "update", "PartitionName=main", "PreemptMode=REQUEUE")
    out = command.text
    assert f"{RUNS} completed" in out
    for reason in ("preempted", "node lost"):
        assert f"submitted again: it was interrupted: {reason}" in out, out
    cluster.wait(lambda: listener.got)
    assert [one["title"] for one in listener.got] == [f"question: {RUNS} completed"]
    assert "interruptions" in listener.got[0]["message"], "what it used"
    quiet = night.elsewhere(tmp_path / "quiet")
    for xp in night.xps()[::6]:
        quiet.dora("run", *xp.argv())
        same_run(xp, Experiment(quiet.out / "xps" / xp.sig))
