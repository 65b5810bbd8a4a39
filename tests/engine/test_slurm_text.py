"""What squeue and sacct print, as clusters print it; and the questions that are asked."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dora_train.engine.jobs import slurm
from dora_train.engine.jobs.executor import NoRoom, NotSubmitted, Order, Phase, Receipt, Unanswered
from dora_train.engine.jobs.slurm import Slurm
from dora_train.engine.jobs.slurm_text import expand, read_sacct, read_scontrol, read_squeue

SQUEUE = "JOBID|STATE|REASON|NODELIST|USER|NAME\n"
SACCT = "JobID|State|ExitCode|NodeList|User|JobName\n"


@pytest.mark.parametrize(
    "printed, ids",
    [
        ("12", ["12"]),
        ("12_4", ["12_4"]),
        ("12_[4]", ["12_4"]),
        ("12_[0-2]", ["12_0", "12_1", "12_2"]),
        ("12_[0-7%2]", [f"12_{index}" for index in range(8)]),
        ("12_[1,5-6%1]", ["12_1", "12_5", "12_6"]),
        ("12_[0-6:3]", ["12_0", "12_3", "12_6"]),
        ("12_[0-1,...]", ["12_0", "12_1"]),
        ("12+0", ["12"]),
        ("12.batch", ["12"]),
    ],
)
def test_expand(printed, ids):
    assert expand(printed) == ids


def test_squeue():
    text = (
        SQUEUE
        + "1|PENDING|Resources||me|dora_a\n2_3|RUNNING|None|n1|me|x|y\n4|COMPLETING|None|n[1-2]|you|z\nodd\n"
    )
    jobs = read_squeue(text)
    assert {job_id: job.phase for job_id, job in jobs.items()} == {
        "1": Phase.PENDING,
        "2_3": Phase.RUNNING,
        "4": Phase.RUNNING,
    }
    assert (jobs["1"].reason, jobs["2_3"].name, jobs["4"].node, jobs["4"].user) == (
        "Resources",
        "x|y",
        "n[1-2]",
        "you",
    )


@pytest.mark.parametrize(
    "state, word, by",
    [
        ("COMPLETED", "COMPLETED", ""),
        ("CANCELLED by 0", "CANCELLED", "root"),
        ("CANCELLED+", "CANCELLED", ""),
        ("CANCELLED by 4000000", "CANCELLED", "user 4000000"),
        ("OUT_OF_ME+", "OUT_OF_ME", ""),
        ("NODE_FAIL", "NODE_FAIL", ""),
    ],
)
def test_sacct_states(state, word, by):
    info = read_sacct(SACCT + f"7|{state}|0:0|n1|me|name\n7.batch|FAILED|1:0|n1||batch\n")["7"]
    assert (info.phase, info.word, info.by) == (Phase.OVER, word, by)


@pytest.mark.parametrize(
    "exits, code, signal",
    [("0:0", 0, 0), ("3:0", 3, 0), ("0:9", 0, 9), ("137:0", 0, 9), ("", 0, 0)],
)
def test_exit_codes(exits, code, signal):
    info = read_sacct(SACCT + f"7|FAILED|{exits}|None assigned|me|name\n")["7"]
    assert (info.exit_code, info.signal, info.node) == (code, signal, "")


# As SLURM 22.05 printed them for tasks under srun, and for the script itself.
@pytest.mark.parametrize(
    "batch, steps, code, signal, exact",
    [
        ("3:0", "3:0", 3, 0, True),
        ("9:0", "9:0", 9, 0, True),  # left by itself
        # killed
        ("9:0", "0:9", 0, 9, True),
        ("15:0", "0:15", 0, 15, True),
        ("137:0", "0:9", 0, 9, True),
        ("9:0", "137:0", 0, 9, True),  # a container's way to say so
        ("72:0", "200:0", 200, 0, True),  # no signal has that number
        ("0:9", "0:0", 0, 9, True),
        ("0:0", "0:0", 0, 0, True),
        ("9:0", "0:0", 9, 0, False),
        ("9:0", "", 9, 0, False),
    ],
)  # the step's end came too late
def test_a_code_is_told_from_a_signal_by_the_steps(batch, steps, code, signal, exact):
    header = "JobID|State|ExitCode|DerivedExitCode|NodeList|User|JobName\n"
    info = read_sacct(header + f"7|FAILED|{batch}|{steps}|n1|me|na|me\n")["7"]
    assert (info.exit_code, info.signal, info.exact, info.name) == (code, signal, exact, "na|me")


@pytest.mark.parametrize("step, code, signal", [("0:9", 0, 9), ("9:0", 9, 0)])
def test_a_step_tells_it_where_the_job_has_not_heard_of_it(step, code, signal):
    text = (
        "JobID|State|ExitCode|DerivedExitCode|NodeList|User|JobName\n"
        "7|FAILED|9:0|0:0|n1|me|x\n7.batch|FAILED|9:0||n1||batch\n7.extern|COMPLETED|0:0||n1||extern\n"
        f"7.0|FAILED|{step}||n1||python\n8|FAILED|9:0|0:0|n1|me|y\n"
    )
    jobs = read_sacct(text)
    assert sorted(jobs) == ["7", "8"] and (
        jobs["7"].exit_code,
        jobs["7"].signal,
        jobs["7"].exact,
    ) == (code, signal, True)
    assert not jobs["8"].exact, "the step of another job says nothing"


def test_nothing_printed_is_no_answer():
    assert (
        read_squeue("") is None and read_sacct("") is None and read_sacct("sacct: error\n") is None
    )
    assert read_squeue(SQUEUE) == {} and read_sacct(SACCT) == {}


def test_squeue_names_the_cluster_if_the_user_has_chosen_one():
    """SLURM_CLUSTERS=big"""
    text = f"CLUSTER: big\n{SQUEUE}1|PENDING|Resources||me|dora_a\n"
    assert list(read_squeue(text)) == ["1"] and read_squeue("CLUSTER: big\n") is None


@given(st.text())
def test_whatever_is_printed_is_read_without_an_error(text):
    for read, header in ((read_squeue, SQUEUE), (read_sacct, SACCT)):
        read(text)
        read(header + text)


class Cluster:
    """squeue, sacct and the others in the place of processes: what each answers, a list in its
    order."""

    def __init__(self, monkeypatch, **programs):
        self.programs, self.commands, self.now = programs, [], 0.0
        monkeypatch.setattr(subprocess, "run", self.run)
        monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
        self.slurm = Slurm(clock=lambda: self.now)

    def run(self, command, **kwargs):
        self.commands.append(list(command))
        answer = self.programs.get(command[0], FileNotFoundError(2, "No such file or directory"))
        answer = answer.pop(0) if isinstance(answer, list) else answer
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
SHOWN = "JobId=7 JobName=dora_x UserId=me(1) JobState={} Reason=None Comment=JobState=FAILED\n"
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


# --- an answer that may have been cut off ---

CUT = [
    "",
    "JOBID|STA",
    SQUEUE,
    SQUEUE + "6|RUNNING|None|n1|me|x\n",
    SQUEUE + "7|PENDING|None||me|dora",
]


@pytest.mark.parametrize("squeue", CUT)
@pytest.mark.parametrize(
    "sacct", [LATE, "", SACCT, SACCT + "7|RUNNING|0:0|n1|me|x\n", SACCT + "7|FAILED|1:0|n1"]
)
@pytest.mark.parametrize("scontrol", [LATE, FAILING, "", "JobId=7 JobNa"])
def test_a_job_that_is_missing_in_an_answer_is_not_over(monkeypatch, squeue, sacct, scontrol):
    cluster = Cluster(monkeypatch, squeue=squeue, sacct=sacct, scontrol=scontrol)
    runs = (
        "7|RUNNING" in sacct if isinstance(sacct, str) and not squeue.startswith(SQUEUE) else False
    )
    expected = Phase.RUNNING if runs else Phase.UNKNOWN
    assert [cluster.phase(force=True) for _ in range(2)] == [expected] * 2
    assert cluster.slurm.is_running("7") is (True if runs else None)


@pytest.mark.parametrize(
    "state, phase, word",
    [
        ("RUNNING", Phase.RUNNING, "RUNNING"),
        ("PENDING", Phase.PENDING, "PENDING"),
        ("TIMEOUT", Phase.OVER, "TIMEOUT"),
    ],
)
def test_what_squeue_does_not_show_scontrol_is_asked_about(monkeypatch, state, phase, word):
    cluster = Cluster(monkeypatch, squeue=SQUEUE, sacct=SACCT, scontrol=SHOWN.format(state))
    info = cluster.slurm.jobs(["7"])["7"]
    assert (info.phase, info.word) == (phase, word)


@pytest.mark.parametrize(
    "job_id, answer",
    [
        ("7", (1, "", "slurm_load_jobs error: Invalid job id specified\n")),
        ("7_3", (1, "Job 7_3 not found\n", "")),
    ],
)
def test_the_controller_may_say_that_there_is_no_such_job(monkeypatch, job_id, answer):
    cluster = Cluster(monkeypatch, squeue=SQUEUE, sacct=SACCT, scontrol=answer)
    for _ in range(3):
        assert cluster.phase(job_id, force=True) == Phase.OVER
    assert cluster.asked.count("scontrol") == 1, "ids do not come back"


def test_of_several_jobs_squeue_s_complaint_is_about_none(monkeypatch):
    cluster = Cluster(monkeypatch, squeue=NOT_THERE, sacct=SACCT, scontrol=FAILING)
    assert {info.phase for info in cluster.slurm.jobs(["7", "8"]).values()} == {Phase.UNKNOWN}


def test_an_end_that_squeue_shows_is_an_end_and_accounting_says_more_of_it(monkeypatch):
    cluster = Cluster(monkeypatch, squeue=SQUEUE + "7|FAILED|None|n1|me|x\n", sacct=LATE)
    assert cluster.slurm.jobs(["7"])["7"].word == "FAILED"
    cluster = Cluster(
        monkeypatch,
        squeue=SQUEUE + "7|FAILED|None|n1|me|x\n",
        sacct=SACCT + "7|OUT_OF_MEMORY|0:125|n1|me|x\n",
    )
    assert cluster.slurm.jobs(["7"])["7"].word == "OUT_OF_MEMORY"


@pytest.mark.parametrize(
    "scontrol, found",
    [
        (LATE, None),
        (FAILING, None),
        ("", None),
        (SHOWN.format("PENDING"), {"dora_x": "7"}),
        ("No jobs in the system\n", {}),
        ("JobId=9 JobName=other JobState=RUNNING\n", {}),
    ],
)
def test_a_name_is_unknown_if_squeue_and_scontrol_agree(monkeypatch, scontrol, found):
    cluster = Cluster(monkeypatch, squeue=SQUEUE, sacct=SACCT, scontrol=scontrol)
    assert cluster.slurm.find(["dora_x"]) == found


def test_of_a_chain_of_dependent_jobs_the_first_is_found(monkeypatch):
    rows = "".join(f"{number}|PENDING|Dependency||me|dora_x\n" for number in (12, 9, 10))
    cluster = Cluster(
        monkeypatch, squeue=SQUEUE + rows, sacct=SACCT + "11|FAILED|1:0|n1|me|dora_x\n"
    )
    assert cluster.slurm.find(["dora_x"]) == {"dora_x": "9"}


def test_scontrol_shows_arrays():
    line = "JobId={} ArrayJobId=12 ArrayTaskId={} ArrayTaskThrottle=2 JobName=a b JobState=PENDING Requeue=1\n"
    jobs = read_scontrol(
        line.format(12, "1-3,7%2") + line.format(13, "0") + "JobId=5 JobName=x\n" + "No jobs"
    )
    assert sorted(jobs) == ["12_0", "12_1", "12_2", "12_3", "12_7"]


@given(st.text())
def test_whatever_scontrol_prints_is_read_without_an_error(text):
    read_scontrol(text)
    read_scontrol(SHOWN + text)


# --- sbatch ---


@pytest.mark.parametrize(
    "answer, kind",
    [
        ((0, "", ""), Unanswered),
        ((0, "Submitted\n", ""), Unanswered),
        ((1, "", ""), Unanswered),
        ((1, "Submitted batch job 7\n", ""), Unanswered),
        ((137, "", "Killed\n"), Unanswered),
        ((-9, "", ""), Unanswered),
        (LATE, Unanswered),
        ((1, "", "sbatch: error: Socket timed out on send/recv operation"), Unanswered),
        (
            (1, "", "sbatch: error: Batch job submission failed: Invalid partition name specified"),
            NotSubmitted,
        ),
        (
            (
                1,
                "",
                "sbatch: unrecognized option '--x'\nTry \"sbatch --help\" for more information",
            ),
            NotSubmitted,
        ),
        (
            (
                1,
                "",
                "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed",
            ),
            NoRoom,
        ),
        (FileNotFoundError(2, "No such file or directory"), NotSubmitted),
        (PermissionError(13, "Permission denied"), NotSubmitted),
    ],
    ids=str,
)
def test_what_sbatch_s_answer_means(monkeypatch, tmp_path, answer, kind):
    cluster = Cluster(monkeypatch, sbatch=answer)
    with pytest.raises(kind) as error:
        cluster.slurm.submit(order(tmp_path))
    assert type(error.value) is kind and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "said", ["Submitted batch job 12\n", "welcome\nSubmitted batch job 12 on cluster main\n"]
)
def test_the_id_of_a_job(monkeypatch, tmp_path, said):
    cluster = Cluster(monkeypatch, sbatch=said)
    assert cluster.slurm.submit(order(tmp_path)) == Receipt("12", [])
    assert [path.name for path in tmp_path.iterdir()] == ["12_submission.sh"]
    assert "exec true" in (tmp_path / "12_submission.sh").read_text()


@pytest.mark.parametrize("second", [(1, "", "sbatch: error: no"), (0, "", "")])
def test_a_chain_that_breaks_off_keeps_the_job_that_is_there(monkeypatch, tmp_path, capsys, second):
    cluster = Cluster(
        monkeypatch, sbatch=["Submitted batch job 5\n", "Submitted batch job 6\n", second]
    )
    assert cluster.slurm.submit(order(tmp_path, dependents=3)) == Receipt("5", ["6"])
    assert "1 of 3 dependent jobs" in capsys.readouterr().err


def order(folder, **what):
    return Order("dora_x", "exec true", folder, {"nodes": 1, "ntasks_per_node": 1}, **what)


@pytest.mark.parametrize("sacct", [LATE, SACCT, SACCT + "7|RUNNING|0:0|n1|me|x\n"])
def test_gone_from_the_queue_without_a_word_is_over_but_asked_again(monkeypatch, sacct):
    cluster = Cluster(monkeypatch, squeue=NOT_THERE, sacct=sacct)
    info = cluster.slurm.jobs(["7"])["7"]
    assert (info.phase, info.word) == (Phase.OVER, "")
    cluster.programs["sacct"] = SACCT + "7|COMPLETED|0:0|n1|me|x\n"
    cluster.now += 31
    assert cluster.slurm.jobs(["7"])["7"].word == "COMPLETED"


def test_the_scheduler_is_asked_every_30_seconds_at_most(monkeypatch):
    cluster = Cluster(
        monkeypatch, squeue=SQUEUE + "7|RUNNING|None|n1|me|x\n8|PENDING|None||me|y\n", sacct=SACCT
    )
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
    assert (
        cluster.slurm.is_running("7", "token") is True
        and cluster.slurm.is_running("8", "token") is False
    )


def test_find_tells_no_from_no_answer(monkeypatch):
    cluster = Cluster(
        monkeypatch,
        squeue=SQUEUE + "7|PENDING|None||me|dora_x\n9_1|RUNNING|None||me|dora_array_y\n",
        sacct=SACCT + "5|FAILED|1:0|n1|me|dora_z\n",
        scontrol="No jobs in the system\n",
    )
    assert cluster.slurm.find(["dora_x", "dora_array_y", "dora_z", "dora_w"]) == {
        "dora_x": "7",
        "dora_array_y": "9",
        "dora_z": "5",
    }
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
    assert not Cluster(
        monkeypatch, scontrol="Configuration\nClusterName             = main\n"
    ).slurm.missing()


def test_a_name_that_accounting_does_not_know_yet_is_no_other_job():
    """Seen a second after a submission: only squeue knows better, and it may be silent."""
    text = (
        "JobID|State|ExitCode|DerivedExitCode|NodeList|User|JobName\n"
        "1|PENDING|0:0|0:0|n1|root|allocation\n"
        "1.batch|RUNNING|0:0||n1||batch\n"
    )
    jobs = read_sacct(text)
    assert jobs is not None
    assert jobs["1"].of("243a3544a4a6").phase == Phase.PENDING
