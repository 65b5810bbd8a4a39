"""What the report says of settings: the order, the sentence, the seeds to add, in every format."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from experiments import experiment
from project import ROOT

from dora_train.engine.errors import UserError
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import State
from dora_train.engine.watch.status import Status
from dora_train.report import diff, marks
from dora_train.report.additions import additions, file_of, shown
from dora_train.report.conclusion import conclusion, described, remarks
from dora_train.report.formats import FORMATS
from dora_train.report.report import Report
from dora_train.report.runs import read_one

NAN = math.nan
Values = dict[float, list[float | None]]
CLEAR: Values = {0.1: [0.90, 0.91, 0.92], 0.2: [0.80, 0.81, 0.82], 0.3: [0.70, 0.72, 0.71]}
CLOSE: Values = {0.1: [0.90, 0.95, 0.92, 0.94], 0.2: [0.91, 0.92, 0.91, 0.93]}
SINGLE: Values = {0.1: [0.90], 0.2: [0.80]}


def made(out: Path, values: Values, mode: str = "max", **changes: Any) -> Report:
    """A grid of learning rates; a value for each seed, None: it failed."""
    for lr, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            experiment(
                out,
                {"optim.lr": lr, "seed": seed, "best.mode": mode, **changes},
                0.5 if value is None else value,
                State.FAILED if value is None else State.COMPLETED,
                grid="sweep",
                cause="" if value is not None else "diverged",
            )
    return Report(out, ["sweep"], over=["seed"])


def verdicts(report: Report) -> dict[str, str]:
    return {one.name: one.verdict for one in report.sections[0].ranking.entries}


# --- the sentence ---


@pytest.mark.parametrize(
    "values, said",
    [
        (CLEAR, "lr=0.1 is better than both other settings."),
        ({0.1: CLEAR[0.1], 0.2: CLEAR[0.2]}, "lr=0.1 is better than lr=0.2."),
        (
            {**CLEAR, 0.4: [0.88, 0.91, 0.93], 0.5: [0.99], 0.6: [None, NAN]},
            "lr=0.1 is better than 2 of the 5 other settings; 1 is undecided, and 50 more seeds"
            " each would probably not tell; 1 has one seed only; 1 has no result.",
        ),
        (
            CLOSE,
            "lr=0.1 is ahead, which may be chance; 1 is undecided: 19 more seeds each would"
            " probably tell.",
        ),
        ({0.1: [0.9, 0.9, 0.9], 0.2: [0.9] * 3}, "Both settings are level in test acc of"),
        (
            {0.1: [0.9, 0.91, 0.9], 0.2: [0.9, 0.91, 0.9], 0.3: [0.1, 0.11, 0.1]},
            "lr=0.1 and lr=0.2 are level, and better than lr=0.3.",
        ),
        ({0.1: [0.9, 0.8]}, "There is one setting only: nothing to compare it with."),
        (
            SINGLE,
            "One seed each cannot tell which setting is better: lr=0.1 is ahead, and each needs at"
            " least 2 more seeds.",
        ),
        ({0.1: [0.9, 0.91], 0.2: [0.8]}, "Only lr=0.1 has more than one seed, and one seed of"),
        ({0.1: [0.9, 0.91], 0.2: [None, None]}, "Only lr=0.1 has a result: "),
        ({0.1: [None], 0.2: [NAN]}, "No run has finished with a test acc of the best epoch: "),
        ({0.1: [None], 0.2: [None]}, "No run has finished with a validation acc of the best epoch"),
    ],
)
def test_one_sentence_whatever_is_missing(tmp_path: Path, values: Values, said: str):
    found = conclusion(made(tmp_path, values).sections[0].ranking)
    assert found.replace("lr=0.2 and lr=0.1", "lr=0.1 and lr=0.2").startswith(said)


def test_the_lowest_is_best_if_the_experiments_say_so(tmp_path: Path):
    report = made(tmp_path, CLEAR, "min")
    assert verdicts(report) == {"lr=0.3": "best", "lr=0.2": "worse", "lr=0.1": "worse"}


def test_no_verdict_if_the_experiments_disagree_on_the_direction(tmp_path: Path):
    made(tmp_path, {0.1: CLEAR[0.1]})
    report = made(tmp_path, {0.2: CLEAR[0.2]}, "min")
    assert conclusion(report.sections[0].ranking) == (
        "No verdict: the experiments disagree on whether more or less of test acc is better"
        " (best.mode)."
    )
    assert set(verdicts(report).values()) == {""} and not additions(report.sections[0].ranking)
    text = FORMATS["text"](report)
    assert "0.9100 ± 0.0100" in text and "behind" not in text


def test_no_verdict_on_a_metric_without_a_direction(tmp_path: Path):
    report = made(tmp_path, CLEAR)
    for one in Report(tmp_path).runs:
        one.experiment.write_result({**one.result, "test": {"f1": 0.5}})
    report.sort = "test.f1"
    assert conclusion(report.sections[0].ranking) == (
        "No verdict: it is not known whether more or less of test f1 is better (best.mode)."
    )


def test_runs_without_any_metric_have_a_sentence(tmp_path: Path):
    folder = tmp_path / "xps" / "0a0b0c0d"
    folder.mkdir(parents=True)
    (folder / ".argv.json").write_text('["seed=1"]')
    report = Report(tmp_path, over=["seed"])
    assert (
        conclusion(report.sections[0].ranking)
        == "No run has a metric yet: there is nothing to compare."
    )
    assert len(FORMATS["text"](report).splitlines()) > 2


# --- which metric, and what is in no mean ---


@pytest.mark.parametrize(
    "metric, words",
    [
        ("test.acc", "test acc of the best epoch"),
        ("best.acc", "validation acc of the best epoch"),
        ("best.train.acc", "train acc of the best epoch"),
        ("valid.loss", "validation loss of the last epoch"),
        ("loss", "loss"),
    ],
)
def test_the_metric_says_which_set_and_which_epoch(metric: str, words: str):
    assert described(metric) == words


def test_the_test_set_decides_unless_another_is_asked_for(tmp_path: Path):
    made(tmp_path, CLEAR)
    for options, metric in [
        ({}, "test.acc"),
        ({"sort": "best.acc"}, "best.acc"),
        ({"chosen_metrics": ["best.acc"]}, "best.acc"),
        ({"chosen_metrics": ["best.acc", "test.acc"]}, "test.acc"),
        ({"sort": "lr"}, "test.acc"),
        ({"sort": "test.loss"}, "test.loss"),
    ]:
        report = Report(tmp_path, ["sweep"], over=["seed"], **options)
        said = remarks(report.sections[0].ranking)
        assert report.sections[0].ranking.metric == metric and said[0].startswith(
            f"Compared by {described(metric)}, seed by seed."
        )
        assert ("not the test set" in " ".join(said)) == (metric == "best.acc")


def test_settings_with_other_seeds_are_not_compared_seed_by_seed(tmp_path: Path):
    for seed, (lr, value) in enumerate([(0.1, 0.9), (0.1, 0.91), (0.2, 0.8), (0.2, 0.83)]):
        experiment(tmp_path, {"optim.lr": lr, "seed": seed}, value, grid="sweep")
    said = remarks(Report(tmp_path, ["sweep"], over=["seed"]).sections[0].ranking)[0]
    assert "by Welch's statistic, as too few seeds are shared" in said


def test_what_is_in_no_mean_is_counted(tmp_path: Path):
    report = made(tmp_path, {0.1: [0.9, 0.91, NAN, None], 0.2: [0.8, 0.82, 0.81]})
    experiment(tmp_path, {"tag": None, "optim.lr": 0.1, "seed": 0}, 0.3, grid="sweep")
    [first, _] = report.sections[0].ranking.entries
    assert (first.found.n, first.found.mean) == (2, pytest.approx(0.905))
    said = remarks(report.sections[0].ranking)
    assert "1 unfinished run is not included in any mean." in said
    assert "1 finished run has no finite test acc." in said
    assert any(line.startswith("1 run repeats the seed of another") for line in said)
    text = FORMATS["text"](report)
    assert "1 failed, 1 without a value" in text


def test_different_main_metrics_are_said(tmp_path: Path):
    made(tmp_path, {0.1: CLEAR[0.1]})
    made(tmp_path, {0.2: CLEAR[0.2]}, **{"best.metric": "valid.f1"})
    report = Report(tmp_path, over=["seed", "best.metric"])
    assert "different metrics: valid.acc, valid.f1." in remarks(report.sections[0].ranking)[-1]


# --- the order ---


def test_the_best_comes_first_and_one_lucky_seed_does_not(tmp_path: Path):
    report = made(tmp_path, {0.3: [0.99], 0.2: [0.8, 0.81, 0.82], 0.1: [0.9, 0.91, 0.92]})
    assert verdicts(report) == {"lr=0.1": "best", "lr=0.2": "worse", "lr=0.3": "undecided"}
    lines = FORMATS["text"](report).splitlines()
    assert [line for line in lines if "*" in line] == [
        line for line in lines if " best" in line[-6:]
    ]
    assert [one.name for one in Report(tmp_path, ["sweep"], over=["seed"], reverse=True).sections[0].entries] == [
        "lr=0.3", "lr=0.2", "lr=0.1"]  # fmt: skip
    assert [one.name for one in Report(tmp_path, ["sweep"], over=["seed"], sort="lr").sections[0].entries] == [
        "lr=0.1", "lr=0.2", "lr=0.3"]  # fmt: skip


# --- the seeds to add ---


def added(report: Report) -> list[tuple[Any, ...]]:
    """What a launcher is called with by the lines, which are run as a part of a grid file."""
    _, *lines = shown(report.sections[0].ranking, additions(report.sections[0].ranking))
    calls: list[tuple[Any, ...]] = []
    scope: dict[str, Callable] = {}
    exec("\n".join(["def explorer(launcher):", *lines]), scope)
    scope["explorer"](lambda *given: calls.append(given))
    return calls


def test_the_file_of_a_grid_in_a_folder(tmp_path: Path, monkeypatch):
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "lr_0.1.py").touch()
    monkeypatch.chdir(tmp_path)
    assert file_of("sweep") == "grids/sweep.py" and file_of("lr_0.1") == "grids/lr_0.1.py"
    assert file_of("lessons.schedules") == "grids/lessons/schedules.py"


def test_the_lines_add_the_seeds_that_are_needed(tmp_path: Path):
    report = made(tmp_path, SINGLE)
    heading, *lines = shown(report.sections[0].ranking, additions(report.sections[0].ranking))
    assert heading == "To add these seeds, append to grids/sweep.py, then run dora grid sweep:"
    assert lines == [
        "    for seed in range(1, 3):",
        '        launcher({"optim.lr": 0.1, "best.mode": "max", "seed": seed})',
        '        launcher({"optim.lr": 0.2, "best.mode": "max", "seed": seed})',
    ]
    assert [call[0]["seed"] for call in added(report)] == [1, 1, 2, 2]


def test_a_seed_that_one_of_two_has_is_added_to_the_other(tmp_path: Path):
    report = made(tmp_path, {**CLOSE, 0.3: [0.1, 0.12, 0.1, 0.11]})
    for seed in (6, 7):
        experiment(
            tmp_path, {"optim.lr": 0.1, "seed": seed, "best.mode": "max"}, 0.935, grid="sweep"
        )
    experiment(tmp_path, {"optim.lr": 0.2, "seed": 9, "best.mode": "max"}, 0.92, grid="sweep")
    best, other, worse = report.sections[0].ranking.entries
    assert (best.name, other.name, worse.verdict) == ("lr=0.1", "lr=0.2", "worse")
    needs = other.found.needs
    assert needs and needs > 3
    of_best, of_other, of_worse = additions(report.sections[0].ranking).seeds
    assert of_worse == [] and of_other[:2] == [6, 7] and of_best[0] == 9
    shared = (set(of_best) | {0, 1, 2, 3, 6, 7}) & (set(of_other) | {0, 1, 2, 3, 9})
    assert len(shared) == 4 + needs


def test_the_best_setting_gets_no_seed_that_nobody_needs(tmp_path: Path):
    report = made(tmp_path, {0.1: [0.9, 0.95, 0.92, 0.94] * 10, 0.2: CLOSE[0.2]})
    best, other = report.sections[0].ranking.entries
    needs = other.found.needs
    assert best.verdict == "best" and needs and needs <= 36
    assert additions(report.sections[0].ranking).seeds == [[], list(range(4, 4 + needs))]


def test_seeds_that_are_on_their_way_count_and_failed_ones_do_not(tmp_path: Path):
    report = made(tmp_path, {**SINGLE, 0.3: [None, None]})
    for lr in (0.1, 0.2):
        values = {"optim.lr": lr, "seed": 1, "best.mode": "max"}
        experiment(tmp_path, values, state=State.INTERRUPTED, grid="sweep")
    assert additions(report.sections[0].ranking).seeds == [[2], [2], []]


def test_a_seed_that_failed_is_not_added_again(tmp_path: Path):
    report = made(tmp_path, {0.1: [0.9, 0.91], 0.2: [0.8, None]})
    assert additions(report.sections[0].ranking).seeds == [[2, 3], [2, 3]]


def test_what_a_dict_cannot_say_is_given_as_text(tmp_path: Path):
    for lr in (0.1, 0.2):
        one = experiment(tmp_path, {"optim.lr": lr, "seed": 0, "tag": 'a"b'}, lr)
        birth = json.loads((one.folder / "birth.json").read_text())
        birth["argv"] += ["~optim.momentum", "+more=1", "slurm.gpus=2"]
        birth["delta"] += [["~optim.momentum", None], ["more", 1]]
        (one.folder / "birth.json").write_text(json.dumps(birth))
    report = Report(tmp_path, over=["seed"])
    assert added(report)[0] == (
        "~optim.momentum", "+more=1", "slurm.gpus=2", {"optim.lr": 0.2, "tag": 'a"b', "seed": 1}
    )  # fmt: skip
    assert shown(report.sections[0].ranking, additions(report.sections[0].ranking))[0].endswith(
        "of a grid file:"
    )


def test_no_lines_without_whole_numbers_to_count_on(tmp_path: Path):
    for lr in (0.1, 0.2):
        experiment(tmp_path, {"optim.lr": lr, "tag": "first"}, lr)
    report = Report(tmp_path, over=["tag"])
    assert shown(report.sections[0].ranking, additions(report.sections[0].ranking)) == [
        "No lines to add: tag is not one whole number a run."
    ]
    assert conclusion(report.sections[0].ranking).startswith("One run each cannot tell")


def test_many_lines_are_cut_and_it_is_said(tmp_path: Path):
    report = made(tmp_path, {round(0.01 * lr, 2): [lr / 100] for lr in range(1, 40)})
    lines = shown(report.sections[0].ranking, additions(report.sections[0].ranking))
    assert len(lines) == 22 and lines[-1] == "    # and 20 more lines: --format json has all seeds"


# --- the formats ---


def test_every_format_has_the_verdict_and_the_sentence(tmp_path: Path):
    report = made(tmp_path, CLOSE)
    said = conclusion(report.sections[0].ranking)
    written = {name: form(report) for name, form in FORMATS.items()}
    for name, text in written.items():
        assert said in text and "undecided" in text, name
    for name in ("text", "markdown", "latex"):
        assert 'launcher({"optim.lr": 0.1, ' in written[name], name
        assert "Compared by test acc of the best epoch" in written[name], name
    assert f"**{said}**" in written["markdown"] and f"% {said}\n" in written["latex"]


def test_programs_get_every_number_of_the_verdict(tmp_path: Path):
    report = made(tmp_path, CLOSE)
    _, second = report.sections[0].ranking.entries
    record = json.loads(FORMATS["json"](report))[1]
    assert record["verdict"] == "undecided" and record["compared"] == "test.acc"
    assert record["behind"] == pytest.approx(0.01) and record["paired"] is True
    assert (record["behind.low"], record["behind.high"]) == second.found.difference_interval
    assert record["needs"] == 19 and record["add"] == list(range(4, 23)) and record["missing"] == 0
    row = list(csv.DictReader(io.StringIO(FORMATS["csv"](report))))[1]
    assert row["verdict"] == "undecided" and row["add"].split() == [
        str(one) for one in range(4, 23)
    ]
    assert float(row["behind"]) == record["behind"] and row["conclusion"] == record["conclusion"]


def test_a_hostile_name_stays_one_line_of_text(tmp_path: Path):
    for tag in ("a_*b\n\\end{tabular}", "plain"):
        for seed in range(3):
            experiment(tmp_path, {"tag": tag, "seed": seed}, 0.5 + 0.1 * len(tag) + 0.01 * seed)
    report = Report(tmp_path, over=["seed"])
    latex = FORMATS["latex"](report)
    assert "% tag=a_*b \\end{tabular} is better than tag=plain.\n" in latex
    assert "**tag=a\\_\\*b" in FORMATS["markdown"](report)


def test_a_verdict_needs_no_torch(tmp_path: Path):
    made(tmp_path, CLEAR)
    code = (
        "import sys; from dora_train.report.__main__ import main; main(['sweep', '--over', 'seed']);"
        "assert 'scipy' in sys.modules and not {'torch', 'dora', 'hydra'} & set(sys.modules)"
    )
    env = {"DORA_DIR": str(tmp_path), "DORA_QUEUE": f"{tmp_path}.queue"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True)


# --- two side by side ---


def two(report: Report, at: int = 0) -> list[str]:
    """A run of each of the first two settings."""
    return [one.setting.runs[at].sig for one in report.sections[0].ranking.entries[:2]]


def test_two_runs_are_one_seed_each(tmp_path: Path):
    report = made(tmp_path, CLEAR)
    first, second = (
        read_one(Experiment(tmp_path / "xps" / sig), Status(State.COMPLETED)) for sig in two(report)
    )
    text = diff.of_runs(first, second)
    assert "One seed each cannot tell which setting is better: lr=0.1 is ahead" in text
    assert f"--diff {first.sig} {second.sig} --over seed" in text
    sibling = report.sections[0].ranking.entries[0].setting.runs[1]
    assert "two runs of one setting" in diff.of_runs(first, sibling)


def test_two_settings_are_compared_with_all_their_seeds(tmp_path: Path):
    first, second, _ = made(tmp_path, CLEAR).sections[0].ranking.entries
    names = [first.setting.runs[0].sig, second.setting.runs[1].sig]
    seeds = {Report(tmp_path, [name]).runs[0].value("seed") for name in names}
    text = diff.of_settings(Report(tmp_path, names, over=["seed"]))
    assert len(seeds) == 2 and text.startswith("values\n  optim.lr  0.1 -> 0.2\n\n")
    assert "lr=0.1 is better than lr=0.2." in text and "6 XPs" in text


def test_two_grids_of_one_setting_each(tmp_path: Path):
    for lr, values in CLEAR.items():
        for seed, value in enumerate(values):
            experiment(tmp_path, {"optim.lr": lr, "seed": seed}, value, grid=f"grid{lr}")
    text = diff.of_settings(Report(tmp_path, ["grid0.2", "grid0.3"], over=["seed"]))
    assert "lr=0.2 is better than lr=0.3." in text


def test_names_that_are_not_two_settings_are_refused(tmp_path: Path):
    report = made(tmp_path, CLEAR)
    with pytest.raises(UserError, match="sweep has 3 settings, and --diff compares two:"):
        diff.of_settings(Report(tmp_path, ["sweep", *two(report)[:1]], over=["seed"]))
    same = [run.sig for run in report.sections[0].ranking.entries[0].setting.runs[:2]]
    with pytest.raises(UserError, match="differ in seed alone: they are one setting"):
        diff.of_settings(Report(tmp_path, same, over=["seed"]))


# --- the mark in a live table ---


def test_runs_of_decided_settings_are_marked(tmp_path: Path):
    report = made(tmp_path, {**CLEAR, 0.4: [0.89, 0.92, 0.91], 0.5: [0.8]})
    words = marks.words(report.runs)
    of_names = {
        one.name: {words.get(run.sig) for run in one.setting.runs}
        for one in report.sections[0].entries
    }
    assert of_names == {
        "lr=0.1": {"best"}, "lr=0.2": {"worse"}, "lr=0.3": {"worse"}, "lr=0.4": {None}, "lr=0.5": {None}
    }  # fmt: skip


@pytest.mark.parametrize("values", [CLOSE, SINGLE, {0.1: [0.9, 0.91]}, {0.1: [None]}])
def test_no_mark_if_nothing_is_decided(tmp_path: Path, values: Values):
    assert marks.words(made(tmp_path, values).runs) == {} == marks.words([])


def test_marks_are_made_anew_only_if_another_run_finished(tmp_path: Path, monkeypatch):
    runs = made(tmp_path, CLEAR).runs
    found = marks.Marks()
    first = found.of(runs)
    assert len(first) == 9 and {word for _, word in first.values()} == {"best", "worse"}
    monkeypatch.setattr(marks, "words", lambda runs: {run.sig: "anew" for run in runs})
    assert found.of(runs) == first
    assert set(found.of(runs[1:]).values()) == {("", "anew")}
