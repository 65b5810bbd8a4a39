"""What squeue and sacct print, as clusters print it; and the questions that are asked."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dora_train.engine.grid import slurm
from dora_train.engine.grid.executor import Phase
from dora_train.engine.grid.slurm import Slurm
from dora_train.engine.grid.slurm_text import expand, read_sacct, read_squeue

SQUEUE = "JOBID|STATE|REASON|NODELIST|USER|NAME\n"
SACCT = "JobID|State|ExitCode|NodeList|User|JobName\n"


@pytest.mark.parametrize("printed, ids", [
    ("12", ["12"]), ("12_4", ["12_4"]), ("12_[4]", ["12_4"]), ("12_[0-2]", ["12_0", "12_1", "12_2"]),
    ("12_[0-7%2]", [f"12_{index}" for index in range(8)]), ("12_[1,5-6%1]", ["12_1", "12_5", "12_6"]),
    ("12_[0-6:3]", ["12_0", "12_3", "12_6"]), ("12_[0-1,...]", ["12_0", "12_1"]),
    ("12+0", ["12"]), ("12.batch", ["12"])])
def test_expand(printed, ids):
    assert expand(printed) == ids


def test_squeue():
    text = SQUEUE + "1|PENDING|Resources||me|dora_a\n2_3|RUNNING|None|n1|me|x|y\n4|COMPLETING|None|n[1-2]|you|z\nodd\n"
    jobs = read_squeue(text)
    assert {job_id: job.phase for job_id, job in jobs.items()} == {
        "1": Phase.PENDING, "2_3": Phase.RUNNING, "4": Phase.RUNNING}
    assert (jobs["1"].reason, jobs["2_3"].name, jobs["4"].node, jobs["4"].user) == ("Resources", "x|y", "n[1-2]", "you")


@pytest.mark.parametrize("state, word, by", [
    ("COMPLETED", "COMPLETED", ""), ("CANCELLED by 0", "CANCELLED", "root"), ("CANCELLED+", "CANCELLED", ""),
    ("CANCELLED by 4000000", "CANCELLED", "user 4000000"), ("OUT_OF_ME+", "OUT_OF_ME", ""),
    ("NODE_FAIL", "NODE_FAIL", "")])
def test_sacct_states(state, word, by):
    info = read_sacct(SACCT + f"7|{state}|0:0|n1|me|name\n7.batch|FAILED|1:0|n1||batch\n")["7"]
    assert (info.phase, info.word, info.by) == (Phase.OVER, word, by)


@pytest.mark.parametrize("exits, code, signal", [
    ("0:0", 0, 0), ("3:0", 3, 0), ("0:9", 0, 9), ("137:0", 0, 9), ("", 0, 0)])
def test_exit_codes(exits, code, signal):
    info = read_sacct(SACCT + f"7|FAILED|{exits}|None assigned|me|name\n")["7"]
    assert (info.exit_code, info.signal, info.node) == (code, signal, "")


# As SLURM 22.05 printed them for tasks under srun, and for the script itself.
@pytest.mark.parametrize("batch, steps, code, signal, exact", [
    ("3:0", "3:0", 3, 0, True), ("9:0", "9:0", 9, 0, True),  # left by itself
    ("9:0", "0:9", 0, 9, True), ("15:0", "0:15", 0, 15, True), ("137:0", "0:9", 0, 9, True),  # killed
    ("9:0", "137:0", 0, 9, True),  # a container's way to say so
    ("72:0", "200:0", 200, 0, True),  # no signal has that number
    ("0:9", "0:0", 0, 9, True), ("0:0", "0:0", 0, 0, True),
    ("9:0", "0:0", 9, 0, False), ("9:0", "", 9, 0, False)])  # the step's end came too late
def test_a_code_is_told_from_a_signal_by_the_steps(batch, steps, code, signal, exact):
    header = "JobID|State|ExitCode|DerivedExitCode|NodeList|User|JobName\n"
    info = read_sacct(header + f"7|FAILED|{batch}|{steps}|n1|me|na|me\n")["7"]
    assert (info.exit_code, info.signal, info.exact, info.name) == (code, signal, exact, "na|me")


@pytest.mark.parametrize("step, code, signal", [("0:9", 0, 9), ("9:0", 9, 0)])
def test_a_step_tells_it_where_the_job_has_not_heard_of_it(step, code, signal):
    text = ("JobID|State|ExitCode|DerivedExitCode|NodeList|User|JobName\n"
            "7|FAILED|9:0|0:0|n1|me|x\n7.batch|FAILED|9:0||n1||batch\n7.extern|COMPLETED|0:0||n1||extern\n"
            f"7.0|FAILED|{step}||n1||python\n8|FAILED|9:0|0:0|n1|me|y\n")
    jobs = read_sacct(text)
    assert sorted(jobs) == ["7", "8"] and (jobs["7"].exit_code, jobs["7"].signal, jobs["7"].exact) == (
        code, signal, True)
    assert not jobs["8"].exact, "the step of another job says nothing"


def test_nothing_printed_is_no_answer():
    assert read_squeue("") is None and read_sacct("") is None and read_sacct("sacct: error\n") is None
    assert read_squeue(SQUEUE) == {} and read_sacct(SACCT) == {}


@given(st.text())
def test_whatever_is_printed_is_read_without_an_error(text):
    for read, header in ((read_squeue, SQUEUE), (read_sacct, SACCT)):
        read(text)
        read(header + text)


class Cluster:
    """squeue, sacct and scancel as functions of their arguments, in the place of processes."""

    def __init__(self, monkeypatch, **programs):
        self.programs, self.commands, self.now = programs, [], 0.0
        monkeypatch.setattr(slurm.subprocess, "run", self.run)
        monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
        self.slurm = Slurm(clock=lambda: self.now)

    def run(self, command, **kwargs):
        self.commands.append(list(command))
        answer = self.programs.get(command[0], FileNotFoundError(2, "No such file or directory"))
        if isinstance(answer, BaseException):
            raise answer
        code, out, err = answer if isinstance(answer, tuple) else (0, answer, "")
        return subprocess.CompletedProcess(command, code, out.encode(), err.encode())

    @property
    def asked(self):
        return [command[0] for command in self.commands]

    def phase(self, job_id="7", **what):
        return self.slurm.jobs([job_id], **what)[job_id].phase


LATE = subprocess.TimeoutExpired("squeue", 30)
FAILING = (1, "", "slurm_load_jobs error: Unable to contact slurm controller")
NOT_THERE = (1, "", "slurm_load_jobs error: Invalid job id specified")


@pytest.mark.parametrize("squeue", [LATE, FAILING, "", OSError(13, "Permission denied")])
@pytest.mark.parametrize("sacct", [LATE, FAILING, "", SACCT, FileNotFoundError(2, "no sacct")])
def test_no_answer_is_unknown_and_said_once(monkeypatch, capsys, squeue, sacct):
    cluster = Cluster(monkeypatch, squeue=squeue, sacct=sacct)
    assert [cluster.phase(force=True) for _ in range(3)] == [Phase.UNKNOWN] * 3
    assert capsys.readouterr().err.count("squeue does not answer") == 1


def test_accounting_alone_is_enough_for_an_end(monkeypatch):
    cluster = Cluster(monkeypatch, squeue=LATE, sacct=SACCT + "7|FAILED|1:0|n1|me|x\n")
    assert cluster.phase() == Phase.OVER


@pytest.mark.parametrize("sacct", [LATE, SACCT, SACCT + "7|RUNNING|0:0|n1|me|x\n"])
def test_gone_from_the_queue_without_a_word_is_over_but_asked_again(monkeypatch, sacct):
    cluster = Cluster(monkeypatch, squeue=NOT_THERE, sacct=sacct)
    info = cluster.slurm.jobs(["7"])["7"]
    assert (info.phase, info.word) == (Phase.OVER, "")
    cluster.programs["sacct"] = SACCT + "7|COMPLETED|0:0|n1|me|x\n"
    cluster.now += 31
    assert cluster.slurm.jobs(["7"])["7"].word == "COMPLETED"


def test_the_scheduler_is_asked_every_30_seconds_at_most(monkeypatch):
    cluster = Cluster(monkeypatch, squeue=SQUEUE + "7|RUNNING|None|n1|me|x\n8|PENDING|None||me|y\n", sacct=SACCT)
    for now in range(60):
        cluster.now = now
        cluster.phase()
    assert cluster.asked.count("squeue") == 2
    cluster.phase("8")  # a job that is new to us
    assert cluster.asked.count("squeue") == 3


def test_an_end_is_not_asked_for_again(monkeypatch):
    cluster = Cluster(monkeypatch, squeue=SQUEUE, sacct=SACCT + "7|COMPLETED|0:0|n1|me|x\n")
    for _ in range(3):
        assert cluster.phase(force=True) == Phase.OVER
    assert cluster.asked == ["squeue", "sacct"]


def test_scancel_of_an_unknown_id_is_no_trouble(monkeypatch, capsys):
    trouble = "scancel: error: Kill job error on job id 7: Invalid job id specified"
    cluster = Cluster(monkeypatch, scancel=(1, "", trouble))
    cluster.slurm.cancel(["7"])
    assert not capsys.readouterr().err
    cluster.programs["scancel"] = (1, "", "scancel: error: Access/permission denied")
    cluster.slurm.cancel(["7"])
    assert "permission denied" in capsys.readouterr().err


QUEUED = SQUEUE + "7|RUNNING|None|n1|me|dora_0123abcd_token\n8|RUNNING|None|n1|you|theirs\n"


def test_only_a_job_of_ours_is_cancelled(monkeypatch):
    """Ids come again: on a cluster that was set up anew, or after its highest."""
    cluster = Cluster(monkeypatch, squeue=QUEUED, scancel="")
    cluster.slurm.cancel({"7": "token", "8": "another", "9": "gone"})
    assert cluster.commands[-1] == ["scancel", "7"]
    cluster.slurm.cancel({"8": "another"})
    assert [command[0] for command in cluster.commands].count("scancel") == 1


def test_nothing_is_cancelled_unless_the_queue_says_whose_it_is(monkeypatch, capsys):
    cluster = Cluster(monkeypatch, squeue=LATE, scancel="")
    cluster.slurm.cancel({"7": "token"})
    assert cluster.asked == ["squeue"] and "squeue does not answer" in capsys.readouterr().err


def test_another_job_of_that_id_is_not_said_to_run(monkeypatch):
    cluster = Cluster(monkeypatch, squeue=QUEUED)
    monkeypatch.setattr(slurm.shutil, "which", lambda program: program)
    assert cluster.slurm.is_running("7", "token") is True and cluster.slurm.is_running("8", "token") is False


def test_find_tells_no_from_no_answer(monkeypatch):
    cluster = Cluster(monkeypatch, squeue=SQUEUE + "7|PENDING|None||me|dora_x\n9_1|RUNNING|None||me|dora_array_y\n",
                      sacct=SACCT + "5|FAILED|1:0|n1|me|dora_z\n")
    assert cluster.slurm.find(["dora_x", "dora_array_y", "dora_z", "dora_w"]) == {
        "dora_x": "7", "dora_array_y": "9", "dora_z": "5"}
    cluster.programs["sacct"] = LATE
    assert cluster.slurm.find(["dora_x"]) == {"dora_x": "7"}
    cluster.programs["squeue"] = LATE
    assert cluster.slurm.find(["dora_x"]) is None


def test_without_slurm_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(slurm.shutil, "which", lambda program: None)
    assert Slurm().missing() == "no sbatch"
    monkeypatch.setattr(slurm.shutil, "which", lambda program: program)
    cluster = Cluster(monkeypatch, scontrol=FAILING)
    assert "no cluster answers" in cluster.slurm.missing()
    assert not Cluster(monkeypatch, scontrol="Configuration\nClusterName             = main\n").slurm.missing()
