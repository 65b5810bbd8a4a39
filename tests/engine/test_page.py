"""The report as a page, in a real browser: it opens without a network, hover and sort work, and
text stays text."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import browser
import pytest
from experiments import experiment, sweep

from dora_train.engine.experiment.folder import GRIDS, write_search
from dora_train.engine.experiment.records import SearchRecord, State
from dora_train.report.__main__ import write
from dora_train.report.page import content, page
from dora_train.report.report import Report

SCRIPT = "<script>alert(1)</script>\"'&<b>"


@pytest.fixture
def chromium() -> None:
    """Skips where there is no browser, saying how to get one; CI promises one, and fails
    instead."""
    if browser.missing() and os.environ.get("DORA_TRAIN_REQUIRE_BROWSER"):
        pytest.fail(browser.missing())
    if browser.missing():
        pytest.skip(browser.missing())


def written(out: Path, *names: str) -> Path:
    file = out / "report, it's (ä).html"
    file.write_text(page(Report(out, names, over=["seed"])), encoding="utf-8")
    return file


def data_of(file: Path) -> dict:
    [found] = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>',
        file.read_text(encoding="utf-8"),
    )
    return json.loads(found)


def group(report: Report) -> dict:
    """The data of the only group of a page."""
    [found] = content(report)["groups"]
    return found


def mixed(out: Path) -> dict[str, str]:
    """A sweep, and beside it what goes wrong; signatures by what they are."""
    sigs = {"best": sweep(out)[5].sig}
    for at, made in enumerate(sweep(out / "copy")):
        (out / "xps" / made.sig / "inputs.json").write_text(
            json.dumps({"classes": ["cat", "dog", SCRIPT]})
        )
        (out / "xps" / made.sig / "confusion.json").write_text(
            json.dumps([[40 + at, 2, 0], [1, 50, 0], [0, 0, 30]])
        )
    failed = experiment(
        out, {"tag": SCRIPT, "seed": 1}, 0.5, State.FAILED, 2, "sweep", f"out of memory {SCRIPT}"
    )
    unborn = experiment(out, {"tag": "unborn"}, 0.5, State.NEW, 0, "sweep")
    return sigs | {"failed": failed.sig, "unborn": unborn.sig}


# --- what is put together, without a browser ---


def test_bands_reach_from_the_lowest_to_the_highest_seed(tmp_path):
    sweep(tmp_path)
    known = group(Report(tmp_path, ["sweep"], over=["seed"]))
    runs = [known["runs"][at] for at in known["settings"][0]["runs"]]
    curve = known["curves"]["valid.acc"][0]
    last = [run["metrics"]["valid.acc"] for run in runs]
    assert (curve["low"][-1], curve["high"][-1]) == (
        pytest.approx(min(last), 1e-4),
        pytest.approx(max(last), 1e-4),
    )
    assert curve["mean"][-1] == pytest.approx(sum(last) / 3, 1e-4) and curve["n"] == [3] * 5


def test_a_curve_says_how_many_runs_are_left(tmp_path):
    for seed, epochs in enumerate([5, 3, 1]):
        experiment(tmp_path, {"seed": seed}, state=State.INTERRUPTED, epochs=epochs, grid="sweep")
    assert group(Report(tmp_path, ["sweep"], over=["seed"]))["curves"]["train.loss"][0]["n"] == [
        3,
        2,
        2,
        1,
        1,
    ]


def test_long_curves_are_thinned_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("dora_train.report.curves.MOST_NUMBERS", 1000)
    sweep(tmp_path, rates=2, seeds=1, epochs=1000)
    known = group(Report(tmp_path, ["sweep"], over=["seed"]))
    numbers = sum(len(curve["mean"]) for curves in known["curves"].values() for curve in curves)
    assert known["stride"] == 8 and numbers == 1000


def test_a_thinned_curve_keeps_the_values_of_rare_validations(tmp_path, monkeypatch):
    made = experiment(tmp_path, {"seed": 1})
    history = [{"train": {"loss": 1.0 + at}} for at in range(30)]
    for at in range(4, 30, 5):
        history[at]["valid"] = {"acc": 0.1 * at}
    made.write_history(history)
    monkeypatch.setattr("dora_train.report.curves.MOST_NUMBERS", 6)
    known = group(Report(tmp_path))
    assert known["stride"] == 10
    assert known["curves"]["train.loss"] == [{"mean": [1.0, 11.0, 21.0]}]
    assert known["curves"]["valid.acc"] == [{"mean": [0.4, 1.4, 2.4]}]


def test_a_page_of_many_runs_says_what_it_leaves_out(tmp_path, monkeypatch):
    for seed in range(4):
        experiment(tmp_path, {"seed": seed}).write_confusion([[3, 1], [0, 4]])
    assert group(Report(tmp_path))["left_out"] == ""
    monkeypatch.setattr("dora_train.report.page.MANY", 3)
    assert group(Report(tmp_path))["left_out"] == ""
    monkeypatch.setattr("dora_train.report.page.MOST_DETAILED", 2)
    known = group(Report(tmp_path))
    assert "report SIG --html" in known["left_out"]
    matrices = known["runs"]["columns"]["confusion"]["each"]
    assert matrices == [{"matrix": [[3, 1], [0, 4]]}] * 2 + [None] * 2


def test_nan_and_infinity_leave_gaps(tmp_path):
    made = experiment(tmp_path, {"seed": 1})
    (made.folder / "history.json").write_text(
        '[{"train": {"loss": NaN}}, {"train": {"loss": Infinity}}, {"train": {"loss": 0.5}}]'
    )
    assert data_of(written(tmp_path))["groups"][0]["curves"]["train.loss"] == [
        {"mean": [None, None, 0.5]}
    ]


def test_of_many_classes_the_most_frequent_confusions(tmp_path):
    made = experiment(tmp_path, {"seed": 1})
    matrix = [
        [100 if row == column else int(row + 1 == column) * row for column in range(30)]
        for row in range(30)
    ]
    made.write_confusion(matrix)
    [run] = group(Report(tmp_path))["runs"]
    assert (
        run["confusion"]["most"][:2] == [[28, 29, 28], [27, 28, 27]]
        and len(run["confusion"]["most"]) == 15
    )


def test_no_tag_of_an_override_is_one_of_the_page(tmp_path):
    sigs = mixed(tmp_path)
    file = written(tmp_path, "sweep")
    text = file.read_text(encoding="utf-8")
    assert "<script>alert" not in text and text.count("<script") == 2
    assert [
        run["values"]["tag"]
        for run in data_of(file)["groups"][0]["runs"]
        if run["sig"] == sigs["failed"]
    ] == [SCRIPT]


@pytest.mark.slow
def test_five_hundred_runs_in_ten_megabytes(tmp_path):
    """How long that takes is in `benchmarks/report_speed.py`."""
    sweep(tmp_path, rates=100, seeds=5, epochs=100)
    assert written(tmp_path, "sweep").stat().st_size < 10e6


def searched(out: Path) -> list[str]:
    """A search of five trials: two complete, a better one stopped, one failed, one waiting; their
    signatures."""
    made = [
        experiment(out, {"optim.lr": 0.1}, 0.7, grid="search"),
        experiment(out, {"optim.lr": 0.2}, 0.5, State.FAILED, 0, "search", "diverged"),
        experiment(
            out, {"optim.lr": 0.3}, 0.8, State.STOPPED, 2, "search", "valid.acc 0.75 after 2 epochs"
        ),
        experiment(out, {"optim.lr": 0.4}, 0.6, grid="search"),
        experiment(out, {"optim.lr": 0.5}, 0.9, State.INTERRUPTED, 1, "search"),
    ]
    sigs = [one.sig for one in made]
    question = {"objective": "valid.acc", "mode": "max", "optimizer": "optuna"}
    write_search(
        out / GRIDS / "search",
        SearchRecord(question, 5, 2, [], [{"sig": sig, "values": {}, "told": 0} for sig in sigs]),
    )
    return sigs


def test_the_objective_over_the_trials_of_a_search(tmp_path):
    sigs = searched(tmp_path)
    report = Report(tmp_path, ["search"], over=["seed"])
    [search] = group(report)["searches"]
    assert [report.runs[at].sig for at in search["runs"]] == sigs, (
        "in the order in which they were asked for"
    )
    assert search["values"] == pytest.approx([0.68, None, 0.75, 0.58, 0.8])
    assert search["best"] == pytest.approx([0.68, 0.68, 0.75, 0.75, 0.75]), (
        "what is not over may get worse"
    )
    [search] = group(Report(tmp_path, ["search"], ["lr!=0.3"]))["searches"]
    assert search["runs"][2] is search["values"][2] is None and search["best"][-1] == pytest.approx(
        0.68
    )
    assert group(Report(tmp_path, sigs))["searches"] == [] != group(Report(tmp_path))["searches"]
    (tmp_path / GRIDS / "search" / "search.json").write_text(
        json.dumps({"question": 3, "trials": [{"sig": 1, "values": 2, "told": 3}]})
    )
    assert group(report)["searches"][0]["values"] == [None]


def test_a_search_of_other_runs_is_not_shown(tmp_path):
    searched(tmp_path)
    other = experiment(tmp_path, {"seed": 77}, grid="")
    assert group(Report(tmp_path, [other.sig]))["searches"] == []
    assert group(Report(tmp_path, [], ["seed=77"]))["searches"] == []


def test_the_metrics_of_a_page_keep_the_direction_of_those_that_it_colours_by(tmp_path):
    sweep(tmp_path)
    made = group(Report(tmp_path, ["sweep"], chosen_metrics=["test.loss"]))
    assert made["modes"]["test.loss"] == "min" and made["modes"][made["metric"]] == "max"


def test_a_text_with_any_bytes(tmp_path):
    experiment(tmp_path, {"seed": 1})
    write(str(tmp_path / "x.html"), "caf\udce9", Report(tmp_path))
    assert (tmp_path / "x.html").read_bytes() == b"caf?"


def test_a_page_says_the_verdict_and_where_the_intervals_are(tmp_path):
    mixed(tmp_path)
    known = group(Report(tmp_path, ["sweep"], over=["seed"]))
    assert (
        known["conclusion"] == "lr=0.02 is better than 2 of the 4 other settings; 2 have no result."
    )
    assert known["compared"] == "test.acc" and known["remarks"][0].startswith(
        "Compared by test acc"
    )
    best, worse, *_ = known["settings"]
    assert (best["verdict"], best["behind"]) == ("best", [0.0, 0.0, 0.0]) and worse[
        "verdict"
    ] == "worse"
    difference, low, high = worse["behind"]
    assert 0 < low < difference < high and worse["missing"] == ""
    assert {one["missing"] for one in known["settings"]} == {"", "1 failed", "1 new"}


# --- in the browser ---


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_an_error_or_a_network(tmp_path, chromium, width, scheme):
    mixed(tmp_path)
    with browser.opened(width, scheme) as tab:
        opened = tab.open(written(tmp_path, "sweep"))
        assert tab.trouble == [] and len(tab.requests) == 1
        assert opened.evaluate("document.documentElement.scrollWidth") == width
        assert (
            "lr=0.02 is better than 2 of the 4 other settings"
            in opened.locator(".verdict").inner_text()
        )
        bright = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (bright == "rgb(251, 251, 250)") == (scheme == "light")
        for canvas in opened.locator("canvas:first-of-type").all():
            assert canvas.evaluate(DRAWN) > 300, "next to nothing is drawn"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_intervals_are_drawn_and_say_what_they_are(tmp_path, chromium, scheme):
    sweep(tmp_path)
    for seed in range(3):  # as good as the best one, but for noise
        experiment(
            tmp_path, {"optim.lr": 0.09, "seed": seed}, (0.885, 0.92, 0.86)[seed], grid="sweep"
        )
    with browser.opened(400, scheme) as tab:
        opened = tab.open(written(tmp_path, "sweep"))
        rows = opened.locator(".intervals .interval:not(.axis)")
        words = [row.split("\n") for row in rows.all_inner_texts()]
        assert words == [
            ["lr=0.02", "best"],
            ["lr=0.09", "undecided"],
            ["lr=0.01", "worse"],
            ["lr=0.03", "worse"],
        ]
        undecided, worse = (rows.nth(at).locator(".range").bounding_box() for at in (1, 2))
        middle = rows.nth(0).locator(".zero").bounding_box()["x"]
        assert undecided["x"] < middle < undecided["x"] + undecided["width"] and worse["x"] > middle
        rows.nth(2).hover()
        assert "worse: 0.05" in opened.locator("#tip").inner_text() and tab.trouble == []
        assert opened.locator(".runs tr.hot").count() == 3
        opened.locator(".additions summary").click()
        assert (
            'launcher({"optim.lr": 0.02, "seed": seed})'
            in opened.locator(".additions pre").inner_text()
        )
        assert opened.evaluate("document.documentElement.scrollWidth") == 400


DRAWN = """canvas => { const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0; for (let at = 3; at < data.length; at += 4) count += data[at] > 0; return count; }"""


@pytest.mark.slow
def test_hover_says_what_it_is(tmp_path, chromium):
    mixed(tmp_path)
    with browser.opened() as tab:
        opened = tab.open(written(tmp_path, "sweep"))
        canvas = opened.locator("figure canvas").first
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        for height in range(20, 200, 6):
            opened.mouse.move(box["x"] + box["width"] - 17, box["y"] + height)
            if opened.locator("#tip").is_visible():
                break
        words = opened.locator("#tip").inner_text()
        assert "lr=0.0" in words and "epoch 5 · train loss 0.2" in words and "3 runs" in words
        assert opened.locator(".runs tr.hot").count() == 3
        opened.mouse.move(5, 5)
        assert opened.locator("#tip").is_hidden() and opened.locator(".runs tr.hot").count() == 0


@pytest.mark.slow
def test_tables_sort_and_what_has_no_value_stays_last(tmp_path, chromium):
    mixed(tmp_path)
    with browser.opened() as tab:
        opened = tab.open(written(tmp_path, "sweep"))
        for title, best in (("test loss", min), ("test acc", max)):
            column = opened.locator(".runs th").all_inner_texts().index(title)
            for way in ("best first", "worst first"):
                opened.get_by_role("button", name=title).last.click()
                cells = opened.locator(f".runs td:nth-child({column + 1})").all_inner_texts()
                numbers = [float(cell) for cell in cells if cell]
                assert cells[-2:] == ["", ""] and len(numbers) == 9
                assert numbers == sorted(numbers, reverse=(best is max) == (way == "best first")), (
                    title,
                    way,
                )
        assert opened.locator(".runs th[aria-sort]").all_inner_texts() == ["test acc"]


@pytest.mark.slow
def test_words_and_axes_choose_runs(tmp_path, chromium):
    mixed(tmp_path)
    with browser.opened() as tab:
        opened = tab.open(written(tmp_path, "sweep"))
        rows = opened.locator(".runs tbody tr:visible")
        opened.locator(".filter").fill("completed lr=0.02")
        assert rows.count() == 3 and opened.locator(".shown").inner_text() == "3 of 11"
        opened.locator(".filter").fill("")
        opened.locator(".parallel").scroll_into_view_if_needed()
        box = opened.locator(".parallel canvas").first.bounding_box()
        opened.mouse.move(box["x"] + 44, box["y"] + 30)  # the first axis: lr; its upper end: 0.05
        opened.mouse.down()
        opened.mouse.move(box["x"] + 44, box["y"] + 60)
        opened.mouse.up()
        assert rows.count() == 2
        # the table above it is shorter now
        opened.locator(".parallel").scroll_into_view_if_needed()
        box = opened.locator(".parallel canvas").first.bounding_box()
        opened.mouse.click(box["x"] + 44, box["y"] + 200)
        assert rows.count() == 11


@pytest.mark.slow
def test_a_card_says_all_of_a_run_and_text_stays_text(tmp_path, chromium):
    sigs = mixed(tmp_path)
    with browser.opened(400) as tab:
        opened = tab.open(written(tmp_path, "sweep"), f"#{sigs['failed']}")
        card = opened.locator("#card")
        words = card.inner_text()
        assert (
            f"out of memory {SCRIPT}" in words
            and "trainer.max_epochs" not in words.partition("share")[0]
        )
        assert card.locator("pre").inner_text().startswith("dora run 'tag=<script>")
        opened.keyboard.press("Escape")
        assert card.is_hidden()
        opened.locator(".runs tbody tr").filter(has_text=sigs["best"]).click()
        assert [cell for cell in card.locator(".matrix td").all_inner_texts() if cell] == [
            "45",
            "2",
            "1",
            "50",
            "30",
        ]
        assert card.locator(".matrix th").all_inner_texts()[1:4] == ["cat", "dog", SCRIPT]
        assert tab.trouble == [] and opened.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.slow
def test_a_search_shows_what_each_trial_reached(tmp_path, chromium):
    sigs = searched(tmp_path)
    with browser.opened() as tab:
        opened = tab.open(written(tmp_path, "search"))
        assert (
            opened.locator(".trials figcaption").inner_text()
            == "search: valid acc by trial, optuna"
        )
        canvas = opened.locator(".trials canvas").first
        assert canvas.evaluate(DRAWN) > 1000 and tab.trouble == []
        box, spot = canvas.bounding_box(), opened.evaluate("parts[0].trials[0].place(2)")
        opened.mouse.move(box["x"] + spot["x"] + 3, box["y"] + spot["y"] - 3)
        assert (
            sigs[2] in opened.locator("#tip").inner_text()
            and opened.locator(".runs tr.hot").count() == 1
        )
        opened.mouse.click(box["x"] + spot["x"], box["y"] + spot["y"])
        assert "valid.acc 0.75 after 2 epochs" in opened.locator("#card").inner_text()
        assert "stopped" in opened.locator(".runs tbody tr").filter(has_text=sigs[2]).inner_text()


@pytest.mark.slow
def test_a_long_run_hides_no_short_ones_and_no_number_of_values_is_too_many(tmp_path, chromium):
    for seed, (acc, epochs) in enumerate([(0.3, 3), (0.5, 3), (0.99, 2000)]):
        experiment(
            tmp_path, {"optim.lr": 0.1 + seed}, acc, epochs=epochs, total=epochs, grid="sweep"
        )
    with browser.opened() as tab:
        opened = tab.open(written(tmp_path, "sweep"))
        low, high = opened.evaluate("(({low, high}) => [low, high])(parts[0].charts.at(-1).range)")
        assert low < 0.3 and high > 0.98
        opened.evaluate(
            'const ask = {shade: () => "", shown: () => true};'
            'new Curves("many", [{mean: Array(300000).fill(1)}], 1, ask, () => {}).name'
        )
        assert tab.trouble == []


@pytest.mark.slow
@pytest.mark.parametrize("rates, seeds", [(1, 1), (100, 5)])
def test_one_run_and_five_hundred(tmp_path, chromium, rates, seeds):
    sweep(tmp_path, rates, seeds, epochs=100)
    file = written(tmp_path, "sweep")
    with browser.opened() as tab:
        opened = tab.open(file)
        rows = opened.locator(".runs tbody tr")
        assert rows.count() == min(20, rates * seeds) and tab.trouble == []
        assert opened.locator(".settings tbody tr:visible").count() == (10 if seeds > 1 else 0)
        if seeds > 1:
            opened.get_by_role("button", name="all 500 runs").click()
            assert rows.count() == 500


@pytest.mark.slow
def test_a_page_of_many_runs_holds_the_same(tmp_path, chromium, monkeypatch):
    mixed(tmp_path)
    experiment(tmp_path, {"tag": "nan", "seed": 1}, grid="sweep").write_history(
        [{"train": {"loss": float("nan")}}]
    )
    file = written(tmp_path, "sweep")
    plain = data_of(file)["groups"][0]
    experiment(tmp_path, {"data.name": "alone"}, grid="sweep")
    alone = data_of(written(tmp_path, "sweep"))["groups"][1]
    monkeypatch.setattr("dora_train.report.page.MANY", 3)
    small = written(tmp_path, "sweep")
    columns = data_of(small)["groups"][0]
    assert columns["runs"]["columns"]["state"]["of"] == ["completed", "failed", "new"]
    assert columns["runs"]["columns"]["command"]["each"]
    assert columns["runs"]["columns"]["facts"]["rows"]["columns"]["folder"]["sig"]["same"]
    with browser.opened() as tab:
        opened = tab.open(small)
        made = opened.evaluate("page.groups[0]")
        assert made["runs"] == plain["runs"] and made["settings"] == plain["settings"]
        assert opened.evaluate("page.groups[1].runs") == alone["runs"], "a group of one run"
        assert list(map(list, made["runs"])) == list(map(list, plain["runs"])), "the order of keys"
        opened.locator(".runs tbody tr").first.click()
        assert made["runs"][0]["command"] in opened.locator("#card").inner_text()
        assert tab.trouble == []


@pytest.mark.slow
def test_thousands_of_rows_come_a_thousand_at_a_time(tmp_path, chromium):
    sweep(tmp_path, rates=4, seeds=3)
    with browser.opened() as tab:
        opened = tab.open(written(tmp_path, "sweep"))
        rows = opened.locator(".runs tbody tr")
        opened.evaluate("parts[0].most.runs = 5, parts[0].limit()")
        assert rows.count() == 5
        opened.evaluate("parts[0].tables.runs.order = Array(1500).fill(parts[0].data.runs).flat()")
        opened.evaluate("parts[0].limit()")
        assert opened.locator(".runs-more").inner_text() == "1000 more of 18000 runs"
        assert tab.trouble == []


def test_true_and_one_are_not_a_common_value():
    from types import SimpleNamespace

    from dora_train.report.cards import common_values

    runs = [SimpleNamespace(config={"a": 1, "b": value}) for value in (True, 1)]
    assert common_values(runs) == {"a": 1}
