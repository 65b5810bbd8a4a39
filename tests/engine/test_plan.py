"""What a grid does with each experiment: the plan, fed with odd cases."""

from dataclasses import replace

import pytest
from dora.conf import SubmitRules
from hypothesis import given
from hypothesis import strategies as st

from dora_train.engine.experiment.records import State
from dora_train.engine.grid.plan import Action, Known, Verb, Wanted, limited, make_plan
from dora_train.engine.grid.summary import is_alarming, noteworthy, stopped, summary
from dora_train.engine.watch.status import Status

ME = "me"
RUNNING = Status(State.RUNNING, where="n1, job 7", job_id="7", user=ME, by_job=True)
WAITING = Status(State.WAITING, job_id="8", user=ME, by_job=True)
IN_TERMINAL = Status(State.RUNNING, where="laptop, process 3", user=ME)


def decided(
    status: Status,
    wanted: Wanted = Wanted("a"),  # noqa: B008
    rules: SubmitRules = SubmitRules(),  # noqa: B008
    **flags,
):
    known = Known(status, flags.pop("resources", {}), flags.pop("grids", ()))
    return make_plan([wanted], {"a": known}, rules, ME, **flags)[0]


@pytest.mark.parametrize(
    "state, verb, retried",
    [
        (State.NEW, Verb.NEW, Verb.NEW),
        (State.COMPLETED, Verb.KEEP, Verb.KEEP),
        (State.INTERRUPTED, Verb.RESUME, Verb.RESUME),
        (State.FAILED, Verb.KEEP, Verb.RETRY),
        (State.CANCELLED, Verb.KEEP, Verb.RETRY),
        (State.TIMED_OUT, Verb.KEEP, Verb.RETRY),
        (State.STOPPED, Verb.RESUME, Verb.RESUME),
        (State.WAITING, Verb.KEEP, Verb.KEEP),
        (State.RUNNING, Verb.KEEP, Verb.KEEP),
    ],
)
def test_each_state(state, verb, retried):
    assert decided(Status(state)).verb == verb
    assert decided(Status(state), rules=SubmitRules(retry=True)).verb == retried


def test_unknown_to_us_is_new():
    assert make_plan([Wanted("a")], {}, SubmitRules(), ME)[0].verb == Verb.NEW


def test_failed_says_why_and_how_to_go_on():
    action = decided(Status(State.FAILED, "out of memory"))
    assert action.wrong and action.reason == "out of memory; again: --retry"
    assert noteworthy([action]) == [action]


def test_more_memory_is_given_by_itself_with_the_code_of_before_and_by_retry_with_todays():
    wanted, status = Wanted("a", more="1.5 times the memory"), Status(State.FAILED, "out of memory")
    action = decided(status, wanted)
    assert (action.verb, action.reason) == (
        Verb.RESUME,
        "out of memory; again with 1.5 times the memory",
    )
    action = decided(status, wanted, SubmitRules(retry=True))
    assert (action.verb, action.reason) == (
        Verb.RETRY,
        "out of memory (--retry), with 1.5 times the memory",
    )


def test_drift_comes_before_everything_but_cancel():
    wanted = Wanted("a", drift=("optim.lr was 0.1",))
    for state in (State.NEW, State.COMPLETED, State.INTERRUPTED, State.FAILED):
        action = decided(Status(state), wanted, SubmitRules(retry=True, replace_done=True))
        assert (action.verb, action.wrong) == (
            Verb.KEEP,
            True,
        ) and "optim.lr was 0.1" in action.reason
    assert decided(RUNNING, wanted, cancel=True).verb == Verb.CANCEL


def test_replace_is_for_jobs_that_can_be_cancelled():
    rules = SubmitRules(replace=True)
    assert (
        decided(RUNNING, rules=rules).verb == Verb.REPLACE and decided(RUNNING, rules=rules).stops
    )
    assert decided(IN_TERMINAL, rules=rules).verb == Verb.KEEP
    assert decided(replace(RUNNING, user="you"), rules=rules).verb == Verb.KEEP
    assert decided(replace(RUNNING, certain=False), rules=rules).verb == Verb.KEEP


def test_other_resources_replace_what_waits():
    wanted = Wanted("a", {"gpus": 1})
    assert decided(WAITING, wanted, resources={"gpus": 0}).verb == Verb.REPLACE
    assert "gpus 0 -> 1" in decided(WAITING, wanted, resources={"gpus": 0}).reason
    assert decided(WAITING, wanted, resources={"gpus": 1}).verb == Verb.KEEP
    assert decided(RUNNING, wanted, resources={"gpus": 0}).verb == Verb.KEEP
    assert (
        decided(RUNNING, wanted, SubmitRules(update=True), resources={"gpus": 0}).verb
        == Verb.REPLACE
    )


def test_replace_done_starts_from_scratch():
    action = decided(Status(State.COMPLETED), rules=SubmitRules(replace_done=True))
    assert action.verb == Verb.REPLACE and action.anew and not action.stops


def test_clear_takes_all_but_what_is_not_ours():
    assert decided(Status(State.COMPLETED), clear=True).anew
    assert decided(RUNNING, clear=True).stops
    assert decided(Status(State.FAILED), Wanted("a", drift=("x",)), clear=True).verb == Verb.NEW
    assert decided(IN_TERMINAL, clear=True).verb == Verb.KEEP
    assert decided(replace(RUNNING, user="you"), clear=True).verb == Verb.KEEP


def test_cancel_touches_what_waits_or_runs():
    assert decided(RUNNING, cancel=True).verb == Verb.CANCEL
    assert decided(WAITING, cancel=True).verb == Verb.CANCEL
    assert decided(Status(State.NEW), cancel=True).verb == Verb.KEEP
    assert decided(IN_TERMINAL, cancel=True).verb == Verb.KEEP
    for other in ("aaron", "you"):  # before and after our name
        assert decided(replace(RUNNING, user=other), cancel=True).verb == Verb.KEEP


def leaving(status: Status, grids=()):
    return make_plan([], {"a": Known(status, grids=grids)}, SubmitRules(), ME, leaving=["a"])[0]


def test_a_removed_line_cancels_its_experiment():
    assert leaving(RUNNING).verb == leaving(WAITING).verb == Verb.CANCEL


def test_a_removed_line_leaves_what_is_not_only_its_own():
    for action in (
        leaving(RUNNING, {"other"}),
        leaving(replace(RUNNING, user="you")),
        leaving(IN_TERMINAL),
        leaving(Status(State.COMPLETED)),
    ):
        assert action.verb == Verb.KEEP and action.leaves and not action.stops


def test_alarm_when_the_grid_came_out_empty_or_most_would_be_cancelled():
    live = {name: Known(RUNNING) for name in "abcd"}
    assert is_alarming(make_plan([], live, SubmitRules(), ME, leaving="abcd"), live)
    assert is_alarming(make_plan([Wanted("a")], live, SubmitRules(), ME, leaving="bcd"), live)
    assert not is_alarming(
        make_plan([Wanted("a"), Wanted("b")], live, SubmitRules(), ME, leaving="cd"), live
    )
    done = {"a": Known(Status(State.COMPLETED))}
    assert is_alarming(make_plan([], done, SubmitRules(), ME, leaving="a"), done)
    assert not is_alarming(make_plan([], {}, SubmitRules(), ME), {})


def test_summary_counts():
    known = {
        "b": Known(RUNNING),
        "c": Known(Status(State.INTERRUPTED)),
        "d": Known(RUNNING),
        "e": Known(Status(State.COMPLETED)),
    }
    actions = make_plan(
        [Wanted("a"), Wanted("b"), Wanted("c")], known, SubmitRules(), ME, leaving=["d", "e"]
    )
    assert summary(actions) == "+ 1 new  ~ 1 resume  = 1 kept  - 1 cancel  (1 no longer named)"
    assert summary([]) == "nothing to do"


statuses = st.builds(
    Status,
    st.sampled_from(State),
    st.sampled_from(["", "x"]),
    user=st.sampled_from(["", ME, "you"]),
    certain=st.booleans(),
    by_job=st.booleans(),
)
known_ones = st.builds(
    Known,
    statuses,
    st.sampled_from([{}, {"gpus": 0}, {"gpus": 1}]),
    st.sampled_from([(), ("other",)]),
)
all_rules = st.builds(SubmitRules, st.booleans(), st.booleans(), st.booleans(), st.booleans())


@given(
    known=st.dictionaries(st.sampled_from("abcdef"), known_ones),
    rules=all_rules,
    cancel=st.booleans(),
    clear=st.booleans(),
    drift=st.sampled_from([(), ("x",)]),
    named=st.sets(st.sampled_from("abcdef")),
)
def test_rules_that_no_plan_breaks(known, rules, cancel, clear, drift, named):
    wanted = [Wanted(sig, {"gpus": 0}, drift) for sig in sorted(named)]
    left = sorted(set(known) - named)
    actions = make_plan(wanted, known, rules, ME, left, cancel, clear)
    # each once: never both kept and cancelled
    assert [action.sig for action in actions] == sorted(named) + left
    for action in actions:
        now = known.get(action.sig, Known(Status(State.NEW)))
        alive = now.status.live
        if action.stops or action.verb == Verb.CANCEL:
            assert alive and now.status.user in ("", ME)
            assert now.status.by_job or now.status.state == State.WAITING
        if action.verb.submits:
            assert not action.leaves and not cancel
            assert not alive or action.stops  # never a second job beside a first
            assert not drift or clear
            assert now.status.state != State.COMPLETED or action.anew
        if action.leaves and action.verb == Verb.CANCEL:
            assert not now.grids


@pytest.mark.parametrize(
    "state, flags",
    [
        (State.COMPLETED, {"clear": True}),
        (State.FAILED, {"clear": True}),
        (State.NEW, {"clear": True}),
        (State.COMPLETED, {"rules": SubmitRules(replace_done=True)}),
    ],
)
def test_the_results_of_another_user_stay(state, flags):
    rules = flags.pop("rules", SubmitRules())
    known = {"a": Known(Status(state), owner="alice")}
    action = make_plan([Wanted("a")], known, rules, ME, **flags)[0]
    assert (action.verb, action.anew, action.refused) == (Verb.KEEP, False, True)
    assert "made by alice" in action.reason and noteworthy([action]) == [action]


def test_what_another_user_made_goes_on_as_ever():
    """Only its results are theirs: whoever shares the folder may finish what failed."""
    known = {"a": Known(Status(State.FAILED), owner="alice")}
    assert make_plan([Wanted("a")], known, SubmitRules(retry=True), ME)[0].verb == Verb.RETRY
    rules = SubmitRules(replace_done=True)
    assert make_plan([Wanted("a")], known, rules, ME)[0].reason == "failed; again: --retry"


# --- what each action carries ---


def test_what_stops_a_job_says_so():
    for action in (
        decided(RUNNING, rules=SubmitRules(replace=True)),
        decided(RUNNING, clear=True),
        decided(WAITING, Wanted("a", {"gpus": 1}), resources={"gpus": 0}),
        decided(RUNNING, cancel=True),
        leaving(RUNNING),
    ):
        assert action.stops and stopped([action]) == [action], action
    for action in (
        decided(Status(State.FAILED), clear=True),
        decided(RUNNING),
        leaving(RUNNING, {"other"}),
    ):
        assert not action.stops and stopped([action]) == [], action


def test_from_scratch_replaces_a_job_and_makes_the_rest_new():
    assert decided(WAITING, clear=True).verb == Verb.REPLACE
    assert decided(Status(State.COMPLETED), clear=True).verb == Verb.NEW


def test_replace_needs_a_job_of_which_something_is_known():
    rules = SubmitRules(replace=True)
    for status in (replace(WAITING, by_job=False), replace(WAITING, certain=False)):
        assert decided(status, rules=rules).verb == Verb.KEEP


@pytest.mark.parametrize(
    "now, today, older",
    [
        ("a1", "b2", True),
        ("b2", "a1", True),
        ("a1", "a1", False),
        ("", "b2", False),
        ("a1", "", False),
        ("", "", False),
    ],
)
def test_a_job_that_waits_with_older_code(now, today, older):
    known = {"a": Known(WAITING, code=now)}
    assert make_plan([Wanted("a", code=today)], known, SubmitRules(), ME)[0].older == older
    action = make_plan([Wanted("a", code=today)], known, SubmitRules(), ME, update=True)[0]
    assert (action.verb, action.stops) == ((Verb.REPLACE, True) if older else (Verb.KEEP, False))
    running = {"a": Known(RUNNING, code=now)}
    kept = make_plan([Wanted("a", code=today)], running, SubmitRules(), ME, update=True)[0]
    assert (kept.verb, kept.older) == (Verb.KEEP, False), (
        "what runs goes on with the code that it has"
    )


def test_a_stopped_trial_is_kept_by_its_search_unless_it_is_asked_for():
    trial = Wanted("a", searched=True)
    assert decided(Status(State.STOPPED), trial).verb == Verb.KEEP
    assert decided(Status(State.STOPPED), trial, SubmitRules(retry=True)).verb == Verb.RETRY


@pytest.mark.parametrize(
    "status, words",
    [
        (RUNNING, "running on n1, job 7"),
        (WAITING, "waiting"),
        (replace(WAITING, where="job 8"), "waiting"),
        (replace(WAITING, cause="Resources"), "waiting"),
        (replace(RUNNING, where=""), "running"),
        (
            replace(WAITING, cause="its scheduler does not answer", certain=False),
            "waiting (its scheduler does not answer)",
        ),
        (replace(WAITING, certain=False), "waiting"),
    ],
)
def test_what_is_kept_says_what_it_does(status, words):
    assert decided(status).reason == words


@pytest.mark.parametrize(
    "status, words",
    [
        (Status(State.FAILED, "out of memory"), "out of memory"),
        (Status(State.FAILED), "failed"),
        (Status(State.CANCELLED, "cancelled by me"), "cancelled"),
        (Status(State.TIMED_OUT, "time limit"), "timed out"),
    ],
)
def test_what_ended_badly_says_how(status, words):
    assert decided(status).reason == f"{words}; again: --retry" and decided(status).wrong
    assert decided(status, rules=SubmitRules(retry=True)).reason == f"{words} (--retry)"


def test_drift_is_refused_and_noteworthy():
    action = decided(Status(State.COMPLETED), Wanted("a", drift=("optim.lr was 0.1",)))
    assert action.refused and action.wrong and noteworthy([action]) == [action]
    assert not decided(Status(State.FAILED)).refused, "a failure is shown, and nothing was refused"


def test_only_what_is_done_or_wrong_is_named():
    actions = [Action("a", Verb.KEEP), Action("b", Verb.NEW), Action("c", Verb.KEEP, wrong=True)]
    assert [action.sig for action in noteworthy(actions)] == ["b", "c"]


def test_no_alarm_for_what_the_user_cancels_or_another_grid_keeps():
    live = {name: Known(RUNNING) for name in "abcd"}
    wanted = [Wanted(name) for name in "abcd"]
    assert not is_alarming(make_plan(wanted, live, SubmitRules(), ME, cancel=True), live)
    shared = {**live, **{name: Known(RUNNING, grids={"other"}) for name in "bcd"}}
    assert not is_alarming(
        make_plan([Wanted("a")], shared, SubmitRules(), ME, leaving="bcd"), shared
    )


def test_what_is_left_alone_has_no_mark():
    action = decided(RUNNING)
    marks = (action.anew, action.wrong, action.refused, action.stops, action.leaves, action.older)
    assert not any(marks)


def test_what_waits_with_us_is_put_in():
    action = decided(replace(WAITING, held=True))
    assert (action.verb, action.reason) == (Verb.NEW, "queued by us before")


def test_a_trial_that_failed_is_no_trial_that_was_stopped():
    trial = Wanted("a", searched=True)
    assert decided(Status(State.FAILED), trial).reason == "failed; again: --retry"
    assert (
        decided(Status(State.FAILED), trial, SubmitRules(retry=True)).reason == "failed (--retry)"
    )


def test_whose_job_it_was_matters_as_long_as_it_lives():
    theirs = Status(State.FAILED, user="you", by_job=True)
    assert decided(theirs, rules=SubmitRules(retry=True)).verb == Verb.RETRY
    assert decided(replace(RUNNING, user=""), cancel=True).verb == Verb.CANCEL, (
        "nobody is known: it may be ours"
    )
    being_submitted = Status(State.WAITING, "being submitted", certain=False)
    assert decided(being_submitted, cancel=True).verb == Verb.CANCEL


# --- so many at a time ---


def shown(actions):
    return "".join(
        {Verb.NEW: "+", Verb.KEEP: "=", Verb.CANCEL: "-", Verb.REPLACE: "~"}[one.verb]
        for one in actions
    )


@pytest.mark.parametrize(
    "states, most, plan",
    [
        ("nnn", 2, "++="),
        ("nnn", 0, "==="),
        ("nnn", 3, "+++"),
        ("rnn", 2, "=+="),
        ("wnn", 1, "==="),
        ("cnn", 1, "=+="),
        ("crrn", 2, "===="),
    ],
)
def test_at_most_so_many_wait_or_run(states, most, plan):
    named = {"n": Status(State.NEW), "r": RUNNING, "w": WAITING, "c": Status(State.COMPLETED)}
    known = {str(at): Known(named[letter]) for at, letter in enumerate(states) if letter != "n"}
    actions = make_plan([Wanted(str(at)) for at in range(len(states))], known, SubmitRules(), ME)
    assert shown(limited(actions, known, most)) == plan


def test_a_job_that_is_replaced_takes_no_second_place():
    known = {"a": Known(RUNNING)}
    actions = make_plan([Wanted("a"), Wanted("b")], known, SubmitRules(replace=True), ME)
    assert shown(limited(actions, known, 1)) == "~="
    assert shown(limited(actions, known, 2)) == "~+"


def test_what_is_cancelled_or_no_longer_named_leaves_its_place():
    known = {"a": Known(RUNNING), "b": Known(RUNNING, grids={"other"})}
    actions = make_plan([Wanted("c")], known, SubmitRules(), ME, leaving=["a", "b"])
    assert shown(limited(actions, known, 1)) == "+-="
    actions = [Action("a", Verb.CANCEL), Action("c", Verb.NEW)]
    assert shown(limited(actions, {"a": Known(RUNNING)}, 1)) == "-+"


def test_an_experiment_without_a_slot_says_so():
    actions = [Action("a", Verb.NEW), Action("b", Verb.NEW, "queued by us before")]
    first, second = limited(actions, {}, 1)
    assert first == actions[0]
    assert (second.verb, second.reason) == (Verb.KEEP, "waiting for a free slot (at_once=1)")


def test_a_user_is_the_same_however_the_name_was_read():
    """Names come from files and from the system: equal, and yet two objects."""
    from dora_train.engine.grid.plan import _not_ours

    mine = Status(State.RUNNING, user="".join(["a", "nn"]), by_job=True)
    assert _not_ours(mine, "".join(["an", "n"])) == ""
    assert _not_ours(mine, "bob").endswith("of ann")
