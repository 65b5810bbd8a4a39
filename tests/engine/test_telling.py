"""The message about a grid: what is in it, when it is sent, and that it is sent once."""

import os
import stat

import pytest
from experiments import experiment
from grid_project import GridProject
from listener import Listener

from dora_train.engine.experiment.records import State
from dora_train.engine.grid import telling
from dora_train.engine.grid.channels import channels, send, shown, trouble_ahead
from dora_train.engine.grid.message import text, title
from dora_train.engine.grid.telling import Messages, Telling
from dora_train.engine.watch.status import Status


def statuses(folder, *states):
    """One experiment in each of these states."""
    found = {}
    for number, (state, cause) in enumerate(states):
        one = experiment(folder, {"seed": number}, acc=0.9 - number / 10, state=state)
        found[one] = Status(state, cause)
    return found


DONE, OOM = (State.COMPLETED, "max_epochs"), (State.FAILED, "out of memory")
RUNS, CUT = (State.RUNNING, ""), (State.INTERRUPTED, "preempted")


def test_the_counts_the_best_the_causes_and_what_to_do(tmp_path):
    found = statuses(tmp_path, DONE, DONE, OOM, OOM, CUT)
    assert title("mysweep", list(found.values())) == (
        "mysweep: 1 interrupted, 2 completed, 2 failed"
    )
    lines = text("mysweep", found, "/home/ada/my project").splitlines()
    sigs = [one.sig for one in found]
    assert lines[0] == f"best valid.acc: 0.88  {sigs[0]}  seed=0"
    assert lines[1:6] == [
        "2 failed: out of memory:",
        f"  {sigs[2]}  seed=2",
        f"  {sigs[3]}  seed=3",
        "1 interrupted: preempted:",
        f"  {sigs[4]}  seed=4",
    ]
    assert "look: cd '/home/ada/my project' && python -m dora_train.report mysweep" in lines
    assert any("dora grid mysweep --retry" in line for line in lines)


def test_many_of_one_cause_are_counted(tmp_path):
    lines = text("mysweep", statuses(tmp_path, *[OOM] * 30), "/home").splitlines()
    assert lines[0] == "30 failed: out of memory:" and len(lines) == 13


@pytest.mark.parametrize(
    "value, found",
    [
        (None, []),
        (" ", []),
        ("ntfy://topic", ["ntfy://topic"]),
        (["mail ada", "slack://a/b/c"], ["mail ada", "slack://a/b/c"]),
    ],
)
def test_the_key(value, found):
    assert channels(value) == found


def test_a_command_gets_it_on_standard_input(tmp_path):
    assert send(f"cat > '{tmp_path}/message'", "title", "body") == ""
    assert (tmp_path / "message").read_text() == "title\n\nbody\n"


def test_a_command_that_fails_or_does_not_exist(tmp_path):
    assert "no such mailbox" in send("echo no such mailbox >&2; exit 3", "title", "body")
    assert "exit code 3" in send("exit 3", "title", "body")
    assert "no-such-program" in send("no-such-program", "title", "body")


def test_an_address(listener):
    assert send(listener.address, "title", "body") == ""
    assert [(one["title"], one["message"]) for one in listener.got] == [("title", "body")]


def test_an_address_that_does_not_answer_or_is_none():
    refuses = Listener(code=500)
    assert send(refuses.address, "title", "body")
    refuses.close()
    assert send(refuses.address, "title", "body").startswith("json://...: ")
    assert "does not know" in send("nosuchservice://a", "title", "body")
    assert "does not know" in trouble_ahead(["nosuchservice://secret"])
    assert not trouble_ahead(["mail ada", refuses.address])


def test_a_password_is_not_shown():
    assert shown("slack://token") == "slack://..." and shown("mail ada") == "mail ada"


def test_without_apprise_one_line_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("dora_train.engine.grid.channels.find_spec", lambda name: None)
    told = Telling(Messages("mysweep", tmp_path), False)
    told.begin(["ntfy://topic"], {}, False)
    assert capsys.readouterr().err == "notify: apprise is not installed: pip install apprise\n"
    assert "pip install apprise" in send("ntfy://topic", "title", "body")


class Grid:
    """The messages of a grid, kept by a command of shell."""

    def __init__(self, folder):
        self.folder, self.box = folder, folder / "box"
        self.command = f"cat >> '{self.box}'"
        self.messages = Messages("mysweep", folder / "grids" / "mysweep")

    def opened(self, found, submitted=True, is_search=False) -> Telling:
        """A command that watches the grid from here on."""
        told = Telling(self.messages, is_search)
        told.begin([self.command], found, submitted)
        return told

    @property
    def titles(self) -> list[str]:
        lines = self.box.read_text().splitlines() if self.box.exists() else []
        return [line for line in lines if line.startswith("mysweep")]


@pytest.fixture
def grid(tmp_path):
    return Grid(tmp_path)


def test_one_message_at_the_end_whoever_watches(grid, tmp_path):
    running, ended = statuses(tmp_path, DONE, RUNS), statuses(tmp_path, DONE, DONE)
    watchers = [grid.opened(running), grid.opened(running, submitted=False)]
    for told in watchers:
        told.look(running, [])
    assert grid.titles == []
    for told in [*watchers, grid.opened(ended, submitted=False)]:
        told.look(ended, [])
    assert grid.titles == ["mysweep: 2 completed"]
    again = grid.opened(ended, submitted=True)  # more experiments, and a message of their own
    again.look(ended, [])
    assert len(grid.titles) == 2


def test_a_grid_that_had_ended_before_sends_none(grid, tmp_path):
    ended = statuses(tmp_path, DONE)
    grid.opened(ended, submitted=False).look(ended, [])
    assert grid.titles == []


def test_a_failure_while_others_run_is_told_once_and_the_end_once(grid, tmp_path):
    told = grid.opened(statuses(tmp_path, RUNS, RUNS, RUNS))
    for found in ([OOM, RUNS, RUNS], [OOM, OOM, RUNS], [OOM, OOM, DONE], [OOM, OOM, DONE]):
        told.look(statuses(tmp_path, *found), [])
    assert grid.titles == [
        "mysweep needs you: failed: out of memory (2 running, 1 failed)",
        "mysweep: 1 completed, 2 failed",
    ]


def test_an_old_failure_and_what_heals_need_no_person(grid, tmp_path):
    found = statuses(tmp_path, OOM, CUT, RUNS)
    told = grid.opened(statuses(tmp_path, OOM, RUNS, RUNS))
    told.look(found, list(found)[1:2])
    assert grid.titles == []
    found = statuses(tmp_path, DONE, CUT)
    told.look(found, list(found)[1:])
    assert grid.titles == [], "it has not ended: one is submitted again"
    told.look(found, [])
    assert grid.titles == ["mysweep: 1 interrupted, 1 completed"]


def test_a_failed_trial_is_an_answer_to_a_search(grid, tmp_path):
    told = grid.opened(statuses(tmp_path, RUNS, RUNS), is_search=True)
    told.look(statuses(tmp_path, OOM, RUNS), [])
    assert grid.titles == []


def test_nothing_moves_for_an_hour(grid, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(telling.time, "monotonic", lambda: now[0])
    found = statuses(tmp_path, RUNS, (State.WAITING, ""))
    told = grid.opened(found)
    for _ in range(59):
        now[0] += 60
        told.look(found, [])
    assert grid.titles == []
    for _ in range(5):
        now[0] += 60
        told.look(found, [])
    assert grid.titles == [
        "mysweep needs you: nothing has moved for an hour (1 waiting, 1 running)"
    ]


def test_a_channel_that_fails_costs_one_line(grid, tmp_path, capsys):
    grid.command = "echo no network >&2; exit 1"
    ended = statuses(tmp_path, DONE)
    told = grid.opened(ended)
    told.look(ended, [])
    told.look(ended, [])
    assert capsys.readouterr().err.count("the message did not arrive") == 1


def test_only_this_user_may_read_the_addresses(grid, tmp_path):
    grid.opened(statuses(tmp_path, RUNS))
    path = grid.messages.folder / "to.json"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    told = Telling(grid.messages, False)
    told.begin([], statuses(tmp_path, RUNS), True)
    assert not path.exists(), "the key is blank again"


# --- the whole way ---


def bound(address: str) -> str:
    return f"launcher.bind_({{'notify': '{address}'}})"


@pytest.mark.slow
def test_the_last_job_sends_it_if_no_command_is_open(tmp_path, machine, listener):
    project = GridProject(tmp_path, machine)
    project.grid(bound(listener.address), "launcher(seed=1)", "launcher(seed=2)")
    project.sync()
    machine.wait(lambda: listener.got, 120)
    [message] = listener.got
    assert message["title"] == "question: 2 completed" and "best valid." in message["message"]
    assert "notify" not in project.xps()[0].job().excluded, "it may hold a password"
    out = project.dora("grid", "question")
    assert "= 2 kept" in out and len(listener.got) == 1
    project.grid(bound(listener.address), *[f"launcher(seed={seed})" for seed in (1, 2, 3)])
    assert "3 completed" in project.dora("grid", "question")
    machine.wait(lambda: not project.live())
    assert [one["title"] for one in listener.got[1:]] == ["question: 3 completed"]
