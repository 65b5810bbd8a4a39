"""What an open `dora grid` submits again by itself, when, and when it gives up."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import pytest
from experiments import experiment
from grid_project import GridProject
from project import same_run

from dora_train.engine.errors import UserError
from dora_train.engine.experiment import claims
from dora_train.engine.experiment.records import Job, State
from dora_train.engine.grid import healing
from dora_train.engine.grid.faultless import is_faultless
from dora_train.engine.grid.request import Outcome
from dora_train.engine.watch.status import Status


@dataclass
class XP:
    sig: str
    values: dict[str, Any] = field(default_factory=dict)


class Sheep:
    """One experiment of a grid, whose last attempt was cut off."""

    def __init__(self, folder, cause="preempted", state=State.INTERRUPTED, **job):
        self.experiment = experiment(folder, {"seed": 1}, state=State.RUNNING)
        self.xp = XP(self.experiment.sig)
        self.status = Status(state, cause)
        token, user = "aaaaaaaaaaaa", claims.user_name()
        self.experiment.intend_job(replace(Job(token, "slurm", 1.0, user=user, number=1), **job))
        self.experiment.record_job(1, "12")
        claims.claim(self.experiment, "12", token)
        self.said(fruitless=0)

    def said(self, **changes):
        self.experiment.write_state(replace(self.experiment.state(), attempt=1, **changes))

    @property
    def faultless(self) -> bool:
        return is_faultless(self.experiment, self.status)


@pytest.mark.parametrize(
    "cause",
    [
        "preempted",
        "node lost: n1",
        "its job is gone, and the scheduler does not know how",
        "all its processes are gone",
        "its queue is gone",
        "its process is gone",
        "killed by signal 9",
        "interrupted by SIGTERM",
        "interrupted by SIGUSR2",
        "another rank is gone",
    ],
)
def test_what_is_no_fault_of_its_own(tmp_path, cause):
    assert Sheep(tmp_path, cause).faultless


@pytest.mark.parametrize(
    "cause",
    [
        "killed by signal 11",  # a bug
        "interrupted by SIGINT",  # a person
        "interrupted by SIGHUP",
        "left with exit code 0",
        "its job ended without reporting a result",
    ],
)
def test_what_a_person_or_the_run_itself_did(tmp_path, cause):
    assert not Sheep(tmp_path, cause).faultless


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.STOPPED, State.COMPLETED])
def test_an_end_is_left_alone(tmp_path, state):
    assert not Sheep(tmp_path, "out of memory", state).faultless


def test_a_time_limit_counts_if_there_was_progress(tmp_path):
    sheep = Sheep(tmp_path, "time limit", State.TIMED_OUT)
    assert sheep.faultless
    sheep.said(fruitless=1)
    assert not sheep.faultless
    sheep.said(fruitless=0)
    sheep.status = Status(State.TIMED_OUT, "deadline")
    assert not sheep.faultless


def test_not_sure_cancelled_or_of_another_user(tmp_path):
    sheep = Sheep(tmp_path / "sure")
    sheep.status = replace(sheep.status, certain=False)
    assert not sheep.faultless
    sheep = Sheep(tmp_path / "cancelled")
    sheep.experiment.cancel_job(1, "jane")
    assert not sheep.faultless
    assert not Sheep(tmp_path / "jane", user="jane").faultless


def test_a_run_of_a_terminal_is_left_to_its_person(tmp_path):
    sheep = Sheep(tmp_path)
    sheep.experiment.write_state(replace(sheep.experiment.state(), state=State.INTERRUPTED))
    claims.claim(sheep.experiment)  # `dora run`, after the job
    assert not sheep.faultless


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(healing.time, "monotonic", lambda: self.now)


class Night:
    """A grid of one experiment, whose jobs are cut off again and again."""

    def __init__(self, sheep, monkeypatch):
        self.sheep, self.clock = sheep, Clock(monkeypatch)
        self.healing = healing.Healing("mysweep")
        self.submitted: list[float] = []
        self.trouble = ""
        monkeypatch.setattr(healing, "look", self.look)

    def look(self, experiments, executor):
        return {self.sheep.xp.sig: self.status}

    def resume(self, due):
        if self.trouble:
            raise UserError(self.trouble)
        self.submitted.append(self.clock.now)
        self.status = Status(State.RUNNING)
        return [Outcome(one.experiment, "13") for one in due]

    def cut_off(self, seconds: float = 5000) -> float:
        """The seconds from an interruption to the next submission. 0: there was none."""
        self.sheep.status = self.status = Status(State.INTERRUPTED, "preempted")
        began, before = self.clock.now, len(self.submitted)
        while self.healing.heal([self.sheep], None, self.resume):
            assert self.clock.now < began + seconds
            self.clock.now += 1
        self.healing.heal([self.sheep], None, self.resume)
        return self.clock.now - began if len(self.submitted) > before else 0.0


def test_it_waits_longer_each_time_and_gives_up_without_a_new_checkpoint(
    tmp_path, monkeypatch, capsys
):
    night = Night(Sheep(tmp_path), monkeypatch)
    waits = [night.cut_off() for _ in range(4)]
    assert waits == [10, 20, 40, 0]
    out = capsys.readouterr().out
    assert out.count("submitted again: it was interrupted: preempted") == 3
    assert out.count("not submitted again: 3 attempts without a new checkpoint") == 1
    assert "dora grid mysweep" in out
    night.healing.heal([night.sheep], None, night.resume)
    assert not capsys.readouterr().out, "it is said once"


def test_a_new_checkpoint_begins_the_count_anew(tmp_path, monkeypatch):
    night = Night(Sheep(tmp_path), monkeypatch)
    for number in range(6):
        night.sheep.experiment.last_checkpoint.write_bytes(b"%d" % number)
        aside = night.sheep.experiment.folder / "new"
        aside.write_bytes(b"%d" % number)
        aside.replace(night.sheep.experiment.last_checkpoint)
        assert night.cut_off() == 10
    assert [night.cut_off() for _ in range(3)] == [20, 40, 0]


def test_what_the_run_itself_counts_ends_it_too(tmp_path, monkeypatch):
    night = Night(Sheep(tmp_path), monkeypatch)
    night.sheep.said(fruitless=3)
    assert night.cut_off() == 0


def test_it_can_be_turned_off(tmp_path, monkeypatch):
    monkeypatch.setenv("DORA_HEAL", "0")
    night = Night(Sheep(tmp_path), monkeypatch)
    assert night.cut_off() == 0 and not night.healing.minds(night.sheep.experiment, night.status)


def test_a_refused_submission_is_tried_again_and_given_up(tmp_path, monkeypatch, capsys):
    night = Night(Sheep(tmp_path), monkeypatch)
    night.trouble = "no such partition"
    assert night.cut_off() == 0
    assert capsys.readouterr().err.count("no such partition") == 3


# --- on the queue of this machine ---


def kill_jobs(machine, *spared: int) -> None:
    """End all that runs for a queue but these processes, as a restart of the machine would."""
    while found := [one for one in machine.processes() if one.pid not in spared]:
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=0.2)


LONG = '{"trainer.max_epochs": 40}'


@pytest.mark.slow
def test_a_restart_of_the_machine(tmp_path, machine):
    """Nobody calls a command: the open grid submits its jobs again, and they end with equal bits."""
    project = GridProject(tmp_path, machine)
    project.hasten()
    project.grid(*[f"launcher({LONG}, seed={seed})" for seed in (1, 2)])
    command = project.fork("grid", "question")
    machine.wait(lambda: [xp for xp in project.xps() if xp.state().epoch > 1][1:], 120)
    kill_jobs(machine, command.process.pid)
    assert command.wait(240) == 0 and "2 completed" in command.text, command.text
    again = "submitted again: it was interrupted: all its processes are gone"
    assert command.text.count(again) == 2
    code = [xp.job_at(1).code["hash"] for xp in project.xps()]
    assert [xp.job().code["hash"] for xp in project.xps()] == code, "the same code"
    undisturbed = project.elsewhere(tmp_path / "undisturbed")
    for seed in (1, 2):
        undisturbed.dora("run", "debug=fast", "trainer.max_epochs=40", f"seed={seed}")
    for one, other in zip(project.xps(), undisturbed.xps(), strict=True):
        same_run(one, other)
