"""On a real SLURM: requeued, signalled, preempted, killed, its node lost, and in the end the same
bits as `dora run`.

A job's steps are slow while a file says so: there is time to hit it, and none is lost once it was
hit.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from forked import Run
from grid_project import GridProject
from project import Project
from slurm_cluster import ClusterError, is_alive
from test_exact import same

from dora_train.engine.experiment import claims
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import State

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

EPOCHS = "trainer.max_epochs=30"
STEP = "def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:"
CHAOS = int(os.environ.get("DORA_TRAIN_CHAOS", "0"))
# The last ten epochs take much longer: on a busy machine, a job must not end before its turn comes.
SLOW = f"""{STEP}
        import os, time
        if os.path.exists(os.environ["DORA_DIR"] + "/slow"):
            time.sleep(0.2 if self.current_epoch < 20 else 2.0)"""
LINE = f"launcher('{EPOCHS}', 'trainer.accelerator=cpu', "


class Cluster(GridProject):
    """A project whose jobs are slow until `fast` is called."""

    def __init__(self, folder: Path, cluster):
        super().__init__(folder, cluster)
        module = self.folder / "dora_train" / "module.py"
        assert STEP in module.read_text()
        module.write_text(module.read_text().replace(STEP, SLOW))
        self.out.mkdir()
        self.slow = self.out / "slow"
        self.slow.touch()

    def submitted(self, *lines: str, code: int = 0) -> list[Experiment]:
        """The experiments of a grid of these lines, in the order of their seeds."""
        self.grid(*lines)
        self.sync(code=code)
        return sorted(self.xps(), key=lambda xp: xp.birth().config["seed"])  # type: ignore[union-attr]

    def saved_anew(self, xp: Experiment) -> None:
        """Wait for a checkpoint that is not there yet: from here on the attempt is not in vain, and
        has work left."""
        before = saved(xp)
        try:
            self.cluster.wait(lambda: saved(xp) > before, timeout=120)
        except ClusterError as error:
            log = (xp.folder / "train.log").read_text()[-2000:]
            raise AssertionError(f"{error}\n{xp.state()}\n{log}") from None
        assert self.slow.exists() and xp.state().state is State.RUNNING

    def job(self, xp: Experiment) -> str:
        """Its job as SLURM names it:

        `12`, or `12_0` in an array, where a number alone may be the whole array.
        """
        return xp.job().job_id  # type: ignore[union-attr]

    def finished(self, *xps: Experiment) -> None:
        """At full speed to the end."""
        self.slow.unlink(missing_ok=True)
        self.cluster.wait(lambda: all(xp.state().state.ended for xp in xps), timeout=200)
        assert [xp.state().state for xp in xps] == [State.COMPLETED] * len(xps), [
            xp.state().cause for xp in xps
        ]

    def undisturbed(self, *args: str, name: str = "undisturbed") -> Experiment:
        """`dora run` with the same settings, in the same project."""
        project = Project(self.folder.parent / name, self.folder)
        run = Run(project, "run", "debug=fast", EPOCHS, "trainer.accelerator=cpu", *args)
        assert run.wait(240) == 0, run.text
        return project.xp

    def seen_as(self, word: str, xp: Experiment) -> None:
        shown = self.dora("info", "-f", xp.sig)
        assert f"state      {word}" in shown, shown


def saved(xp: Experiment) -> int:
    return xp.last_checkpoint.stat().st_mtime_ns if xp.last_checkpoint.exists() else 0


def pid(xp: Experiment) -> int:
    holder = claims.latest(xp)
    assert holder and holder.alive()
    return holder.pid


def lives(process: int) -> bool:
    return psutil.pid_exists(process) and is_alive(psutil.Process(process))


@pytest.fixture
def project(tmp_path, cluster) -> Cluster:
    return Cluster(tmp_path, cluster)


# --- what befalls a job: each starts it again by itself ---


def requeue(project: Cluster, xp: Experiment) -> None:
    project.cluster.run("scontrol", "requeue", project.job(xp))


def usr2(project: Cluster, xp: Experiment) -> None:
    project.cluster.run("scancel", "--signal=USR2", project.job(xp))


def term(project: Cluster, xp: Experiment) -> None:
    project.cluster.run("scancel", "--signal=TERM", project.job(xp))


def preempt(project: Cluster, xp: Experiment) -> None:
    node = project.cluster.run("squeue", "--noheader", f"--jobs={project.job(xp)}", "--format=%N")
    project.cluster.sbatch("true", "--partition=urgent", f"--nodelist={node}", "--exclusive")


def lose_node(project: Cluster, xp: Experiment) -> None:
    node = project.cluster.run("squeue", "--noheader", f"--jobs={project.job(xp)}", "--format=%N")
    project.cluster.kill_node(node)  # it goes on on the other one


def befall(project: Cluster, what: Callable, xp: Experiment) -> None:
    """Hit a job that runs, with work left, and see it wait for its next start."""
    attempt, job = claims.latest(xp), project.job(xp)
    project.saved_anew(xp)
    what(project, xp)
    project.cluster.hurry(job)
    project.cluster.wait(lambda: claims.latest(xp) != attempt, timeout=120)


def test_a_job_goes_on_after_each_of_them(project: Cluster):
    [xp] = project.submitted(f"{LINE} seed=1)")
    project.cluster.wait(lambda: claims.latest(xp))
    for what in (requeue, usr2, term, preempt, lose_node):
        befall(project, what, xp)
    project.finished(xp)
    same(xp, project.undisturbed("seed=1"))
    assert xp.state().attempt == 6


def test_what_does_not_start_again_by_itself(project: Cluster):
    """kill -9, preemption in CANCEL mode, scancel: the next sync takes it up; of a cancelled one
    `--retry` does."""
    [xp] = project.submitted(f"{LINE} seed=1)")
    project.saved_anew(xp)
    os.kill(pid(xp), signal.SIGKILL)
    project.cluster.wait(lambda: not project.live())
    project.seen_as("interrupted", xp)

    project.sync()
    project.saved_anew(xp)
    project.cluster.run("scontrol", "update", "PartitionName=main", "PreemptMode=CANCEL")
    try:
        preempt(project, xp)
        project.cluster.wait(lambda: not project.live())
    finally:
        project.cluster.run("scontrol", "update", "PartitionName=main", "PreemptMode=REQUEUE")
    project.seen_as("interrupted", xp)

    project.sync()
    project.saved_anew(xp)
    project.cluster.run("scancel", project.job(xp))
    project.cluster.wait(lambda: not project.live())
    project.seen_as("cancelled", xp)
    assert "1 cancelled" in project.sync(code=1) and not project.live(), (
        "a cancelled job stays cancelled"
    )
    project.dora("grid", "question", "--no_monitoring", "--retry")
    project.saved_anew(xp)
    project.finished(xp)
    same(xp, project.undisturbed("seed=1"))


def test_the_time_limit(project: Cluster):
    """The limit comes nearer than the delay of the warning:

    SLURM warns at its next look, every 30 s at most.
    """
    [xp] = project.submitted(f"{LINE} {{'trainer.max_epochs': 90, 'seed': 1}})")
    project.saved_anew(xp)
    job, attempt = project.job(xp), claims.latest(xp)
    project.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    project.cluster.wait(lambda: xp.state().state is State.INTERRUPTED, timeout=90)
    assert "SIGUSR2" in xp.state().cause
    project.slow.unlink()
    # else it is warned at once, each time
    project.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    project.cluster.hurry(job)
    project.cluster.wait(lambda: claims.latest(xp) != attempt)
    project.finished(xp)
    same(xp, project.undisturbed("seed=1", "trainer.max_epochs=90"))


def test_an_array(project: Cluster):
    """One task after a signal, the other after a requeue; neither disturbs its neighbour."""
    first, second = project.submitted(
        "with launcher.job_array():", f"    {LINE} seed=1)", f"    {LINE} seed=2)"
    )
    project.cluster.wait(lambda: claims.latest(first) and claims.latest(second), timeout=120)
    hits = [(usr2, first), (requeue, second)]
    if CHAOS:
        hits += [(usr2, second), (requeue, first)]
    for what, xp in hits:
        befall(project, what, xp)
    project.finished(first, second)
    assert [xp.state().attempt for xp in (first, second)] == [1 + len(hits) // 2] * 2
    same(first, project.undisturbed("seed=1"))
    same(second, project.undisturbed("seed=2", name="undisturbed 2"))


def test_a_chain_of_dependents(project: Cluster):
    """The first job of the chain leaves at a signal, and the next takes over."""
    [xp] = project.submitted("launcher.slurm_(dependents=1)", f"{LINE} seed=3)")
    project.saved_anew(xp)
    usr2(project, xp)
    project.finished(xp)
    assert xp.state().attempt == 2
    same(xp, project.undisturbed("seed=3"))


SHAPES = ["'job.nodes': 2", "'job.tasks_per_node': 2"]


# Ranks on one node also start in test_grid_slurm.py.
@pytest.mark.parametrize("shape", SHAPES if CHAOS else SHAPES[:1])
def test_two_ranks(project: Cluster, shape: str):
    """On two nodes, and on one: the same bits as two ranks without a cluster."""
    [xp] = project.submitted(f"{LINE} {{{shape}, 'seed': 1, 'threads': 1}})")
    project.cluster.wait(lambda: claims.latest(xp), timeout=120)
    # Each start imports the libraries once for each rank. `make chaos` has time for both.
    for what in (usr2, requeue) if CHAOS else random.sample([usr2, requeue], 1):
        befall(project, what, xp)
    project.finished(xp)
    alone = Project(project.folder.parent / "undisturbed", project.folder)
    alone.dora(
        "run",
        "-d",
        "--ddp_workers",
        "2",
        "debug=fast",
        EPOCHS,
        "trainer.accelerator=cpu",
        "seed=1",
        "threads=1",
    )
    same(xp, alone.xp)


def restarted(project: Cluster) -> None:
    """Nodes that were lost are there again, and what was requeued starts at once."""
    for node, state in project.cluster.node_states().items():
        if "down" in state:
            project.cluster.resume_node(node)
    project.cluster.hurry_all()


def kill(project: Cluster, xp: Experiment) -> None:
    os.kill(pid(xp), signal.SIGKILL)


def test_chaos(project: Cluster):
    """Experiments, while requeues, signals, kills, preemptions and lost nodes come at random.

    Each hits a living process with work left: its steps are slow until all have come.
    """
    seed = int(os.environ.get("DORA_TRAIN_SEED", "0")) or random.randrange(10**6)
    print(f"DORA_TRAIN_SEED={seed}")
    draws, known = random.Random(seed), [requeue, usr2, term, preempt, lose_node, kill]
    xps = project.submitted(*(f"{LINE} seed={number})" for number in range(6 if CHAOS else 4)))

    def running() -> list[Experiment]:
        """Those whose attempt is not in vain any more."""
        return [
            xp
            for xp in xps
            if (holder := claims.latest(xp)) and holder.alive() and saved(xp) > holder.since * 1e9
        ]

    def can_be_hit() -> list[Experiment]:
        restarted(project)
        if not project.live():
            project.sync()
        return running()

    for _ in range(CHAOS // 10 or 3):
        project.cluster.wait(can_be_hit, timeout=120)
        time.sleep(draws.uniform(0, 2))
        what, victim = draws.choice(known), draws.choice(project.cluster.wait(running))
        before, process = claims.latest(victim), pid(victim)
        what(project, victim)
        project.cluster.wait(lambda process=process: not lives(process))
        assert claims.latest(victim) == before and victim.state().state is not State.COMPLETED, (
            what.__name__
        )
        project.sync()
    project.slow.unlink()

    def over() -> bool:
        can_be_hit()
        return all(xp.state().state is State.COMPLETED for xp in xps)

    project.cluster.wait(over, timeout=400)
    for number, xp in enumerate(xps):
        same(xp, project.undisturbed(f"seed={number}", name=f"undisturbed {number}"))
