"""The real `dora grid`, `launch` and `info`, each test on a real SLURM and on the queue of this
machine.

Each has a copy of the project of its own. Jobs that only have to exist sleep (`setup`), before any
Python starts.
"""

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from grid_project import ASLEEP, DORA, HEAD, GridProject

from dora_train.engine.experiment import claims
from dora_train.engine.experiment.records import State


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


def on_terminal(project: GridProject, *command: object, answer: str = "", code: int = 0) -> str:
    """What a command shows on a terminal of its own, which asks for an answer at the most once."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=project.folder,
        env=project.env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    shown = ""
    while True:
        try:
            shown += os.read(ours, 4096).decode()
        except OSError:  # its other end is closed
            break
        if shown.rstrip().endswith("[y/N]"):
            os.write(ours, f"{answer}\n".encode())
    os.close(ours)
    assert process.wait(30) == code, shown
    return shown


def test_to_completion_then_a_line_more_and_one_less(project):
    project.grid("launcher(seed=1)", "launcher(seed=2)")
    out = project.dora("grid", "question")
    assert "question: + 2 new" in out and "2 completed" in out and out.count("completed: ") == 2
    assert [xp.state().state for xp in project.xps()] == [State.COMPLETED] * 2
    assert "= 2 kept" in project.sync()
    project.grid("launcher(seed=2)", "launcher(seed=3)")
    out = project.dora("grid", "question")
    assert "+ 1 new  = 1 kept  (1 no longer named)" in out and "2 completed" in out
    links = list((project.out / "grids" / "question").iterdir())
    assert len(links) == 2 and all(
        link.is_symlink() and not Path(os.readlink(link)).is_absolute() for link in links
    )
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


@pytest.mark.slow
def test_what_waits_in_a_queue_that_is_gone_or_cannot_be_asked(here):
    here.grid(ASLEEP, *[f"launcher(seed={seed})" for seed in (1, 2, 3)])  # two run, one waits
    here.sync()
    here.cluster.kill_all()
    shutil.rmtree(here.cluster.folder)
    assert "~ 3 resume" in here.sync() and len(here.live()) == 3
    for xp in here.xps():  # as if another machine had submitted them
        content = json.loads((xp.jobs / "2.json").read_text()) | {
            "queue": "q0",
            "queue_folder": "/q0",
        }
        content["writer"] |= {"host": "node7", "boot_id": "of node7"}
        (xp.jobs / "2.json").write_text(json.dumps(content))
    for flags in ([], ["--retry"], ["--clear"]):
        out = here.dora("grid", "question", "--no_monitoring", *flags, DORA_YES="1")
        assert "= 3 kept" in out and len(here.live()) == 3
        assert "DORA_TAKE=1 " in out and "dora grid question" in out
    shown = here.dora("info", "-f", here.xps()[0].sig)
    assert (
        "cannot be reached from this machine" in shown
        and "DORA_TAKE=1 " in shown
        and "dora run -f" in shown
    )
    here.cluster.kill_all()
    assert "+ 3 new" in here.dora(
        "grid", "question", "--no_monitoring", "--clear", DORA_YES="1", DORA_TAKE="1"
    )


@pytest.mark.slow
def test_on_a_terminal_it_asks_once_before_it_cancels_and_enter_means_no(here):
    here.grid(ASLEEP, "launcher(seed=1)", "launcher(seed=2)")
    here.sync()
    here.grid(ASLEEP, "launcher(seed=1)", "launcher(seed=3)")
    command = (DORA, "grid", "question", "--no_monitoring")
    shown = on_terminal(here, *command, code=1)
    assert "- 1 cancel" in shown and shown.count("[y/N]") == 1 and "nothing was done" in shown
    assert len(here.live()) == 2 and len(here.xps()) == 2
    on_terminal(here, *command, answer="y")
    assert len(here.xps()) == 3
    here.cluster.wait(lambda: len(here.live()) == 2)


@pytest.mark.slow
def test_what_a_terminal_runs_or_ran_is_not_submitted(here):
    terminal = here.start("run", "debug=fast", "trainer.max_epochs=5000", "seed=2")
    here.cluster.wait(lambda: any(xp.state().epoch for xp in here.xps()))
    terminal.send_signal(signal.SIGSTOP)  # it lives, and takes nobody's time
    here.dora("run", "debug=fast", "seed=1")
    here.grid("launcher(seed=1)", 'launcher({"trainer.max_epochs": 5000}, seed=2)')
    out = here.sync()
    assert "= 2 kept" in out and "1 running" in out and "1 completed" in out and not here.live()
    assert "= 2 kept" in here.dora("grid", "question", "--cancel") and terminal.poll() is None
    terminal.kill()
    terminal.communicate(timeout=60)


@pytest.mark.slurm
def test_inside_an_interactive_job_of_slurm(on_slurm):
    """Its variables are all there, and mean nothing to a run or a grid that a person starts."""
    project = on_slurm
    project.grid("launcher(seed=1)")
    line = f"{DORA} run debug=fast && DORA_CLUSTER=local srun --pty --ntasks=1 {DORA} grid question"
    on_terminal(project, "salloc", "--ntasks=2", "bash", "-c", line)
    ran, job = sorted(project.xps(), key=lambda xp: xp.job() is not None)
    assert [xp.state().state for xp in (ran, job)] == [State.COMPLETED] * 2
    assert ran.job() is None and claims.latest(ran).job_id == "" and job.job().cluster == "local"
    assert not list(job.submitit.glob("*_1_log.out")), "one rank"


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
    assert not here.out.exists() and not here.cluster.folder.exists()


def test_a_job_that_fails_before_it_starts_one_that_raises_and_one_that_leaves_without_a_word(
    project,
):
    train = project.folder / "dora_train" / "train.py"
    head = "def main(cfg):\n"
    train.write_text(
        train.read_text().replace(
            head,
            head
            + (
                "    assert cfg.tag != 'boom', 'it broke'\n    if cfg.tag == 'left':\n        import os; os._exit(3)\n"
            ),
        )
    )
    project.grid(
        "launcher(tag='boom')",
        "launcher.slurm(setup=['echo no such module', 'exit 3'])(tag='early')",
        "launcher(tag='left')",
    )
    out = project.dora("grid", "question", code=1)
    assert "AssertionError: it broke" in out and "no such module" in out and "3 failed" in out
    assert "signal" not in out and "= 3 kept" in project.sync(code=1), "code 3 is no signal 3"
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
    project.grid(
        ASLEEP,
        "with launcher.job_array():",
        "    for seed in range(5):",
        "        launcher(seed=seed)",
    )
    project.sync()
    ids = sorted(xp.job().job_id for xp in project.xps())
    assert len({job_id.partition("_")[0] for job_id in ids}) == 1 and len(ids) == 5
    assert "= 5 kept" in project.sync()


def test_ten_commands_at_once_of_two_grids_that_share_experiments(project):
    project.grid(ASLEEP, "launcher(seed=1)", "launcher(seed=2)")
    project.grid(ASLEEP, "launcher(seed=2)", "launcher(seed=3)", name="other")
    commands = [
        project.start("grid", name, "--no_monitoring") for name in ("question", "other") * 5
    ]
    for command in commands:
        out, err = command.communicate(timeout=240)
        assert command.returncode == 0, out + err
    assert len(project.live()) == 3 and [xp.job_number() for xp in project.xps()] == [1, 1, 1]


LOCKS = """
import fcntl, os
real = fcntl.flock
def flock(file, operation):
    path = os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}")
    if not path.startswith(os.environ["DORA_DIR"]):
        return real(file, operation)
    open(os.environ["ASKED"], "a").write(path + chr(10))
    FAILS
fcntl.flock = flock
open(os.environ["ASKED"], "a").write("in place" + chr(10))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["raise OSError(38, 'Function not implemented')", "return None"], ids=["fails", "lies"]
)
def test_without_locks_on_the_outputs_folder(here, tmp_path, how):
    """Network file systems: nothing rests on a lock there."""
    (tmp_path / "sitecustomize.py").write_text(LOCKS.replace("FAILS", how))
    here.env |= {"PYTHONPATH": str(tmp_path), "ASKED": str(tmp_path / "asked")}
    here.grid("launcher(seed=1)", "launcher(seed=2)")
    commands = [here.start("grid", "question") for _ in range(2)]
    for command in commands:
        out, err = command.communicate(timeout=240)
        assert command.returncode == 0 and "2 completed" in out, out + err
    assert [xp.state().attempt for xp in here.xps()] == [1, 1]
    assert "in place" in (tmp_path / "asked").read_text()


class Hostile:
    """The scheduler's commands, as one of them behaves on a bad day."""

    def __init__(self, folder: Path, project: GridProject):
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.path = project.env["PATH"]

    def made(self, program: str, line: str) -> dict[str, str]:
        """An environment in which `program` is `line` of shell; REAL there is the program
        itself."""
        script = self.folder / program
        real = shutil.which(program, path=self.path)
        script.write_text(f"#!/bin/sh\nREAL={real}\n{line}\n")
        script.chmod(0o755)
        return {"PATH": f"{self.folder}:{self.path}"}


@pytest.mark.slurm
@pytest.mark.parametrize("program", ["squeue", "sacct"])
@pytest.mark.parametrize(
    "line",
    ["echo no contact >&2; exit 1", "exit 0", 'sleep 2; exec $REAL "$@"', '$REAL "$@" | head -n 1'],
    ids=["fails", "empty", "slow", "cut"],
)
def test_a_scheduler_that_does_not_answer_ends_nothing(on_slurm, tmp_path, program, line):
    project = on_slurm
    project.grid(ASLEEP, "launcher(seed=1)")
    project.sync()
    project.cluster.wait(
        lambda: "RUNNING" in project.cluster.run("squeue", "--noheader", "--format=%T")
    )
    bad = Hostile(tmp_path, project).made(program, line)
    out = project.sync(**bad)
    assert "= 1 kept" in out and len(project.live()) == 1 and out.count("does not answer") <= 1
    project.dora("info", "-f", project.xps()[0].sig, **bad)
    project.cluster.cancel_all()
    out = project.dora("grid", "question", "--dry_run", **bad)
    assert "completed" not in out and "+ 1 new" not in out, "silence is no end, and no absence"


@pytest.mark.slurm
@pytest.mark.parametrize(
    "line", ['$REAL "$@" >/dev/null', '$REAL "$@" >/dev/null 2>&1; exit 1'], ids=["silent", "fails"]
)
def test_a_job_that_sbatch_does_not_speak_of_is_submitted_once(on_slurm, tmp_path, line):
    project = on_slurm
    project.grid(ASLEEP, "launcher(seed=1)")
    bad = Hostile(tmp_path, project).made("sbatch", line)
    assert "+ 1 new" in project.sync(**bad) and len(project.live()) == 1
    assert project.xps()[0].job().job_id
    assert "= 1 kept" in project.sync() and len(project.live()) == 1


@pytest.mark.slurm
def test_a_cut_answer_about_names_gives_no_intent_up(on_slurm, tmp_path):
    """Killed between sbatch and the record, the job is found by its name."""
    project = on_slurm
    project.grid(ASLEEP, "launcher(seed=1)")
    project.dora("grid", "question", "--no_monitoring", code=137, DORA_FAULT="sbatch")
    time.sleep(5)  # ORPHANED
    project.sync(**Hostile(tmp_path, project).made("squeue", '$REAL "$@" | head -n 1'))
    [xp] = project.xps()
    assert xp.job().job_id and xp.job_number() == 1 and len(project.live()) == 1


@pytest.mark.slurm
@pytest.mark.parametrize(
    "line",
    ["echo Invalid job id specified >&2; exit 1", "echo no contact >&2; exit 1", "exit 0"],
    ids=["unknown", "fails", "empty"],
)
def test_a_cancellation_that_does_not_arrive_is_not_believed(on_slurm, tmp_path, line):
    project = on_slurm
    project.grid(ASLEEP, "launcher(seed=1)")
    project.sync()
    bad = Hostile(tmp_path, project).made("scancel", line)
    out = project.dora("grid", "question", "--cancel", **bad)
    assert ("scancel does not answer" in out) == ("contact" in line)
    assert len(project.live()) == 1 and "1 cancelled" not in project.sync()
    assert "- 1 cancel" in project.dora("grid", "question", "--cancel")
    project.cluster.wait(lambda: not project.live())


ARRAY = ["with launcher.job_array():", "    launcher(seed=1)", "    launcher(seed=2)"]


@pytest.mark.parametrize(
    "point, lines, live",
    [("sbatch", ["launcher(seed=1)"], 1), ("one intent", ARRAY, 0), ("one record", ARRAY, 2)],
)
def test_killed_between_intent_and_record(project, point, lines, live):
    project.grid(ASLEEP, *lines)
    project.dora("grid", "question", "--no_monitoring", code=137, DORA_FAULT=point)
    before = project.live()
    assert len(before) == live
    project.sync()
    jobs = [xp.job() for xp in project.xps()]
    assert len(jobs) == len(project.live()) == 1 + (lines is ARRAY) and all(
        job.job_id for job in jobs
    )
    assert {job.name for job in jobs} == set(project.live()) and (
        not before or before == project.live()
    )


def test_killed_between_a_cancellation_and_the_job_in_its_place(project):
    project.grid(
        'launcher.slurm_(setup=["sleep 300"], nodelist=["n1"], cpus_per_gpu=4)', "launcher(seed=1)"
    )
    project.sync()
    out = project.dora(
        "grid", "question", "-R", "--no_monitoring", code=137, DORA_FAULT="cancelled"
    )
    assert "~ 1 replace" in out
    project.cluster.wait(lambda: not project.live())
    assert "~ 1 resume" in project.sync() and len(project.live()) == 1


def test_other_resources_replace_a_job_that_waits(project):
    # more than there are
    project.grid(ASLEEP, 'launcher.slurm_(constraint="")', "launcher.slurm(gpus=4)(seed=1)")
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
    project.grid(
        quick,
        *(["with launcher.job_array():", *(f"    {call}" for call in calls)] if array else calls),
    )
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
    project.cluster.wait(
        lambda: len(project.xps()) == 3 and any(xp.job() and xp.job().held for xp in project.xps())
    )
    project.grid(ASLEEP, "launcher(seed=0)")
    project.sync(DORA_YES="1")
    project.cluster.cancel_all()
    _, err = watching.communicate(timeout=90)
    assert "this one only watches" in err and not project.live(), err


def test_jobs_that_wait_with_older_code(project):
    if project.is_local:
        project.grid(
            'launcher.slurm_(setup=["sleep 300"])',
            *[f"launcher(seed={seed})" for seed in (1, 2, 3)],
        )
    else:
        project.grid('launcher({"sbatch.begin": "now+1hour"}, seed=1)')
    project.sync()
    ids = {xp.job().job_id for xp in project.xps()}
    module = project.folder / "dora_train" / "module.py"
    module.write_text(module.read_text() + "\n# mended\n")
    assert "1 that wait run older code; today's: DORA_UPDATE=1" in project.sync()
    out = project.sync(DORA_UPDATE="1")
    assert (
        "waiting, with older code" in out
        and len({xp.job().job_id for xp in project.xps()} - ids) == 1
    )
    assert "older code" not in project.sync()


@pytest.mark.slurm
def test_any_option_of_sbatch(on_slurm):
    project = on_slurm
    project.grid(
        ASLEEP,
        'launcher({"sbatch.begin": "now+1hour", "sbatch.mem": "123M"}, seed=1)',
        'launcher({"sbatch.no_such_option": 1}, seed=2)',
        "launcher(seed=1)",
    )
    out = project.sync(code=1)
    assert "no-such-option" in out and "+ 2 new" in out
    assert len(project.live()) == 1, "what sbatch is told does not count in the signature"
    shown = project.cluster.run("squeue", "--noheader", "--format=%T %r %m")
    assert shown.split() == ["PENDING", "BeginTime", "123M"]


def test_launch_info_and_cancel(project):
    overrides = ["debug=fast", "trainer.max_epochs=5000"]
    out = project.dora("launch", *overrides, "--no_tail", "-c", "a comment")
    xp = project.xps()[0]
    where = "on this machine (DORA_CLUSTER=local)" if project.is_local else "on SLURM (sbatch found"
    assert f"+ {xp.sig}" in out and f"job {xp.job().job_id} {where}" in out
    assert f"= {xp.sig}" in project.dora("launch", *overrides, "--no_tail")
    shown = project.dora("info", "-j", xp.job().job_id)
    assert shown.startswith(xp.sig) and len(shown.splitlines()) <= 15
    project.cluster.wait(lambda: xp.state().epoch > 0)
    assert "cancelled" in project.dora("info", "-j", xp.job().job_id, "-C")
    project.cluster.wait(lambda: not project.live())
    before = stamps(project.out)
    for flags, words in (
        ([], "cancelled by "),
        (["-l"], f"XP {xp.sig}"),
        (["-t"], "epoch "),
        (["-m"], "Metrics["),
    ):
        assert words in project.dora("info", "-f", xp.sig, *flags)
    assert stamps(project.out) == before, "info changes nothing"
    assert xp.last_checkpoint.exists()


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_ctrl_c_leaves_the_jobs(project):
    project.grid(ASLEEP, "launcher(seed=1)")
    command = project.start("grid", "question")
    project.cluster.wait(project.live)
    time.sleep(4)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=30)
    assert command.returncode == 130 and "1 experiment goes on" in err and "Traceback" not in err, (
        out + err
    )
    assert len(project.live()) == 1


@pytest.mark.slow
def test_mistakes_name_the_line_of_the_grid_file(here):
    lines = len(HEAD.splitlines())
    for line, words in [
        ("launcher({'optim.lrr': 1})", "did you mean optim.lr?"),
        ("launcher.slurm_(gpu=1)", "gpus"),
        ("launcher(model='resnet81')", "resnet"),
    ]:
        here.grid("pass", line)
        out = here.sync(code=1)
        assert (
            out.startswith(f"grids/question.py:{lines + 2}: ")
            and words in out
            and len(out.splitlines()) <= 4
        )
    assert "did you mean question?" in here.sync("questoin", code=1)
    assert not here.out.exists()
