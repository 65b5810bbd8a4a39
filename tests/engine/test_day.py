"""What a day's work looks like in the report: 30 runs of many networks and data sets (day.py)."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import browser
import day
import pytest
from day import HOUR, PHOTOS, run
from experiments import experiment
from rich.console import Console

import dora_train.report
from dora_train.engine.errors import UserError
from dora_train.engine.experiment.records import State
from dora_train.engine.watch import info
from dora_train.report import __main__ as command
from dora_train.report import diff, formats, marks
from dora_train.report.page import content, page, title
from dora_train.report.report import Report
from dora_train.report.watch import LiveTable

DEFAULT_NAMES = {"digits", "mnist", "image_folder cifar10"}
NOW = time.mktime((2026, 11, 27, 14, 30, 0, 0, 0, -1))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("day")
    day.day(folder, NOW)
    return folder


@pytest.fixture(autouse=True)
def at_the_end_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


def text(report: Report, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that a terminal of this width shows."""
    monkeypatch.setattr(
        formats, "console", lambda: Console(width=width, color_system=None, file=io.StringIO())
    )
    return formats.as_text(report).splitlines()


# --- the order of importance ---


@pytest.mark.parametrize("width", [60, 80, 110, 140, 200])
@pytest.mark.parametrize("last", [None, 30])
def test_nothing_that_counts_is_cut(out, monkeypatch, width, last):
    report = Report(out, last=last)
    lines = text(report, width, monkeypatch)
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
    for one in report.runs:
        [line] = [line for line in lines if line.startswith(one.sig)]
        shown = [one.sig, str(one.status.state)]
        for name in ("best.acc", "test.acc"):
            if name in one.metrics:
                shown.append(f"{one.metrics[name]:.4f}")
        assert all(word in line.replace("*", " ").split() for word in shown), (shown, line)
        assert re.search(r"\d\d:\d\d", line)
    flat = " ".join(" ".join(lines).split())
    assert "model=resnet18" in flat or "resnet18" in flat
    assert not re.search(r"[a-z_]+=(\s|$)", flat), "no blank value"


def test_what_tells_the_most_runs_apart_comes_first_and_the_seed_last(out, monkeypatch):
    [titles] = [line for line in text(Report(out), 110, monkeypatch) if line.startswith("sig")]
    assert titles.split() == "sig state best acc test acc when took lr what".split()
    [wide] = [line for line in text(Report(out), 400, monkeypatch) if line.startswith("sig")]
    assert "lr  max_epochs  model" in wide and "what" not in wide
    assert wide.index("cutout") < wide.index("seed")


def test_states_that_are_all_the_same_are_said_once(out, monkeypatch):
    lines = text(Report(out, where=["state=completed"]), 200, monkeypatch)
    assert "state" not in " ".join(lines[1:]) and "25 completed" in lines[0]


def test_what_does_not_fit_is_folded_below_the_row_if_it_is_narrow(out, monkeypatch):
    lines = text(Report(out, last=10), 60, monkeypatch)
    at = next(at for at, line in enumerate(lines) if "interrupted" in line and at)
    assert lines[at + 1].startswith("    batch_size=256 lr=0.2 width=64")
    assert "(preempted)" in " ".join(lines[at : at + 4])


def test_settings_of_many_keys_have_one_column_with_short_names(out, monkeypatch):
    lines = text(Report(out, over=["seed"]), 80, monkeypatch)
    assert max(len(line) for line in lines if "launcher(" not in line) <= 80
    [line] = [line for line in lines if line.startswith("model=mobilenet_v2")]
    assert "0.9778" in line and line.endswith("undecided")


# --- the last runs, and their times ---


def test_the_last_ten_with_their_times(out, monkeypatch):
    report = Report(out, last=10)
    assert len(report.runs) == 10 and report.runs[0].value("tag") == "queued"
    for section in report.sections:
        started = [run.times.started for run in section.runs]
        assert started == sorted(started, reverse=True)
    lines = text(report, 140, monkeypatch)
    titles = next(line for line in lines if line.startswith("sig"))
    assert re.split(
        r"\s{2,}", titles.strip()
    ) == "sig|when|took|state|best acc|test acc|what".split("|")
    rows = [line for line in lines if re.match(r"[0-9a-f]{8} ", line)]
    assert rows[0].split()[1:4] == ["13:30", "new", "tag=queued"]
    assert rows[1].split()[1:5] == ["12:40", "14", "s", "completed"]
    assert "yesterday" in " ".join(text(Report(out, last=28), 140, monkeypatch))


def test_a_large_folder_shows_the_last_thirty_and_says_how_to_see_all(tmp_path, monkeypatch):
    for seed in range(33):
        run(tmp_path, {"seed": seed}, 0.9, began=NOW - 1000 + seed)
    lines = text(Report(tmp_path), 100, monkeypatch)
    assert lines[-1] == "the last 30 of 33 experiments; all of them: --last all"
    assert lines[0].startswith("30 XPs")
    for options in ({"last": 10**9}, {"over": ["seed"]}, {"since": 1.0}):
        assert "the last 30" not in " ".join(text(Report(tmp_path, **options), 100, monkeypatch))
    rows = list(csv.DictReader(io.StringIO(formats.as_csv(Report(tmp_path)))))
    assert len(rows) == 33, "programs get all"


def test_since_a_time(out):
    assert len(Report(out, since=NOW - 3 * HOUR).runs) == 4, "one ended since then"
    assert len(Report(out, since=NOW - 4.1 * HOUR).runs) == 6
    with pytest.raises(UserError, match="no experiment ran since .*: the last one started 12:40"):
        Report(out, where=["state!=new"], since=NOW).runs  # noqa: B018


@pytest.mark.parametrize(
    "words, seconds",
    [("90m", NOW - 5400), ("2d", NOW - 2 * 86400), ("today", NOW - 14.5 * HOUR)],
)
def test_words_for_a_time(words, seconds):
    assert command._time(words) == pytest.approx(seconds, abs=86400 if words == "today" else 1)


@pytest.mark.parametrize("option", [("--last", "0"), ("--last", "ten"), ("--since", "noon")])
def test_times_that_mean_nothing(option, capsys):
    with pytest.raises(SystemExit):
        command.parser().parse_args(option)
    assert f'"{option[1]}" is n' in capsys.readouterr().err


def test_the_command_of_the_evening(out, monkeypatch, capsys):
    monkeypatch.setenv("DORA_DIR", str(out))
    command.main(["--since", "2h"])
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("2 XPs   1 new   1 completed")
    command.main(["--last", "all", "--where", "data=mnist", "--metrics", "test.acc"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("7 XPs") and "best acc" not in " ".join(lines)


def test_sorted_by_start_and_by_duration(out):
    for section in Report(out, sort="started").sections:
        times = [run.times.started for run in section.runs]
        assert times == sorted(times, reverse=True)
    for section in Report(out, sort="took").sections:
        times = [run.times.took for run in section.runs if run.times.took is not None]
        assert times == sorted(times)


def test_the_pause_between_two_attempts_does_not_count(tmp_path):
    again = NOW - HOUR
    made = run(tmp_path, {"seed": 1}, 0.9, began=NOW - 20 * HOUR, took=120, attempts=(again,))
    lines = [f"{stamp(NOW - 20 * HOUR + 300)} epoch 3", f"{stamp(again)} resumed"]
    made.log.write_text("\n".join(lines))
    [found] = Report(tmp_path).runs
    assert found.times.began == NOW - 20 * HOUR and found.times.started == again
    assert found.times.took == pytest.approx(120 + 300, abs=1) and found.times.attempts == 2
    before = {path: path.read_bytes() for path in made.folder.glob("*.json")}
    assert b"took" not in b"".join(before.values())


def test_info_says_when_it_began_how_long_it_took_and_where_its_curves_are(tmp_path):
    made = run(tmp_path, {"seed": 1}, began=NOW - 20 * HOUR, took=240)
    lines = info.lines(made, tmp_path, None)
    assert "began      26 Nov 18:30, took 4 min" in lines
    assert lines[-1].endswith(f"-m dora_train.report {made.sig} --html {made.sig}.html")
    (made.folder / "events.out.tfevents.1").touch()
    assert "tensorboard --logdir" in info.lines(made, tmp_path, None)[-1]
    # its process is gone, and it has said nothing since
    killed = run(tmp_path, {"seed": 2}, state=State.RUNNING, began=NOW - 600, took=300)
    assert "began      27 Nov 14:20, took 5 min" in info.lines(killed, tmp_path, None)
    queued = run(tmp_path, {"seed": 3}, state=State.NEW, began=NOW)
    assert not any(line.startswith("began") for line in info.lines(queued, tmp_path, None))


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


# --- only what can be compared ---


def test_each_data_set_is_a_group_with_its_own_best(out, monkeypatch):
    report = Report(out)
    assert {section.name for section in report.sections} == DEFAULT_NAMES
    lines = text(report, 110, monkeypatch)
    assert [line.split()[1] for line in lines if line.startswith("── ")] == [
        "digits",
        "image_folder",
        "mnist",
    ]
    assert sum(line.count("*") for line in lines) == 6, "a best and a test value in each"
    assert f"all: data.root={PHOTOS} data.image_size=32" in lines


def test_a_verdict_stays_within_a_group(out):
    found = {section.name: section.ranking for section in Report(out, over=["seed"]).sections}
    assert found["digits"].entries[0].name == "lr=0.1"
    assert {run.value("data") for run in found["digits"].runs} == {"digits"}


def test_each_group_has_its_own_marks_in_a_live_table(tmp_path):
    level = {("digits", 0.1): 0.9, ("digits", 0.2): 0.8, ("mnist", 0.1): 0.97, ("mnist", 0.2): 0.99}
    for (data, lr), acc in level.items():
        for seed in range(3):
            run(tmp_path, {"data": data, "optim.lr": lr, "seed": seed}, acc + seed / 1000)
    runs = Report(tmp_path).runs
    best = {sig for sig, word in marks.words(runs).items() if word == "best"}
    found = {(one.value("data"), one.value("optim.lr")) for one in runs if one.sig in best}
    assert found == {("digits", 0.1), ("mnist", 0.2)}


def test_the_live_table_has_short_names_and_a_best_of_each_group(out):
    table = LiveTable("all", Report(out).runs)
    screen = Console(width=100, height=40, color_system=None, file=io.StringIO())
    screen.print(table.draw(table.rows(), most=40))
    lines = screen.file.getvalue().splitlines()
    assert len(lines) < 40 and sum(line.startswith("── ") for line in lines) == 3
    assert max(len(name.split()) for name in table.names) <= 5
    assert len(set(table.names)) == 30
    assert sum(line.rstrip().endswith("*") for line in lines) == 3


@pytest.mark.parametrize(
    "changes, more",
    [
        ({"data": "mnist"}, {}),
        ({"data": "mnist", "data.valid": 0.2}, {}),
        ({"best.metric": "valid.loss", "best.mode": "min"}, {}),
        ({"trainer.limit_test_batches": 2}, {}),
        ({}, {"files": {"train": ["train", 1200, "aaaaaaaa"]}}),
    ],
)
def test_what_separates_groups(tmp_path, changes: dict[str, Any], more: dict[str, Any]):
    base = {"data": "mnist"} if "data.valid" in changes else {}
    one = run(tmp_path, {"seed": 1, **base}, began=NOW - HOUR)
    other = run(tmp_path, {"seed": 2, **changes}, began=NOW, **more)
    first, second = Report(tmp_path).sections
    assert [run.sig for run in first.runs] == [other.sig] and first.name != second.name
    shown = diff.of_runs(*[Report(tmp_path, [sig]).runs[0] for sig in (one.sig, other.sig)])
    assert "No verdict: " in shown and ("data differ" in shown or "metrics" in shown)


def test_what_separates_no_groups(tmp_path):
    files = {"train": ["train", 1199, None], "valid": ["valid", 299, "5be5a3c5"]}
    run(tmp_path, {"seed": 1}, began=NOW - HOUR, files=files)  # a checksum that is not known
    run(tmp_path, {"seed": 2, "data.crop": 4, "data.batch_size": 9}, began=NOW)
    run(tmp_path, {"seed": 3}, state=State.NEW, began=NOW)
    [section] = Report(tmp_path).sections
    assert section.name == "" and len(section.runs) == 3


def test_groups_of_other_metrics_share_two_columns(tmp_path, monkeypatch):
    run(tmp_path, {"seed": 1}, 0.9, began=NOW)
    run(tmp_path, {"seed": 2, "best.metric": "valid.loss", "best.mode": "min"}, 0.8, began=NOW - 9)
    lines = text(Report(tmp_path), 110, monkeypatch)
    titles = next(line for line in lines if line.startswith("sig"))
    assert titles.split()[:3] == ["sig", "best", "test"]


def test_groups_in_every_format(out):
    report = Report(out)
    assert len(re.findall(r"^\| \*\*[^|]+\*\* \|  \|", formats.as_markdown(report), re.M)) == 3
    latex = formats.as_latex(report)
    assert latex.count(r"\emph{") == 3 and latex.count(r"\midrule") == 3
    rows = list(csv.DictReader(io.StringIO(formats.as_csv(report))))
    assert {row["group"] for row in rows} == DEFAULT_NAMES and len(rows) == 30
    records = json.loads(formats.as_json(report))
    keys = records[0]["parameters"].keys()
    assert {"data", "seed", "model", "optim.lr", "model_args.width"} <= keys
    assert all(record["parameters"].keys() == keys for record in records)
    assert records[1]["started"].startswith("2026-11-") and records[1]["took"] > 0
    settings = Report(out, over=["seed"])
    assert formats.as_markdown(settings).count("### ") == 3
    assert formats.as_latex(settings).count("\\toprule") == 3


# --- numbers that identify, and defaults ---

EXACT = [2**63 - 1, 2**53 + 1, 32519, 12345, 123456789]
LONG = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, 0.00012345678901234567]


@pytest.mark.parametrize("value", EXACT)
def test_whole_numbers_keep_their_digits_in_every_output(tmp_path, monkeypatch, value):
    monkeypatch.setenv("DORA_DIR", str(tmp_path))
    for other in (value, 0):
        run(tmp_path, {"seed": other, "trainer.max_steps": other}, began=NOW)
    run(tmp_path, {"model_args.width": value, "seed": 5}, began=NOW)  # the others have no width
    run(tmp_path, {"tag": "none"}, began=NOW)
    everywhere(tmp_path, str(value), f"seed={value}", monkeypatch)
    pytest.importorskip("pandas", reason="pip install pandas")
    frame = dora_train.report.frame()
    assert value in list(frame["seed"]) and value in list(frame["model_args.width"].dropna())


@pytest.mark.parametrize("value", LONG)
def test_floats_keep_their_digits_in_every_output(tmp_path, monkeypatch, value):
    for other in (value, value * 0.99999999, 0.5):
        run(tmp_path, {"optim.lr": other}, began=NOW)
    everywhere(tmp_path, repr(value), f"lr={value!r}", monkeypatch)


def everywhere(folder: Path, digits: str, condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report(folder)
    for name, form in formats.FORMATS.items():
        assert digits in form(report), name
    assert digits in "".join("".join(text(report, 60, monkeypatch)).split())
    assert digits in formats.as_text(Report(folder, over=["seed"])) or "seed" in condition
    assert digits in "".join("".join(text(Report(folder, last=9), 80, monkeypatch)).split())
    assert any(digits in one["values"].values() for one in content(report)["groups"][0]["runs"])
    assert len(Report(folder, where=[condition]).runs) == 1
    others = [one.sig for one in report.runs]
    assert digits in diff.of_runs(*[Report(folder, [sig]).runs[0] for sig in others[:2]]) or (
        digits in diff.of_runs(*[Report(folder, [sig]).runs[0] for sig in others[-2:]])
    )


def test_a_default_has_its_value(out, monkeypatch):
    assert len(Report(out, where=["data=digits"]).runs) == 15
    assert len(Report(out, where=["data.crop=1"]).runs) == 15
    assert len(Report(out, where=["momentum=0.9"]).runs) == 30, "a key that differs nowhere"
    assert {record["parameters"]["data"] for record in Report(out).records()} == {
        "digits",
        "mnist",
        "image_folder",
    }
    with pytest.raises(UserError, match="data is digits, image_folder, mnist"):
        Report(out, where=["data=svhn"]).runs  # noqa: B018
    assert Report(out, over=["data.augment"]).sections and Report(out, sort="momentum").sections


def test_a_default_of_an_older_experiment_has_its_value_too(tmp_path):
    experiment(tmp_path, {"seed": 1})
    assert len(Report(tmp_path, where=["data=digits"]).runs) == 1


def test_an_empty_dict_is_no_difference(tmp_path):
    runs = [run(tmp_path, changes, began=NOW) for changes in ({}, {"model_args.width": 64})]
    found = diff.differences(*[Report(tmp_path, [one.sig]).runs[0] for one in runs])
    assert found["values"] == [("model_args.width", None, 64)]


# --- the page ---


def test_the_title_says_what_the_page_holds(out, tmp_path):
    assert title(Report(out)) == "30 runs, 3 data sets, 26 to 27 November"
    assert title(Report(out, where=["data=mnist"], last=3)) == "3 runs, 27 November"
    experiment(tmp_path, {"seed": 1}, grid="sweep")
    assert title(Report(tmp_path, ["sweep"])).startswith("sweep: 1 run, 1 January 1970")


def test_names_on_the_page_are_short_and_unique(out):
    for group in content(Report(out, over=["seed"]))["groups"]:
        names = [setting["name"] for setting in group["settings"]]
        assert len(set(names)) == len(names) and max(len(name.split()) for name in names) <= 3
        assert "=null" not in " ".join(names) and not re.search(r"=( |$)", " ".join(names))


def test_what_never_varies_in_a_group_is_said_once(out):
    [photos] = [one for one in content(Report(out))["groups"] if "cifar10" in one["name"]]
    assert photos["base"] == {"data.root": PHOTOS, "data.image_size": "32"}
    assert not {"data", "data.root", "seed"} & {one["key"] for one in photos["parameters"]}


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(out, tmp_path, width, scheme):
    if browser.missing():
        pytest.skip(browser.missing())
    file = tmp_path / "day.html"
    file.write_text(page(Report(out, over=["seed"])), encoding="utf-8")
    with browser.opened(width, scheme) as tab:
        opened = tab.open(file)
        assert (
            tab.trouble == [] and opened.evaluate("document.documentElement.scrollWidth") == width
        )
        assert opened.locator("h1").inner_text() == "30 runs, 3 data sets, 26 to 27 November"
        assert opened.locator("#overview a b").all_inner_texts() == [
            "digits",
            "image_folder cifar10",
            "mnist",
        ]
        heads = opened.locator(".runs").first.locator("th").all_inner_texts()
        assert heads[:3] == ["run", "best acc", "test acc"], "the result is behind the name"
        wide = opened.locator(".runs-section .wide").nth(1)
        assert "more-right" in wide.get_attribute("class"), "a visible edge"
        name = wide.locator("td.fixed").first
        before = name.bounding_box()["x"]
        wide.locator(".scroll").evaluate("box => { box.scrollLeft = 300; }")
        opened.wait_for_timeout(100)
        assert name.bounding_box()["x"] == pytest.approx(before, abs=1), "the name stays"
        assert "more-left" in wide.get_attribute("class")
        photos = opened.locator("article").nth(1)
        assert photos.locator(".parallel-more").inner_text() == "all 10 parameters"
        assert opened.evaluate("parts[1].parallel.axes.length") == 9, "eight, and the metric"
        photos.locator(".parallel-more").click()
        assert opened.evaluate("parts[1].parallel.axes.length") == 11
        opened.locator(".runs tbody tr").nth(3).click()
        assert "dora run" in opened.locator("#card pre").inner_text()
        assert opened.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.slow
def test_a_browser_rounds_no_number(tmp_path):
    if browser.missing():
        pytest.skip(browser.missing())
    for seed in (2**63 - 1, 32519, 24748):
        run(tmp_path, {"seed": seed, "optim.lr": 0.1 + seed / 7}, began=NOW)
    file = tmp_path / "day.html"
    file.write_text(page(Report(tmp_path, over=["seed"])), encoding="utf-8")
    with browser.opened() as tab:
        opened = tab.open(file)
        words = opened.locator(".runs").inner_text()
        written = opened.evaluate("[figure(123456789), figure('9223372036854775807'), figure(0.5)]")
        assert written == ["123456789", "9223372036854775807", "0.5000"]
        for seed in (2**63 - 1, 32519, 24748):
            assert str(seed) in words.split() and repr(0.1 + seed / 7) in words.split()
