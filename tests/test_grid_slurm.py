"""The real `dora grid`, `launch` and `info`, each test on a real SLURM and on the queue of this machine.

Each has a copy of the project of its own. Jobs that only have to exist sleep (`setup`), before any Python starts.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from grid_project import ASLEEP, HEAD, GridProject

from dora_train.engine.store import State


@pytest.fixture
def project(grids) -> GridProject:
    return grids


@pytest.fixture
def on_slurm(tmp_path, cluster) -> GridProject:
    """For what SLURM alone has."""
    return GridProject(tmp_path, cluster)


@pytest.fixture
def room_for_two(on_slurm) -> Iterator[GridProject]:
    """A cluster that takes two jobs of a user at a time."""
    limit = ("sacctmgr", "--immediate", "modify", "user", "root", "set")
    on_slurm.cluster.run(*limit, "MaxSubmitJobs=2")
    yield on_slurm
    on_slurm.cluster.run(*limit, "MaxSubmitJobs=-1")


@pytest.fixture
def here(tmp_path, machine) -> GridProject:
    """For what no executor has a part in."""
    return GridProject(tmp_path, machine)


def test_to_completion_then_a_line_more_and_one_less(project):
    project.grid('launcher(seed=1)', 'launcher(seed=2)')
    out = project.dora("grid", "question")
    assert "question: + 2 new" in out and "2 completed" in out and out.count("completed: ") == 2
    assert [xp.state().state for xp in project.xps()] == [State.COMPLETED] * 2
    assert "= 2 kept" in project.sync()
    project.grid('launcher(seed=2)', 'launcher(seed=3)')
    out = project.dora("grid", "question")
    assert "+ 1 new  = 1 kept  (1 no longer named)" in out and "2 completed" in out
    links = list((project.out / "grids" / "question").iterdir())
    assert len(links) == 2 and all(link.is_symlink() and not Path(os.readlink(link)).is_absolute() for link in links)
    assert len(project.xps()) == 3


def test_a_removed_line_cancels_but_not_what_another_grid_names(project):
    project.grid(ASLEEP, *[f"launcher(seed={seed})" for seed in (1, 2, 3, 4)])
    project.grid(ASLEEP, "launcher(seed=4)", name="other")
    project.sync()
    assert "= 1 kept" in project.sync("other")
    assert len(project.live()) == 4
    project.grid(ASLEEP, "launcher(seed=1)", "launcher(seed=2)")
    assert "- 1 cancel" in project.sync()
    project.cluster.wait(lambda: len(project.live()) == 3)


@pytest.mark.slow
def test_an_empty_grid_stops_with_the_plan(here):
    here.grid(ASLEEP, "launcher(seed=1)")
    here.sync()
    here.grid("pass")
    assert "DORA_YES=1" in here.sync(code=1) and len(here.live()) == 1
    assert "- 1 cancel" in here.sync(DORA_YES="1")
    here.cluster.wait(lambda: not here.live())


def test_cancel_and_retry(project):
    project.grid(ASLEEP, "launcher(seed=1)", "launcher(seed=2)")
    project.sync()
    assert "- 2 cancel" in project.dora("grid", "question", "--cancel")
    project.cluster.wait(lambda: not project.live())
    out = project.sync(code=1)
    assert "2 cancelled" in out and "--retry" in out and not project.live()
    assert "~ 2 retry" in project.dora("grid", "question", "--no_monitoring", "--retry")
    assert len(project.live()) == 2


@pytest.mark.slow
def test_dry_run_touches_nothing(here):
    here.grid("launcher(seed=1)")
    assert "+ 1 new" in here.dora("grid", "question", "--dry_run")
    assert not here.out.exists() and not here.live()


def test_a_job_that_fails_before_it_starts_and_one_that_raises(project):
    train = project.folder / "dora_train" / "train.py"
    head = "def main(cfg):\n"
    train.write_text(train.read_text().replace(head, head + "    assert cfg.tag != 'boom', 'it broke'\n"))
    project.grid("launcher(tag='boom')", "launcher.slurm(setup=['echo no such module', 'exit 3'])(tag='early')")
    out = project.dora("grid", "question", code=1)
    assert "AssertionError: it broke" in out and "no such module" in out and "2 failed" in out
    boom = next(xp for xp in project.xps() if "boom" in str(xp.argv() or xp.birth().argv))
    shown = project.dora("info", "-f", boom.sig)
    assert "failed" in shown and "it broke" in shown and "grids: question" in shown


@pytest.mark.parametrize("shape", ['{"job.tasks_per_node": 2}', '{"job.nodes": 2}'])
def test_two_ranks_on_one_node_and_on_two(project, shape):
    if project.is_local and "nodes" in shape:
        pytest.skip("test_local_queue.py: a machine is one node")
    project.grid(f"launcher({shape})")
    project.dora("grid", "question")
    xp = project.xps()[0]
    assert xp.state().state == State.COMPLETED and len(xp.history()) == 2
    assert len(list(xp.submitit.glob("*_1_log.out"))) == 1


def test_an_array_is_one_sbatch(project):
    project.grid(ASLEEP, "with launcher.job_array():", "    for seed in range(5):", "        launcher(seed=seed)")
    project.sync()
    ids = sorted(xp.job().job_id for xp in project.xps())
    assert len({job_id.partition("_")[0] for job_id in ids}) == 1 and len(ids) == 5
    assert "= 5 kept" in project.sync()


def test_several_commands_at_once_submit_once(project):
    project.grid(ASLEEP, "launcher(seed=1)", "launcher(seed=2)")
    commands = [project.start("grid", "question", "--no_monitoring") for _ in range(3)]
    for command in commands:
        out, err = command.communicate(timeout=120)
        assert command.returncode == 0, out + err
    assert len(project.live()) == 2


@pytest.mark.parametrize("point", ["intent", "sbatch"])
def test_killed_between_intent_and_record(project, point):
    project.grid(ASLEEP, "launcher(seed=1)")
    project.dora("grid", "question", "--no_monitoring", code=137, DORA_FAULT=point)
    assert len(project.live()) == (point == "sbatch")
    project.sync()
    names = project.live()
    assert len(names) == 1 and project.xps()[0].job().name == names[0] and project.xps()[0].job().job_id


def test_other_resources_replace_a_job_that_waits(project):
    project.grid(ASLEEP, 'launcher.slurm_(constraint="")', "launcher.slurm(gpus=4)(seed=1)")  # more than there are
    assert "refused" in project.sync(code=1)
    one_node = 'launcher.slurm_(setup=["sleep 300"], nodelist=["n1"], cpus_per_gpu=4)'
    project.grid(one_node, *[f"launcher(seed={seed})" for seed in (1, 2, 3)])
    project.sync()
    project.grid(one_node, "launcher(seed=1)", "launcher(seed=2)", "launcher.slurm(time=5)(seed=3)")
    out = project.sync()
    assert "time 10 -> 5" in out and "~ 1 replace  = 2 kept" in out
    project.cluster.wait(lambda: len(project.live()) == 3)


@pytest.mark.slurm
@pytest.mark.parametrize("array", [True, False], ids=["array", "singles"])
def test_what_the_cluster_has_no_room_for_waits_with_us_and_goes_in_later(room_for_two, array):
    project = room_for_two
    quick = 'launcher.slurm_(setup=["sleep 1"])'
    calls = [f"launcher(seed={seed})" for seed in range(5)]
    project.grid(quick, *(["with launcher.job_array():", *(f"    {call}" for call in calls)] if array else calls))
    out = project.sync()
    assert "+ 5 new" in out and "3 queued by us" in out and out.count("waiting: queued by us") == 3
    assert len(project.live()) <= 2
    held = [xp for xp in project.xps() if xp.job().held]
    assert len(held) == 3 and "queued by us" in project.dora("info", "-f", held[0].sig)
    assert "- 1 cancel" not in project.dora("info", "-f", held[0].sig, "-C")
    assert "cancelled" in project.dora("info", "-f", held[0].sig)
    out = project.dora("grid", "question", "--retry")
    assert "5 completed" in out and all(xp.state().attempt == 1 for xp in project.xps())


@pytest.mark.slurm
def test_an_older_monitor_submits_nothing_any_more(room_for_two):
    project = room_for_two
    project.grid(ASLEEP, *[f"launcher(seed={seed})" for seed in range(3)])
    watching = project.start("grid", "question")
    project.cluster.wait(lambda: len(project.xps()) == 3 and any(xp.job() and xp.job().held for xp in project.xps()))
    project.grid(ASLEEP, "launcher(seed=0)")
    project.sync(DORA_YES="1")
    project.cluster.cancel_all()
    _, err = watching.communicate(timeout=90)
    assert "this one only watches" in err and not project.live(), err


def test_jobs_that_wait_with_older_code(project):
    if project.is_local:
        project.grid('launcher.slurm_(setup=["sleep 300"])', *[f"launcher(seed={seed})" for seed in (1, 2, 3)])
    else:
        project.grid('launcher({"sbatch.begin": "now+1hour"}, seed=1)')
    project.sync()
    ids = {xp.job().job_id for xp in project.xps()}
    module = project.folder / "dora_train" / "module.py"
    module.write_text(module.read_text() + "\n# mended\n")
    assert "1 that wait run older code; today's: DORA_UPDATE=1" in project.sync()
    out = project.sync(DORA_UPDATE="1")
    assert "waiting, with older code" in out and len({xp.job().job_id for xp in project.xps()} - ids) == 1
    assert "older code" not in project.sync()


@pytest.mark.slurm
def test_any_option_of_sbatch(on_slurm):
    project = on_slurm
    project.grid(ASLEEP, 'launcher({"sbatch.begin": "now+1hour", "sbatch.mem": "123M"}, seed=1)',
                 'launcher({"sbatch.no_such_option": 1}, seed=2)', 'launcher(seed=1)')
    out = project.sync(code=1)
    assert "no-such-option" in out and "+ 2 new" in out
    assert len(project.live()) == 1, "what sbatch is told does not count in the signature"
    shown = project.cluster.run("squeue", "--noheader", "--format=%T %r %m")
    assert shown.split() == ["PENDING", "BeginTime", "123M"]


def test_launch_info_and_cancel(project):
    overrides = ["debug=fast", "trainer.max_epochs=5000"]
    out = project.dora("launch", *overrides, "--no_tail", "-c", "a comment")
    xp = project.xps()[0]
    assert f"+ {xp.sig}" in out and xp.job().job_id in out
    assert f"= {xp.sig}" in project.dora("launch", *overrides, "--no_tail")
    shown = project.dora("info", "-j", xp.job().job_id)
    assert shown.startswith(xp.sig) and len(shown.splitlines()) <= 15
    project.cluster.wait(lambda: xp.state().epoch > 0)
    project.dora("launch", "-f", xp.sig, "-C")
    project.cluster.wait(lambda: not project.live())
    assert "cancelled by " in project.dora("info", "-f", xp.sig)
    assert xp.last_checkpoint.exists()


def test_ctrl_c_leaves_the_jobs(project):
    project.grid(ASLEEP, "launcher(seed=1)")
    command = project.start("grid", "question")
    project.cluster.wait(project.live)
    time.sleep(4)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=30)
    assert command.returncode == 130 and "go on" in err and "Traceback" not in err, out + err
    assert len(project.live()) == 1


@pytest.mark.slow
def test_mistakes_name_the_line_of_the_grid_file(here):
    lines = len(HEAD.splitlines())
    for line, words in [("launcher({'optim.lrr': 1})", "did you mean optim.lr?"), ("launcher.slurm_(gpu=1)", "gpus"),
                        ("launcher(model='resnet81')", "resnet")]:
        here.grid("pass", line)
        out = here.sync(code=1)
        assert out.startswith(f"grids/question.py:{lines + 2}: ") and words in out and len(out.splitlines()) <= 4
    assert "did you mean question?" in here.sync("questoin", code=1)
    assert not here.out.exists()
