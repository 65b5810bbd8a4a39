"""The test cluster itself: what the other SLURM tests take for granted, and that it leaves nothing
behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm_cluster import ClusterError, SlurmCluster, expand, is_alive, is_open, poll, processes

pytestmark = pytest.mark.slurm


@pytest.fixture
def folder(slurm_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a cluster of the test's own; `tmp_path` carries the test's name, too long for a
    socket's path."""
    return tmp_path_factory.mktemp("own")


def test_job_completes_in_accounting(cluster: SlurmCluster) -> None:
    job = cluster.sbatch("echo $CUDA_VISIBLE_DEVICES", "--gres=gpu:2")
    assert cluster.wait_state(job, "COMPLETED") == "COMPLETED"
    assert (cluster.folder / f"job-{job}.out").read_text() == "0,1\n"


def test_both_nodes_run_one_step(cluster: SlurmCluster) -> None:
    nodes = cluster.run("srun", "--nodes=2", "printenv", "SLURMD_NODENAME").split()
    assert sorted(nodes) == ["n1", "n2"]


def test_failing_job_is_failed(cluster: SlurmCluster) -> None:
    job = cluster.sbatch("exit 3")
    assert cluster.wait_state(job, "FAILED") == "FAILED"
    with pytest.raises(ClusterError, match="ended as FAILED"):
        cluster.wait_state(job, "COMPLETED")


def test_array_tasks_have_their_own_states(cluster: SlurmCluster) -> None:
    job = cluster.sbatch("sleep ${SLURM_ARRAY_TASK_ID}00", "--array=0-3", "--cpus-per-task=4")
    cluster.wait_state(f"{job}_0", "COMPLETED")
    for task, state in enumerate(["RUNNING", "RUNNING", "PENDING"], start=1):
        cluster.wait_state(f"{job}_{task}", state)


def test_expand_array_ids() -> None:
    assert expand("12_[0-2,5%4]") == ["12_0", "12_1", "12_2", "12_5"]
    assert expand("12_3") == ["12_3"]


def test_cancel_all_ends_a_stubborn_job(cluster: SlurmCluster) -> None:
    job = cluster.sbatch("trap '' TERM; sleep 600; sleep 600")
    cluster.wait_state(job, "RUNNING", live=True)
    start = time.monotonic()
    cluster.cancel_all()
    assert time.monotonic() - start < 4, "KillWait alone is 5 s"
    assert cluster.wait_state(job, "CANCELLED") == "CANCELLED"
    assert set(cluster.node_states().values()) == {"idle"}


def test_urgent_job_preempts_and_hurry_restarts(cluster: SlurmCluster) -> None:
    victims = [cluster.sbatch("sleep 600", "--cpus-per-task=4") for _ in range(2)]
    for victim in victims:
        cluster.wait_state(victim, "RUNNING", live=True)
    urgent = cluster.sbatch("sleep 600", "--cpus-per-task=4", "--partition=urgent")
    cluster.wait_state(urgent, "RUNNING", live=True)
    [preempted] = [victim for victim in victims if cluster.live_jobs()[victim] != "RUNNING"]
    cluster.run("scancel", urgent)
    cluster.hurry(preempted)
    assert cluster.wait_state(preempted, "RUNNING", live=True, timeout=8) == "RUNNING"


def test_killed_node_loses_its_job_and_comes_back(cluster: SlurmCluster) -> None:
    job = cluster.sbatch("sleep 600", "--nodelist=n1")
    cluster.wait_state(job, "RUNNING", live=True)
    # a job runs, as the controller counts it, before its node has started a process for it
    poll(lambda: bool(processes(cluster.folder, "n1")), timeout=30)
    assert not processes(cluster.folder, "n2")
    cluster.kill_node("n1")
    assert not processes(cluster.folder, "n1")
    assert "down" in cluster.node_states()["n1"]
    cluster.wait_state(job, "PENDING", live=True)
    cluster.resume_node("n1")
    cluster.wait(lambda: cluster.node_states()["n1"] == "idle")


def test_stop_leaves_nothing(folder: Path) -> None:
    with SlurmCluster(folder) as cluster:
        job = cluster.sbatch("trap '' TERM; setsid sleep 600 & sleep 600")
        cluster.wait_state(job, "RUNNING", live=True)
        # munged, mariadbd, slurmdbd, slurmctld and its child, two slurmd, slurmstepd, the script
        # and its two children
        poll(lambda: len(processes(folder)) == 11, timeout=10)
        started = processes(folder)
    assert not [process for process in started if is_alive(process)]
    assert not processes(folder)
    assert not [name for name, port in cluster.ports.items() if is_open(port)]
    cluster.stop()


def test_guard_sweeps_up_after_a_kill(folder: Path) -> None:
    code = "import pathlib, slurm_cluster as s, time; s.SlurmCluster(pathlib.Path({!r})).start(); time.sleep(600)"
    command = [sys.executable, "-c", code.format(str(folder))]
    with subprocess.Popen(command, cwd=Path(__file__).parent) as session:
        try:
            poll(lambda: len(processes(folder)) == 7, timeout=30)
        finally:
            session.kill()
    poll(lambda: not processes(folder), timeout=10)


def test_failed_start_names_the_daemon_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurm_cluster.SLURMDBD_CONF", "Nonsense=1\n")
    with pytest.raises(ClusterError, match=r"slurmdbd did not come up(.|\n)*Nonsense"):
        SlurmCluster(folder).start()
    assert not processes(folder)


def test_long_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        SlurmCluster(tmp_path / ("long" * 20))
