"""What state an experiment is in: the table of status.py, row by row, and with odd folders."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from dora.conf import SubmitRules
from hypothesis import given
from hypothesis import strategies as st

from dora_train.engine.experiment import claims
from dora_train.engine.experiment.claims import Holder
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import Job, RunState, State
from dora_train.engine.grid.plan import Known, Verb, Wanted, make_plan
from dora_train.engine.jobs.executor import JobInfo, Phase
from dora_train.engine.watch.facts import current, facts_of
from dora_train.engine.watch.logs import log_of
from dora_train.engine.watch.status import WORDS, Facts, decide, look


def holder(attempt: int = 1, token: str = "", since: float = 100.0, **what) -> Holder:
    return Holder(attempt, "node7", "boot", "", 312, 0.0, since, token=token, **what)


def job(
    job_id: str = "7",
    token: str = "t",
    submitted: float = 50.0,
    cluster: str = "slurm",
    user: str = "me",
    **what,
) -> Job:
    return Job(token, cluster, submitted, job_id=job_id, user=user, **what)


def info(phase: Phase = Phase.OVER, word: str = "", **what) -> JobInfo:
    return JobInfo("7", phase, word, **what)


def said(state: State, attempt: int = 1, cause: str = "") -> RunState:
    return RunState(state, cause, attempt)


# --- the folder alone ---


def test_nothing_is_new():
    assert decide(Facts()).state == State.NEW


@pytest.mark.parametrize(
    "state", [State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT, State.STOPPED]
)
def test_an_end_is_what_the_run_said(state):
    status = decide(Facts(said(state, cause="because"), holder()))
    assert (status.state, status.cause, status.live) == (state, "because", False)


def test_a_run_in_a_terminal_is_running():
    status = decide(Facts(said(State.RUNNING), holder(), alive=True))
    assert (status.state, status.by_job, status.where) == (
        State.RUNNING,
        False,
        "node7, process 312",
    )


def test_killed_is_interrupted():
    assert decide(Facts(said(State.RUNNING), holder(), alive=False)).state == State.INTERRUPTED
    # before its first word
    assert decide(Facts(RunState(), holder(), alive=False)).state == State.INTERRUPTED


def test_the_words_of_an_earlier_attempt_do_not_count():
    assert (
        decide(Facts(said(State.FAILED, attempt=1), holder(2), alive=True)).state == State.RUNNING
    )
    assert (
        decide(Facts(said(State.COMPLETED, attempt=1), holder(2), alive=False)).state
        == State.INTERRUPTED
    )


def test_whom_nobody_can_ask_is_not_declared_dead():
    status = decide(Facts(said(State.RUNNING), holder(), alive=None))
    assert (status.state, status.certain) == (State.RUNNING, False)


def test_interrupted_is_cancelled_where_someone_asked_for_it():
    facts = Facts(said(State.INTERRUPTED, cause="interrupted by SIGTERM"), holder(), cancelled="me")
    assert (decide(facts).state, decide(facts).cause) == (State.CANCELLED, "cancelled by me")


def test_a_copied_folder_keeps_its_words_but_runs_nothing():
    assert decide(Facts(said(State.COMPLETED, attempt=3))).state == State.COMPLETED
    assert decide(Facts(said(State.RUNNING, attempt=3))).state == State.INTERRUPTED


def test_a_run_that_makes_no_progress_is_stalled():
    run = RunState(State.RUNNING, attempt=1, updated=1000.0, gap=20.0)
    words = [
        str(decide(Facts(run, holder(), alive=True, now=1000.0 + silent)))
        for silent in (199, 201, 900)
    ]
    assert words == ["running", "stalled 3 min", "stalled 15 min"]
    # ten times a beat, at the least
    quick = RunState(State.RUNNING, attempt=1, updated=1000.0, gap=0.1)
    assert str(decide(Facts(quick, holder(), alive=True, now=1099.0))) == "running"
    assert str(decide(Facts(quick, holder(), alive=True, now=1101.0))) == "stalled 2 min"
    assert decide(Facts(quick, holder(), alive=True, now=5000.0)).state == State.RUNNING, (
        "nothing is done about it"
    )


def test_what_has_not_trained_yet_or_is_another_attempt_is_not_stalled():
    fresh = RunState(State.RUNNING, attempt=1, updated=1000.0)
    assert str(decide(Facts(fresh, holder(), alive=True, now=9000.0))) == "running"
    before = RunState(State.RUNNING, attempt=1, updated=1000.0, gap=1.0)
    assert str(decide(Facts(before, holder(2), alive=True, now=9000.0))) == "running"


# --- the order of attempts and submissions ---


def test_a_retry_counts_more_than_the_failure_before_it_whatever_the_clocks_say():
    failure = holder(since=1000, submissions=1)  # by a clock that is ahead
    facts = Facts(
        said(State.FAILED),
        failure,
        job=job(submitted=50, number=2),
        info=info(Phase.PENDING, "PENDING"),
    )
    assert decide(facts).state == State.WAITING


def test_a_run_in_a_terminal_counts_more_than_the_job_before_it_whatever_the_clocks_say():
    by_hand = holder(since=10, submissions=2)  # by a clock that is late
    facts = Facts(
        said(State.FAILED),
        by_hand,
        job=job(submitted=50, number=2),
        info=info(Phase.PENDING, "PENDING"),
    )
    assert decide(facts).state == State.FAILED


def test_the_log_is_that_of_the_later_one(tmp_path):
    xp = experiment(tmp_path)
    xp.log.write_text("the run's own")
    (xp.folder / "job.out").write_text("the job's")
    claims.claim(xp)
    second = job(number=1, log=str(xp.folder / "job.out"), submitted=time.time() - 300)
    assert log_of(xp, second) == xp.folder / "job.out", (
        "submitted after the attempt, by a clock that is late"
    )
    assert xp.intend_job(second)
    claims.claim(xp)
    assert log_of(xp, job(number=1, log=second.log, submitted=time.time() + 300)) == xp.log


# --- with a job ---


def test_another_job_of_the_same_id_is_not_ours():
    """Ids come again on a cluster that was set up anew, or after its highest."""
    for name, phase in (("dora_5f3a91c2_fedc", Phase.OVER), ("dora_array_ba98", Phase.RUNNING)):
        infos = {"7": JobInfo("7", Phase.RUNNING, "RUNNING", name=name)}
        assert current(job(token="ba98"), infos).phase is phase


def test_the_job_of_a_holder_is_not_alive_by_another_of_its_id(tmp_path):
    xp = experiment(tmp_path)
    far_away(xp, job_id="7", token="ba98")
    for name, alive in (("dora_5f3a91c2_fedc", False), ("dora_array_ba98", True)):
        infos = {"7": JobInfo("7", Phase.RUNNING, "RUNNING", name=name)}
        assert facts_of(xp, None, infos).alive is alive
    for silence in ({}, {"7": info(Phase.UNKNOWN)}):
        assert facts_of(xp, None, silence).alive is None


def test_waiting_and_why():
    assert (
        decide(Facts(job=job(), info=info(Phase.PENDING, "PENDING", reason="Priority"))).cause == ""
    )
    status = decide(
        Facts(job=job(), info=info(Phase.PENDING, "PENDING", reason="QOSMaxJobsPerUserLimit"))
    )
    assert (status.state, status.cause, status.by_job) == (
        State.WAITING,
        "QOSMaxJobsPerUserLimit",
        True,
    )


def test_a_job_that_has_begun_but_not_claimed_yet_is_running():
    assert (
        decide(Facts(job=job(), info=info(Phase.RUNNING, "RUNNING", node="n1"))).where
        == "n1, job 7"
    )


def test_a_job_after_a_failure_counts_more_than_the_failure():
    facts = Facts(
        said(State.FAILED),
        holder(since=10),
        job=job(submitted=50),
        info=info(Phase.PENDING, "PENDING"),
    )
    assert decide(facts).state == State.WAITING


def test_requeued_is_waiting():
    facts = Facts(
        said(State.INTERRUPTED, cause="interrupted by SIGUSR2"),
        holder(token="t"),
        job=job(),
        info=info(Phase.PENDING, "PENDING", reason="BeginTime"),
    )
    assert decide(facts).state == State.WAITING


def test_an_end_said_by_the_job_counts_while_the_scheduler_clears_up():
    facts = Facts(
        said(State.FAILED, cause="boom"),
        holder(token="t"),
        job=job(),
        info=info(Phase.RUNNING, "COMPLETING"),
    )
    assert decide(facts).state == State.FAILED


def test_finished_in_a_terminal_while_a_job_waits():
    facts = Facts(
        said(State.COMPLETED),
        holder(since=10),
        job=job(submitted=50),
        info=info(Phase.PENDING, "PENDING"),
    )
    assert decide(facts).state == State.COMPLETED


def test_an_intent_without_an_id_is_waiting():
    status = decide(Facts(job=job(job_id="")))
    assert (status.state, status.certain) == (State.WAITING, False)


def test_unknown_is_never_an_end():
    for run in (RunState(), said(State.INTERRUPTED)):
        status = decide(
            Facts(
                run, holder(token="t") if run.attempt else None, job=job(), info=info(Phase.UNKNOWN)
            )
        )
        assert (status.state, status.certain) == (State.WAITING, False)
    status = decide(Facts(said(State.RUNNING), holder(token="t"), alive=None, job=job(), info=None))
    assert (status.state, status.certain) == (State.RUNNING, False)


def test_who_cannot_be_asked_is_named():
    status = decide(Facts(job=job(cluster="local", host="node7"), info=None))
    assert (status.state, status.out_of_reach) == (State.WAITING, True)
    assert status.cause == "the queue of me on node7 cannot be reached from this machine"
    assert (
        decide(Facts(job=job(queue="main"), info=None)).cause
        == 'cluster "main" cannot be reached from this machine'
    )
    silent = decide(Facts(job=job(), info=info(Phase.UNKNOWN)))
    assert (silent.cause, silent.out_of_reach) == ("its scheduler does not answer", False), (
        "it will"
    )


@pytest.mark.parametrize(
    "run, cause",
    [
        (said(State.INTERRUPTED, cause="a signal"), "a signal"),
        (said(State.RUNNING), "its process is gone"),
    ],
)
def test_a_local_job_whose_run_is_gone_is_over_though_its_queue_cannot_be_asked(run, cause):
    """A local queue starts nothing twice; SLURM may."""
    facts = Facts(run, holder(token="t"), False, job(cluster="local", user="you"))
    assert (decide(facts).state, decide(facts).cause) == (State.INTERRUPTED, cause)
    assert decide(replace(facts, job=job())).state in (State.WAITING, State.RUNNING)


@pytest.mark.parametrize("word", WORDS)
def test_each_word_for_a_job_that_never_spoke(word):
    status = decide(Facts(job=job(), info=info(word=word)))
    assert status.state == WORDS[word][0] and WORDS[word][1] in status.cause


def test_the_cause_names_who_and_where():
    assert (
        decide(Facts(job=job(), info=info(word="CANCELLED", by="root"))).cause
        == "cancelled by root"
    )
    assert decide(Facts(job=job(), info=info(word="NODE_FAIL", node="n1"))).cause == "node lost: n1"
    assert (
        decide(Facts(job=job(cancelled="me"), info=info(word="FAILED"))).cause == "cancelled by me"
    )


def test_a_job_that_gave_way_to_one_that_never_came_is_taken_up_again():
    gone = info(word="CANCELLED", by="me")
    assert decide(Facts(job=job(), info=gone, in_vain=True)).state == State.INTERRUPTED
    assert decide(Facts(job=job(), info=gone)).state == State.CANCELLED
    assert (
        decide(Facts(job=job(cancelled="me"), info=gone, in_vain=True)).state == State.CANCELLED
    ), "asked for"


def test_failed_before_it_started_says_the_last_line_of_its_log():
    status = decide(
        Facts(job=job(), info=info(word="FAILED", exit_code=1), reason=lambda: "ImportError: no x")
    )
    assert (status.state, status.cause) == (State.FAILED, "ImportError: no x")
    assert "code 3" in decide(Facts(job=job(), info=info(word="FAILED", exit_code=3))).cause


def test_a_code_is_no_signal():
    """Of a run that left by itself, without a word; where a scheduler cannot tell the two apart, it
    resumes."""
    at = {"last": holder(token="t"), "job": job()}
    left = decide(Facts(said(State.RUNNING), info=info(word="FAILED", exit_code=3), **at))
    assert (left.state, left.cause) == (State.FAILED, "its job ended with code 3")
    unsure = decide(
        Facts(said(State.RUNNING), info=info(word="FAILED", exit_code=9, exact=False), **at)
    )
    assert (unsure.state, unsure.cause) == (State.INTERRUPTED, "killed by signal 9")
    early = decide(Facts(job=job(), info=info(word="FAILED", exit_code=3, exact=False)))
    assert early.state == State.FAILED, "it never ran: that is no accident that goes away"


def test_killed_by_a_signal_resumes():
    facts = Facts(
        said(State.RUNNING), holder(token="t"), job=job(), info=info(word="FAILED", signal=9)
    )
    assert (decide(facts).state, decide(facts).cause) == (State.INTERRUPTED, "killed by signal 9")


@pytest.mark.parametrize(
    "word, state",
    [
        ("OUT_OF_MEMORY", State.FAILED),
        ("TIMEOUT", State.TIMED_OUT),
        ("CANCELLED", State.CANCELLED),
        ("FAILED", State.INTERRUPTED),
    ],
)
def test_the_scheduler_knows_more_of_an_interruption(word, state):
    facts = Facts(
        said(State.INTERRUPTED, cause="interrupted by SIGTERM"),
        holder(token="t"),
        job=job(),
        info=info(word=word),
    )
    assert decide(facts).state == state


def test_a_terminal_run_after_the_job_counts_more_than_the_job():
    facts = Facts(
        said(State.INTERRUPTED, attempt=2),
        holder(2, since=100),
        job=job(submitted=50),
        info=info(word="FAILED"),
    )
    assert decide(facts).state == State.INTERRUPTED


@given(
    run=st.builds(RunState, st.sampled_from(State), st.just(""), st.integers(0, 2)),
    last=st.none()
    | st.builds(
        holder, st.integers(1, 2), st.sampled_from(["", "t"]), st.sampled_from([10.0, 100.0])
    ),
    alive=st.sampled_from([True, False, None]),
    job_=st.none() | st.builds(job, st.sampled_from(["", "7"])),
    info_=st.none()
    | st.builds(info, st.sampled_from(Phase), st.sampled_from(["", "FAILED", "CANCELLED", "ODD"])),
)
def test_rules_that_no_state_breaks(run, last, alive, job_, info_):
    facts = Facts(run, last, alive, job_, info_)
    status = decide(facts)
    if last is not None and alive and facts.said != State.COMPLETED:
        assert status.state == State.RUNNING
    if (
        job_ is not None
        and job_.job_id
        and info_ is not None
        and info_.phase in (Phase.PENDING, Phase.UNKNOWN)
    ):
        assert status.state != State.NEW and status.state != State.INTERRUPTED or facts.spoke
    if not status.certain:
        assert status.live


# --- real folders ---


def experiment(tmp_path) -> Experiment:
    folder = tmp_path / "xps" / "0123abcd"
    folder.mkdir(parents=True)
    return Experiment(folder)


@pytest.mark.parametrize(
    "name, text",
    [
        ("state.json", ""),
        ("state.json", "[]"),
        ("state.json", '{"state": "odd"}'),
        ("history.json", "{"),
        ("history.json", "3"),
        ("jobs/1.json", "{"),
        ("attempts/1.json", ""),
    ],
)
def test_damaged_files_cost_nothing_but_themselves(tmp_path, name, text):
    xp = experiment(tmp_path)
    (xp.folder / name).parent.mkdir(exist_ok=True)
    (xp.folder / name).write_text(text)
    assert look([xp], None)[xp.sig].state in (State.NEW, State.WAITING)


def test_a_damaged_record_of_a_job_is_no_leave_to_submit_again(tmp_path):
    xp = experiment(tmp_path)
    assert xp.intend_job(job(number=1, job_id=""))
    xp.record_job(1, "7")
    (xp.jobs / "1.json").write_text("{")
    assert xp.job().job_id == "7"
    assert look([xp], None)[xp.sig].live


def test_a_process_that_lives_and_dies(tmp_path):
    xp = experiment(tmp_path)
    code = (
        "import sys; from pathlib import Path; from dora_train.engine.experiment import claims, folder, records;"
        "xp = folder.Experiment(Path(sys.argv[1])); last = claims.claim(xp);"
        "xp.write_state(records.RunState(records.State.RUNNING, attempt=last.attempt)); print('held', flush=True);"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, xp.folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    status = look([xp], None)[xp.sig]
    assert (status.state, status.certain) == (
        State.RUNNING,
        True,
    ) and socket.gethostname() in status.where
    process.kill()
    process.communicate()
    assert look([xp], None)[xp.sig].state == State.INTERRUPTED


def test_after_a_reboot_with_the_process_id_in_use_again(tmp_path):
    xp = experiment(tmp_path)
    last = claims.claim(xp)
    path = xp.attempts / "1.json"
    content = json.loads(path.read_text()) | {"boot_id": "another", "pid": os.getpid()}
    with open(path, "r+") as file:  # in place: the claim knows its inode
        file.write(json.dumps(content))
        file.truncate()
    xp.write_state(RunState(State.RUNNING, attempt=last.attempt, updated=time.time()))
    assert look([xp], None)[xp.sig].state == State.INTERRUPTED


def test_nobody_is_asked_about_what_is_completed(tmp_path):
    """Most experiments are, most of the time."""
    xps, asked = [experiment(tmp_path), Experiment(tmp_path / "xps" / "0123abce")], []
    for xp, state in zip(xps, (State.COMPLETED, State.FAILED)):
        assert xp.intend_job(job(job_id="", number=1))
        xp.record_job(1, f"of {xp.sig}")
        xp.write_state(RunState(state, attempt=1))
    scheduler = Silent()
    scheduler.jobs = lambda job_ids, force=False: asked.extend(job_ids) or {}
    assert look(xps, scheduler)[xps[0].sig].state is State.COMPLETED
    assert asked == [f"of {xps[1].sig}"]


# --- what nobody here can ask about ---

ELSEWHERE = {"host": "node7", "boot_id": "of node7", "machine_id": "of node7"}


class Silent:
    """A scheduler that is the job's, and does not answer for now."""

    def answers_for(self, job):
        return True

    def jobs(self, job_ids, force=False):
        return {job_id: JobInfo(job_id, Phase.UNKNOWN) for job_id in job_ids}


def far_away(xp: Experiment, **what) -> None:
    """An attempt of another machine's, and a job of a queue there."""
    assert claims._make(xp.attempts / "1.json", replace(Holder.here(1), **ELSEWHERE, **what))
    xp.write_state(RunState(State.RUNNING, attempt=1, updated=time.time()))


def test_what_cannot_be_asked_about_is_left_alone_until_the_user_says_that_it_is_gone(
    tmp_path, monkeypatch
):
    xp = experiment(tmp_path)
    assert xp.intend_job(job(job_id="", cluster="local", number=1, queue="q0", host="node7"))
    xp.record_job(1, "q0-7")
    for flags in ({"rules": SubmitRules(retry=True)}, {"clear": True}, {"cancel": True}):
        status = look([xp], None)[xp.sig]
        action = planned(status, **flags)
        assert (
            status.live
            and action.verb is Verb.KEEP
            and "DORA_TAKE=1" in action.reason
            and action.out_of_reach
        )
    monkeypatch.setenv("DORA_TAKE", "1")
    status = look([xp], None)[xp.sig]
    assert (status.state, status.cause) == (State.INTERRUPTED, "given up with DORA_TAKE=1")
    assert planned(status).verb is Verb.RESUME and planned(status, clear=True).anew


def planned(status, rules=None, **flags):
    known = {"a": Known(status)}
    return make_plan([Wanted("a")], known, rules or SubmitRules(), "me", **flags)[0]


def test_what_is_known_of_a_job_stays_known_when_others_are_given_up(tmp_path, monkeypatch):
    xp = experiment(tmp_path)
    assert xp.intend_job(job(job_id="", number=1))
    xp.record_job(1, "7")
    monkeypatch.setenv("DORA_TAKE", "1")
    infos = {"7": info(word="OUT_OF_MEMORY")}
    assert decide(facts_of(xp, xp.job(), infos)).cause == "out of memory"


def test_a_run_elsewhere_may_be_taken_but_not_one_whose_scheduler_is_silent(tmp_path, monkeypatch):
    xp = experiment(tmp_path)
    far_away(xp)
    assert look([xp], None)[xp.sig].out_of_reach
    monkeypatch.setenv("DORA_TAKE", "1")
    assert look([xp], None)[xp.sig].state == State.INTERRUPTED
    second = Experiment(xp.folder.with_name("0123abce"))
    far_away(second, job_id="7", token="t")
    assert second.intend_job(job(job_id="", number=1))
    second.record_job(1, "7")
    assert look([second], Silent())[second.sig].state == State.RUNNING


# --- stalled ---


def test_another_machines_clock_stalls_nobody(tmp_path, monkeypatch):
    """It is minutes late, or ours is ahead; what has been silent for an hour is silent by any
    clock."""
    xp = experiment(tmp_path)
    far_away(xp)
    for silent, is_stalled in ((300.0, False), (3600.0, True)):
        run = RunState(State.RUNNING, attempt=1, updated=time.time() - silent, gap=1.0)
        xp.write_state(run)
        facts = replace(facts_of(xp, None, {}), alive=True)
        assert decide(facts).cause.startswith("stalled") == is_stalled


def test_on_this_machine_a_clock_that_was_set_stalls_nobody(tmp_path):
    xp = experiment(tmp_path)
    claims.claim(xp)
    for silent, words in ((1.0, "running"), (300.0, "stalled 5 min")):
        xp.write_state(
            RunState(
                State.RUNNING,
                attempt=1,
                updated=time.time() - 86400,
                gap=1.0,
                beat=time.monotonic() - silent,
            )
        )
        assert str(look([xp], None)[xp.sig]) == words


def test_a_run_of_this_machine_by_an_earlier_version_goes_by_the_wall_clock(tmp_path):
    xp = experiment(tmp_path)
    claims.claim(xp)
    xp.write_state(RunState(State.RUNNING, attempt=1, updated=time.time() - 300, gap=1.0))
    assert str(look([xp], None)[xp.sig]) == "stalled 5 min"


def test_who_ended_a_job_is_said_of_a_cancelled_one_alone():
    assert (
        decide(Facts(job=job(), info=info(word="TIMEOUT", by="root"))).cause.endswith("by root")
        is False
    )
    cancelled = decide(Facts(job=job(), info=info(word="CANCELLED")))
    assert (cancelled.state, cancelled.cause) == (State.CANCELLED, "cancelled")


def test_a_job_that_waits_is_named_by_its_number():
    waits = decide(Facts(job=job("8812"), info=info(Phase.PENDING, "PENDING")))
    assert (waits.state, waits.job_id) == (State.WAITING, "8812")
    assert decide(Facts(last=holder())).job_id == ""
