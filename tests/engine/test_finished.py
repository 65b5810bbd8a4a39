"""The index of finished experiments answers as their folders do, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from experiments import experiment

from dora_train.engine.experiment import claims, contents, finished
from dora_train.engine.experiment.claims import Holder
from dora_train.engine.experiment.finished import NAME, Finished, is_completed
from dora_train.engine.experiment.folder import XPS, Experiment
from dora_train.engine.experiment.kept import Kept
from dora_train.engine.experiment.records import Job, Start, State
from dora_train.engine.watch.status import look
from dora_train.engine.watch.times import times_of
from dora_train.report.names import Outputs

COUNT = 4


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a few experiments are kept, and as soon as they are finished."""
    monkeypatch.setattr(finished, "SETTLED", -60.0)
    monkeypatch.setattr(finished, "FEW", 0)


@pytest.fixture
def made(tmp_path: Path) -> list[Experiment]:
    """Finished experiments, each with a claim and a job."""
    return [finished_one(tmp_path, rate) for rate in range(COUNT)]


def finished_one(out: Path, rate: int) -> Experiment:
    one = experiment(out, {"optim.lr": 0.1 + rate}, acc=0.9 - 0.01 * rate)
    claim_as_a_dead_process(one, 1)
    one.write_start(1, Start(1, {"hash": "0123456789abcdef"}))
    one.intend_job(Job("token", "local", 1.0, number=1, resources={"gpus": 0}))
    one.record_job(1, "17", "log")
    one.write_contents({"a.png": ["train", 3, "0f"]})
    return one


def claim_as_a_dead_process(one: Experiment, attempt: int) -> None:
    """The claim of a process of this machine that has ended."""
    path = one.attempts / f"{attempt}.json"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    dead = replace(Holder.here(attempt), pid=2**22 - 1, ticks=1)
    inode, folder = path.stat().st_ino, os.path.realpath(one.folder)
    path.write_text(json.dumps(asdict(replace(dead, inode=inode, folder=folder))))


def index_of(made: list[Experiment]) -> Finished:
    """The index of these experiments, as a command that sees them for the first time leaves it."""
    outputs = made[0].folder.parents[1]
    Finished(outputs).keep(made)
    return Finished(outputs)


def known(outputs: Path, made: list[Experiment]) -> dict[str, Experiment]:
    return Finished(outputs).known([one.sig for one in made])


def answers(one: Experiment) -> list[object]:
    """What all readers ask of an experiment."""
    status = look([one], None)[one.sig]
    return [
        *(status, one.birth(), one.state(), one.argv(), one.history(), one.result(), one.job()),
        *(one.job_number(), one.attempt_numbers(), one.starts(), one.codes(), one.exists()),
        *(claims.latest(one), is_completed(one), contents.mark(one), one.confusion()),
        times_of(one, one.state(), one.birth(), status),
    ]


def test_it_answers_as_the_folders_do(made: list[Experiment], tmp_path: Path):
    index_of(made)
    found = known(tmp_path, made)
    assert list(found) == [one.sig for one in made]
    for one in made:
        assert answers(found[one.sig]) == answers(one)


def test_it_reads_no_file_of_an_experiment_that_it_knows(
    made: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    index_of(made)
    found = known(tmp_path, made)
    expected = [answers(one)[:11] for one in made]
    away = tmp_path / "away"
    (tmp_path / XPS).rename(away)
    assert [answers(found[one.sig])[:11] for one in made] == expected


def test_who_asks_gets_a_history_of_its_own(made: list[Experiment], tmp_path: Path):
    index_of(made)
    one = known(tmp_path, made)[made[0].sig]
    one.history().clear()
    one.history()[0]["train"].clear()
    assert one.history() == made[0].history()


def begins_anew(one: Experiment) -> None:
    birth = one.birth()
    one.put_aside()
    assert birth is not None
    one.write_birth(birth)


def edited_in_place(one: Experiment) -> None:
    text = (one.folder / "state.json").read_text()
    (one.folder / "state.json").write_text(text.replace("completed", "failed"))


def restored_as_a_copy(one: Experiment) -> None:
    copy = one.folder.with_name("copy")
    shutil.copytree(one.folder, copy)
    shutil.rmtree(one.folder)
    copy.rename(one.folder)


# What happens to a finished experiment -> its state then
CHANGES: dict[str, tuple[Callable[[Experiment], object], State]] = {
    "a run of an older version has claimed it, and died": (
        lambda one: claim_as_a_dead_process(one, 2),
        State.INTERRUPTED,
    ),
    "this process has claimed it": (claims.claim, State.RUNNING),
    "it is resumed": (
        lambda one: one.write_state(replace(one.state(), state=State.FAILED)),
        State.FAILED,
    ),
    "it is extended": (
        lambda one: one.write_state(replace(one.state(), epochs=99)),
        State.COMPLETED,
    ),
    "--clear": (begins_anew, State.NEW),
    "its folder is gone": (lambda one: shutil.rmtree(one.folder), State.NEW),
    "its state was edited in place": (edited_in_place, State.FAILED),
    "it was restored from a backup": (restored_as_a_copy, State.COMPLETED),
    "a job was submitted": (
        lambda one: one.intend_job(Job("other", "local", 2.0, number=2)),
        State.COMPLETED,
    ),
    "a job got its id": (lambda one: one.record_job(2, "18"), State.COMPLETED),
    "a user cancelled it": (lambda one: one.cancel_job(1, "jane"), State.COMPLETED),
    "a user cancelled its attempt": (lambda one: one.cancel_attempt(1, "jane"), State.COMPLETED),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_experiment_that_has_changed_is_not_known(
    change: str, made: list[Experiment], tmp_path: Path
):
    index_of(made)
    happens, state = CHANGES[change]
    happens(made[1])
    assert made[1].sig not in known(tmp_path, made)
    assert look([made[1]], None)[made[1].sig].state == state
    # What is completed is kept again, as it is now.
    again = [one for one in made if is_completed(one)]
    index_of(again)
    found = known(tmp_path, made)
    assert set(found) == {one.sig for one in again}
    for one in again:
        assert answers(found[one.sig]) == answers(one)


def test_only_finished_experiments_are_kept(tmp_path: Path):
    states = [State.RUNNING, State.FAILED, State.STOPPED, State.NEW, State.COMPLETED]
    made = []
    for rate, state in enumerate(states):
        made.append(experiment(tmp_path, {"optim.lr": 1.0 + rate}, state=state))
        claim_as_a_dead_process(made[-1], 1)
    claim_as_a_dead_process(made[-1], 2)  # its last attempt has written nothing yet
    index_of(made)
    assert known(tmp_path, made) == {}


def test_an_experiment_that_ended_a_moment_ago_is_not_kept_yet(
    made: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(finished, "SETTLED", 60.0)
    index_of(made)
    assert known(tmp_path, made) == {}


def test_a_few_experiments_make_no_index(
    made: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(finished, "FEW", COUNT)
    index_of(made)
    assert not (tmp_path / NAME).exists()


def test_a_copied_folder_of_results_is_read_anew(made: list[Experiment], tmp_path: Path):
    index_of(made)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("copy"))
    copied = [Experiment(copy / XPS / one.sig) for one in made]
    assert known(copy, copied) == {}
    index_of(copied)
    found = known(copy, copied)
    assert [answers(found[one.sig]) for one in copied] == list(map(answers, copied))
    assert len(known(tmp_path, made)) == COUNT


def test_an_index_that_was_cut_off_answers_for_what_is_whole(
    made: list[Experiment], tmp_path: Path
):
    index_of(made)
    whole = (tmp_path / NAME).read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / NAME).write_bytes(whole[:length])
        found = known(tmp_path, made)
        assert len(found) == whole[: length + 1].count(b"\n") - 1 or length == 0
        for sig, one in found.items():
            assert one.result() == Experiment(tmp_path / XPS / sig).result()
    # The next command adds what is missing, and its first line is not spoiled by the last one.
    index_of([one for one in made if one.sig not in found])
    assert len(known(tmp_path, made)) == COUNT


@pytest.mark.parametrize("damage", ["a flipped bit", "another version", "no text"])
def test_a_damaged_line_counts_for_nothing(damage: str, made: list[Experiment], tmp_path: Path):
    index_of(made)
    path = tmp_path / NAME
    if damage == "a flipped bit":
        path.write_bytes(path.read_bytes().replace(b'"acc"', b'"abc"'))
    elif damage == "another version":
        lines = path.read_text().split("\n")
        others = [Kept.of_line(line) for line in lines]
        found = [replace(one, stamp=f"2{one.stamp[1:]}").line() for one in others if one]
        path.write_text("".join(found))
    else:
        path.write_bytes(os.urandom(5000))
    assert known(tmp_path, made) == {}
    index_of(made)
    assert len(known(tmp_path, made)) == COUNT


def test_two_clones_may_add_at_the_same_time(made: list[Experiment], tmp_path: Path):
    def add(one: Experiment) -> None:
        Finished(tmp_path).keep([one])

    clones = [threading.Thread(target=add, args=[one]) for one in made * 3]
    for clone in clones:
        clone.start()
    for clone in clones:
        clone.join()
    assert len(known(tmp_path, made)) == COUNT


def test_an_index_that_is_mostly_out_of_date_is_written_anew(
    made: list[Experiment], tmp_path: Path
):
    for _ in range(6):
        index_of(made)
    lines = (tmp_path / NAME).read_text().split("\n")
    assert len(lines) <= finished.WASTE * COUNT + 2 * COUNT
    assert len(known(tmp_path, made)) == COUNT


def test_a_long_history_stays_in_its_folder(made: list[Experiment], tmp_path: Path):
    history = [{"train": {"loss": float(epoch)}} for epoch in range(2000)]
    made[0].write_history(history)
    index_of(made)
    assert (tmp_path / NAME).stat().st_size < 20_000
    assert known(tmp_path, made)[made[0].sig].history() == history


def test_nothing_is_written_where_this_user_may_not(
    made: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        Finished(tmp_path).keep(made)
    assert known(tmp_path, made) == {}


def test_a_disk_that_answers_slowly_is_asked_many_things_at_once(
    made: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    index_of(made)
    monkeypatch.setattr(finished, "SLOW", 0.0)
    monkeypatch.setattr(finished, "AT_ONCE", 2)
    found = known(tmp_path, made)
    assert [answers(found[one.sig]) for one in made] == list(map(answers, made))


def test_a_report_of_all_asks_the_index(made: list[Experiment], tmp_path: Path):
    index_of(made)
    found = Outputs(tmp_path).experiments([])
    assert len(found) == COUNT and all(one.kept is not None for one in found)
    shutil.rmtree(made[0].folder)
    claim_as_a_dead_process(made[1], 2)
    found = Outputs(tmp_path).experiments([])
    assert {one.sig for one in found} == {one.sig for one in made[1:]}
    assert [one.sig for one in found if one.kept is None] == [made[1].sig]
