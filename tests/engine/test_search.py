"""A search: the same trials whatever is killed and however long each takes, nothing twice, and
hopeless ones finished by whoever asks for them."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dora.conf import SubmitRules
from grid_project import GridProject, Machine
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT, same_run

from dora_train.engine.errors import UserError
from dora_train.engine.experiment.folder import Experiment, read_search, write_search
from dora_train.engine.experiment.records import SearchRecord, State
from dora_train.engine.grid.plan import Known, Verb, Wanted, limited, make_plan
from dora_train.engine.search import optimizers
from dora_train.engine.search.optimizers import Terms, make
from dora_train.engine.search.outcomes import Objective, Outcome, floors
from dora_train.engine.search.replay import Replay, Trial
from dora_train.engine.search.space import choice, integer, log, uniform
from dora_train.engine.watch.status import Status

SPACE = {
    "optim.lr": log(1e-3, 1.0),
    "optim.momentum": uniform(0.0, 0.99),
    "model_args.width": integer(8, 64),
    "schedule.name": choice("cosine", "onecycle"),
}
ACC = Objective("valid.acc", "max")
NAMES = ["random", "nevergrad", "nevergrad:DE", "optuna", "optuna:Random"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    library = request.param.partition(":")[0]
    if library != "random":
        pytest.importorskip(library)
    return request.param


def terms(space=SPACE, seed: int = 0, trials: int = 12, at_once: int = 3) -> Terms:
    return Terms(space, ACC, seed, trials, at_once)


def sig(values) -> str:
    return repr(sorted(values.items()))


def outcome_of(values) -> Outcome:
    """A made-up training: good near lr 0.1, and diverged above 0.5."""
    if values["optim.lr"] > 0.5:
        return Outcome()
    value = 1.0 - abs(values["optim.lr"] - 0.1) - values["optim.momentum"] / 10
    return Outcome(value, (value / 2, value), stopped=value < 0.6)


def searched(
    name: str, order: random.Random, kills: float = 0.0, at_once: int = 3, trials: int = 12
) -> list:
    """Every trial of a search whose trials end in any order, and which is killed at any time."""
    outcomes: dict[str, Outcome] = {}
    replay, record = Replay(make(name, terms()), outcomes, sig), []
    while len(outcomes) < trials:
        if order.random() < kills:
            replay = Replay(make(name, terms()), outcomes, sig)
            for trial in record:
                replay.repeat(trial)
            assert replay.trials == record
        while len(replay.trials) < trials and replay.ask(at_once):
            pass
        record = list(replay.trials)
        running = [trial for trial in record if trial.sig not in outcomes]
        assert len(running) <= at_once
        ends = order.choice(running)
        outcomes[ends.sig] = outcome_of(ends.values)
    return record


def test_same_seed_same_trials_whatever_ends_first_and_is_killed(name: str):
    reference = searched(name, random.Random(0))
    assert len({trial.sig for trial in reference}) == 12
    for seed in range(1, 4):
        assert searched(name, random.Random(seed), kills=0.4) == reference


def test_another_seed_other_trials(name: str):
    suggestions = [make(name, terms(seed=seed)) for seed in (0, 1)]
    assert [suggestions[0].ask().values for _ in range(4)] != [
        suggestions[1].ask().values for _ in range(4)
    ]


def test_what_is_told_matters(name: str):
    """But not to what draws blindly; else the tests above would hold for an optimizer that is told
    nothing."""
    blind = name in ("random", "optuna:Random")
    found = []
    for sign in (1.0, -1.0):
        optimizer = make(name, terms(trials=80, at_once=1))
        values = []
        for _ in range(60):
            asked = optimizer.ask()
            values.append(asked.values["optim.lr"])
            optimizer.tell(asked, Outcome(sign * asked.values["optim.lr"]))
        found.append(values)
    assert (found[0] == found[1]) == blind


def test_more_at_once_later_keeps_what_was_asked(name: str):
    outcomes: dict[str, Outcome] = {}
    replay = Replay(make(name, terms(at_once=1)), outcomes, sig)
    for _ in range(4):
        trial = replay.ask(1)
        assert trial is not None and replay.ask(1) is None, "one at a time"
        outcomes[trial.sig] = outcome_of(trial.values)
    again = Replay(make(name, terms(at_once=1)), outcomes, sig)
    for trial in replay.trials:
        again.repeat(trial)
    more = [again.ask(3) for _ in range(4)]
    assert all(more[:3]) and more[3] is None
    assert again.trials[:4] == replay.trials and len({trial.sig for trial in again.trials}) == 7


def test_a_small_space_ends_the_search_and_repeats_nothing(name: str):
    space = {"seed": integer(0, 1), "optim.name": choice("sgd", "adam")}
    outcomes: dict[str, Outcome] = {}
    replay = Replay(make(name, terms(space)), outcomes, sig)
    for _ in range(10):
        if trial := replay.ask(2):
            outcomes[trial.sig] = Outcome(0.5, (0.5,))
    assert replay.is_exhausted and 2 <= len(replay.trials) <= 4
    assert len({trial.sig for trial in replay.trials}) == len(replay.trials)
    again = Replay(make(name, terms(space)), outcomes, sig)
    for trial in replay.trials:
        again.repeat(trial)
    assert again.ask(2) is None and again.trials == replay.trials


def test_the_record_is_right_where_a_result_has_changed(name: str):
    record = searched(name, random.Random(0))
    other = {
        trial.sig: Outcome(0.1 * number, (0.1 * number,)) for number, trial in enumerate(record)
    }
    replay = Replay(make(name, terms()), other, sig)
    for trial in record:
        replay.repeat(trial)
    assert replay.trials == record and replay.ask(3) is not None


class Counting:
    """Suggests 0, 1, 2 ..., and remembers what it was told of."""

    def __init__(self) -> None:
        self.next, self.told = 0, []

    def ask(self) -> optimizers.Asked:
        self.next += 1
        return optimizers.Asked({"seed": self.next - 1})

    def adopt(self, values) -> optimizers.Asked:
        return optimizers.Asked(dict(values), "adopted")

    def tell(self, asked: optimizers.Asked, outcome: Outcome) -> None:
        self.told.append((asked.values["seed"], asked.handle, outcome.value))


def test_where_the_record_has_another_trial_that_one_is_told():
    optimizer, outcomes = Counting(), {sig({"seed": seed}): Outcome(seed / 10) for seed in range(9)}
    outcomes[sig({"seed": 8})] = Outcome(silent=True)
    replay = Replay(optimizer, outcomes, sig)
    for told, seed in enumerate((0, 7, 2, 8)):
        replay.repeat(Trial(sig({"seed": seed}), {"seed": seed}, told))
    assert replay.ask(1) and optimizer.told == [(0, None, 0.0), (7, "adopted", 0.7), (2, None, 0.2)]


def test_a_repetition_is_answered_with_what_is_known():
    optimizer, outcomes = Counting(), {sig({"seed": 0}): Outcome(0.5)}
    replay = Replay(optimizer, outcomes, sig)
    replay.ask(1)
    optimizer.next = 0
    assert replay.ask(1).values == {"seed": 1} and optimizer.told == [
        (0, None, 0.5),
        (0, None, 0.5),
    ]


def test_experiments_of_others_are_told_before_the_first(name: str):
    replay = Replay(make(name, terms()), {}, sig)
    values = {
        "optim.lr": 0.1,
        "optim.momentum": 0.5,
        "model_args.width": 16,
        "schedule.name": "cosine",
    }
    for momentum in (0.1, 0.2, 0.3):
        replay.reuse(values | {"optim.momentum": momentum}, Outcome(momentum, (momentum,)))
    assert replay.ask(1) is not None


def test_failures_alone_break_nothing(name: str):
    optimizer = make(name, terms())
    for _ in range(8):
        optimizer.tell(optimizer.ask(), Outcome())
    optimizer.tell(optimizer.ask(), Outcome(0.5, (0.5,)))
    optimizer.ask()


@given(st.sampled_from(list(SPACE.values())), st.floats(0, 1))
def test_a_value_is_short_and_within(dimension, share: float):
    value = dimension.rounded(dimension.at(share))
    assert dimension.holds(value) and dimension.rounded(value) == value and len(repr(value)) <= 10


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: log(0, 1),
        lambda: uniform(1, 1),
        lambda: integer(0.5, 2),  # type: ignore
        lambda: choice("a"),
        lambda: log("a", "b"),
        lambda: make("nevergradd", terms()),  # type: ignore
        lambda: make("random:x", terms()),
    ],
)
def test_what_no_search_can_be_made_of(wrong):
    with pytest.raises(UserError):
        wrong()


def test_an_unknown_name_says_what_is_near():
    for family, near in (("nevergrad:NGOptt", "NGOpt"), ("optuna:TPEE", "TPE")):
        pytest.importorskip(family.partition(":")[0])
        with pytest.raises(UserError, match=f"did you mean .*{near}"):
            make(family, terms())


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(optimizers.importlib, "import_module", missing)
    for family in ("nevergrad", "optuna"):
        with pytest.raises(UserError, match="pip install -r requirements-extra.txt"):
            make(family, terms())


def test_neither_library_is_imported_unless_asked_for():
    code = "import sys, grids.search; print(sorted({'nevergrad', 'optuna'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- outcomes ---


def test_a_trial_counts_with_its_best_epoch():
    history = [{"valid": {"acc": acc}} for acc in (0.2, 0.5, float("nan"), 0.4)] + [
        {"train": {"loss": 1.0}}
    ]
    assert ACC.steps(history) == (0.2, 0.5, 0.5, 0.5, 0.5)
    assert Objective("valid.acc", "min").steps(history) == (0.2,) * 5
    assert ACC.steps([{"valid": {"acc": float("nan")}}]) == ()
    seldom = [
        {"train": {"loss": 1}},
        {"valid": {"acc": 0.2}},
        {"train": {"loss": 1}},
        {"valid": {"acc": 0.1}},
    ]
    assert ACC.steps(seldom) == (None, 0.2, 0.2, 0.2), (
        "a step is an epoch, so that floors are compared like with like"
    )
    assert floors([Outcome(0.2, ACC.steps(seldom))] * 5) == [None, 0.2, 0.2, 0.2]
    with pytest.raises(UserError, match="valid.acc"):
        Objective("valid.f1", "max").refuse_missing("5f3a91c2", history)


def test_the_median_needs_five():
    curves = [
        Outcome(0.1 * number, tuple(0.1 * number for _ in range(3 if number else 2)))
        for number in range(5)
    ]
    assert floors(curves[:4]) == [None, None, None]
    assert floors(curves) == [0.2, 0.2, None], "one was stopped after two epochs"
    assert floors([*curves, Outcome(), Outcome(silent=True)]) == [0.2, 0.2, None], (
        "failures have no say"
    )


def test_the_record_is_read_as_it_was_written(tmp_path: Path):
    assert read_search(tmp_path) is None
    record = SearchRecord(
        {"seed": 0}, 20, 2, ["5f3a91c2"], [{"sig": "77c01b9e", "values": {"a": 1}, "told": 0}]
    )
    write_search(tmp_path, record)
    assert read_search(tmp_path) == record
    for damage in (
        '{"trials": [{"sig": 1}]}',
        '{"trials": [1]}',
        '{"trials": null}',
        '{"reused": 1}',
        "[]",
        '{"tri',
    ):
        (tmp_path / "search.json").write_text(damage)
        assert read_search(tmp_path) is None, "most of it is found again in the experiments"


# --- the plan ---

STATUSES = st.builds(Status, st.sampled_from(list(State)), by_job=st.just(True))


@given(st.lists(STATUSES, max_size=8), st.integers(1, 4), st.booleans(), st.booleans())
@settings(max_examples=200)
def test_no_more_than_that_at_a_time(statuses: list[Status], most: int, retry: bool, clear: bool):
    known = {f"{number:08x}": Known(status) for number, status in enumerate(statuses)}
    plan = make_plan(
        [Wanted(one, searched=True) for one in known],
        known,
        SubmitRules(retry=retry),
        "me",
        clear=clear,
    )
    capped = limited(plan, known, most)
    live = sum(status.live for status in statuses)
    starts = [one for one in capped if one.verb.submits and not known[one.sig].status.live]
    assert len(starts) == min(
        max(0, most - live),
        sum(one.verb.submits and not known[one.sig].status.live for one in plan),
    )
    assert [one.anew for one in capped] == [one.anew for one in plan], "cleared are all"


def test_a_search_keeps_what_it_has_stopped_and_others_finish_it():
    known = {"a": Known(Status(State.STOPPED))}
    assert make_plan([Wanted("a", searched=True)], known, SubmitRules(), "me")[0].verb == Verb.KEEP
    assert (
        make_plan([Wanted("a", searched=True)], known, SubmitRules(retry=True), "me")[0].verb
        == Verb.RETRY
    )
    assert make_plan([Wanted("a")], known, SubmitRules(), "me")[0].verb == Verb.RESUME


# --- the real thing ---

HEAD = '''"""A test's search."""
from dora_train.search import Search, choice, integer, log, uniform
from grids._explorers import ClassifierExplorer


class Question(Search, ClassifierExplorer):
    space = {"optim.lr": log(1e-3, 1.0), "optim.momentum": uniform(0.0, 0.99)}
    optimizer = "random"
    trials = 4
    at_once = 2
'''
TAIL = """

@Question
def explorer(launcher):
    launcher.bind_({"debug": "fast", "threads": 1})
"""


@pytest.fixture
def local(tmp_path: Path, machine: Machine) -> GridProject:
    return GridProject(tmp_path, machine)


def write(project: GridProject, *lines: str, asleep: bool = False) -> None:
    tail = (
        TAIL.replace("launcher.bind_", 'launcher.slurm_(setup=["sleep 300"]).bind_')
        if asleep
        else TAIL
    )
    (project.folder / "grids" / "question.py").write_text(
        HEAD + "".join(f"    {line}\n" for line in lines) + tail
    )


def trials(project: GridProject) -> list[Experiment]:
    record = read_search(project.out / "grids" / "question")
    assert record is not None
    return [Experiment(project.out / "xps" / trial["sig"]) for trial in record.trials]


def attempts(experiment: Experiment) -> int:
    return experiment.state().attempt


@pytest.mark.slow
def test_killed_at_any_time_it_goes_on(local: GridProject):
    write(local)
    order = random.Random(3)
    for number in (1, 2, 3):
        process = local.start("grid", "question")
        while len(local.xps()) < number:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        time.sleep(order.uniform(0, 2))
        process.kill()
        process.communicate()
    out = local.dora("grid", "question")
    assert "4 of 4 trials are over, best valid.acc" in out
    queue = Path(local.env["DORA_QUEUE"])
    assert (queue / "more").exists(), "it let the queue keep the libraries for the next trial"
    assert len(local.xps()) == 4 and all(
        attempts(xp) == 1 and xp.job_number() == 1 for xp in local.xps()
    )
    drawn = make(
        "random",
        Terms({"optim.lr": log(1e-3, 1.0), "optim.momentum": uniform(0.0, 0.99)}, ACC, 0, 4, 2),
    )
    wanted = [drawn.ask().values for _ in range(4)]
    assert [
        trial["values"] for trial in read_search(local.out / "grids" / "question").trials
    ] == wanted
    (local.out / "grids" / "question" / "search.json").unlink()
    assert "4 of 4 trials are over" in local.sync(), "found again in the experiments"
    assert [
        trial["values"] for trial in read_search(local.out / "grids" / "question").trials
    ] == wanted
    before = {xp.sig: xp.birth().born for xp in local.xps()}
    assert len(before) == 4
    assert "4 completed" in local.dora("grid", "question", "--clear", DORA_YES="1")
    assert {xp.sig for xp in local.xps() if xp.birth().born != before[xp.sig]} == set(before), (
        "all anew"
    )


@pytest.mark.slow
def test_a_dry_run_leaves_no_trace_and_cancel_asks_for_nothing(local: GridProject):
    write(local, asleep=True)
    assert "question: + 2 new" in local.dora("grid", "question", "--dry_run")
    assert not local.out.exists() or not list(local.out.rglob("search.json"))
    assert "question: + 2 new" in local.sync()
    assert "question: - 2 cancel" in local.dora("grid", "question", "--cancel", DORA_YES="1")
    local.cluster.wait(lambda: not local.live())
    assert len(trials(local)) == 2 and len(local.xps()) == 2
    write(local)
    out = local.dora("grid", "question", code=1)
    assert "4 of 4 trials are over" in out and "2 cancelled" in out and "2 completed" in out, (
        "that tells it nothing"
    )
    assert "4 completed" in local.dora("grid", "question", "--retry")


@pytest.mark.slow
def test_failures_are_told_and_the_search_goes_on(local: GridProject):
    write(local, 'space = {"optim.lr": choice(1e30, 0.1), "seed": integer(0, 3)}')
    out = local.dora("grid", "question")
    assert "diverged" in out and "4 of 4 trials are over" in out, (
        "a failure is an answer: exit code 0"
    )
    again = local.sync()
    assert "kept" in again and all(attempts(xp) == 1 for xp in local.xps())


@pytest.mark.slow
def test_where_all_fail_it_gives_up(local: GridProject):
    write(local, 'space = {"optim.lr": log(1e30, 1e31)}', "trials = 20", "at_once = 1")
    out = local.dora("grid", "question", code=1)
    assert "all of the first 3 trials failed, so no more are tried: diverged" in out
    assert len(local.xps()) == 3
    local.dora("grid", "question", "--retry", code=1)
    assert [attempts(xp) for xp in local.xps()] == [2, 2, 2], "one at a time, and all of them"


@pytest.mark.slow
def test_hopeless_trials_stop_and_another_grid_finishes_them(local: GridProject, tmp_path: Path):
    rule = 'stop_rule = lambda self, sig: {"metric": "valid.acc", "mode": "max", "floors": [0.999]}'
    write(local, rule, "trials = 1")
    out = local.dora("grid", "question")
    assert "1 stopped" in out and "1 of 1 trials are over" in out
    [xp] = local.xps()
    assert (
        xp.state().state == State.STOPPED
        and "after 1 epochs, the median is 0.999" in xp.state().cause
    )
    assert len(xp.history()) == 1 and xp.last_checkpoint.exists() and xp.result() is None
    assert "question: = 1 kept" in local.sync(), "its search keeps it"
    reference = GridProject(tmp_path / "reference", local.cluster)
    values = read_search(local.out / "grids" / "question").trials[0]["values"]
    for project in (local, reference):
        project.grid(f"launcher({values!r}, threads=1)", name="finish")
        assert "1 completed" in project.dora("grid", "finish")
    assert attempts(xp) == 2 and len(xp.history()) == 2
    same_run(xp, reference.xps()[0])


@pytest.mark.slow
def test_what_other_grids_ran_is_told_before_the_first(local: GridProject):
    local.grid(
        'for lr in (0.1, 0.5, 5.0): launcher({"optim.lr": lr, "threads": 1})',
        'launcher({"optim.lr": 0.1, "seed": 1})',
        name="before",
    )
    local.dora("grid", "before")
    write(local, "reuse = True", "trials = 1")
    local.dora("grid", "question")
    reused = read_search(local.out / "grids" / "question").reused
    assert sorted(
        dict(Experiment(local.out / "xps" / sig).birth().delta)["optim.lr"] for sig in reused
    ) == [0.1, 0.5]


@pytest.mark.slow
def test_mistakes_in_a_search_cost_a_line(local: GridProject):
    for line, words in (
        ("trails = 3", 'a search has no "trails": did you mean trials?'),
        ('optimizer = "nevergradd"', "did you mean nevergrad?"),
        ("space = {}", "a search needs a space"),
        ("at_once = 0", "whole numbers from 1 on"),
        ('space = {"optim.lrr": log(1e-3, 1)}', "did you mean optim.lr?"),
    ):
        write(local, line)
        assert words in local.dora("grid", "question", "--dry_run", code=1)
    write(local, 'objective = "valid.f1"', 'mode = "max"', "trials = 1")
    assert 'the objective "valid.f1" is in no epoch' in local.dora("grid", "question", code=1)


# --- stopping early ---


def stops(accs: list[float], floors: list, mode: str = "max") -> bool:
    """Whether a run with this history leaves as its next epoch begins."""
    from dora_train.engine.run.endings import StopHopeless
    from dora_train.engine.run.signals import Stopped

    history = SimpleNamespace(
        entries=[{"valid": {"acc": acc}} for acc in accs], by_validation=False
    )
    rule = {"metric": "valid.acc", "mode": mode, "floors": floors}
    try:
        StopHopeless(history, rule).on_train_epoch_start(None, None)  # type: ignore[arg-type]
    except Stopped as stop:
        assert f"after {len(accs)} epochs" in str(stop)
        return True
    return False


def test_what_is_below_the_median_stops():
    assert stops([0.1], [0.2]) and not stops([0.2], [0.2]) and not stops([0.3], [0.2])
    assert stops([0.3], [0.2], "min") and not stops([0.1], [0.2], "min")
    assert not stops([], [0.2]) and not stops([0.1], [None]) and not stops([0.1, 0.1], [0.2]), (
        "no floor there"
    )
    assert not stops([0.5, 0.1], [0.4, 0.4]), "its best epoch counts"
    assert stops([float("nan"), 0.1], [None, 0.4]) and not stops([float("nan")], [0.4])


def test_a_trial_is_compared_with_those_that_were_told_before_it():
    """Else what stops it would hang on when somebody looked."""
    from dora_train.search import Search

    class Question(Search):
        space = SPACE
        prune = "median"

    search = Question(lambda launcher: None)
    search._settle("valid.acc", "max")
    search._replay = Replay(make("random", terms()), search._outcomes, sig)
    search._replay.trials = [Trial(str(number), {}, max(0, number - 1)) for number in range(8)]
    search._outcomes.update({str(number): Outcome(number, (number,)) for number in range(8)})
    assert search.stop_rule("5") == {} and search.stop_rule("none") == {}, "four were told"
    assert search.stop_rule("6") == {"metric": "valid.acc", "mode": "max", "floors": [2]}
    assert search.stop_rule("7")["floors"] == [2.5]
    search.prune = None
    assert search.stop_rule("7") == {}


def test_trials_without_a_finite_value_are_told_as_such():
    """They completed, so none of them has a cause of failure to name."""
    from dora_train.search import Search

    class Question(Search):
        space = SPACE

    search = Question(lambda launcher: None)
    search._settle("valid.loss", "min")
    search._replay = Replay(make("random", terms()), search._outcomes, sig)
    search._outcomes.update({str(number): Outcome(None, ()) for number in range(3)})
    assert search.note().endswith("no more are tried: none of them has a finite valid.loss")


def test_a_trial_that_was_submitted_again_has_no_outcome_until_it_ends():
    """By --retry, or because its job ran out of memory."""
    from dora_train.search import Search

    class Question(Search):
        space = SPACE

    value = [0.5]

    def experiment(sig: str) -> Any:
        return SimpleNamespace(sig=sig, history=lambda: [{"valid": {"acc": value[0]}}])

    statuses = {str(number): Status(State.FAILED, "diverged") for number in range(3)}
    context: Any = SimpleNamespace(
        main=SimpleNamespace(experiment=experiment),
        look=lambda experiments: {one.sig: statuses[one.sig] for one in experiments},
    )
    search = Question(lambda launcher: None)
    search._settle("valid.acc", "max")
    search._replay = Replay(make("random", terms()), search._outcomes, sig)
    search._replay.trials = [Trial(number, {}) for number in statuses]
    assert search.has_missed(statuses)
    search._learn(search._replay.trials, context)
    assert search.has_given_up() and search.note().endswith("no more are tried: diverged")
    assert not search.has_missed(statuses)
    statuses["0"] = Status(State.WAITING)
    search._learn(search._replay.trials, context)
    assert not search.has_given_up() and not search.has_missed(statuses)
    statuses["0"] = Status(State.COMPLETED)
    assert search.has_missed(statuses)
    search._learn(search._replay.trials, context)
    assert search.note() == "3 of 20 trials are over, best valid.acc 0.5 (0)"
    value[0] = 0.7  # it was stopped and submitted again, and nobody looked in between
    search._learn(search._replay.trials, context)
    assert search.note() == "3 of 20 trials are over, best valid.acc 0.7 (0)"
