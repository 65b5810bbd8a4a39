"""The report as a page: one HTML file that needs no network.

The numbers are collected here. The scripts in assets/ draw them in the browser.

The scripts are our own, a few hundred lines. Plotly would add 4.8 MB to each page, it has no dark
mode, and it takes seconds to draw 500 curves.
"""

import html
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..best_so_far import epochs_in
from ..engine.experiment.code import in_words
from ..engine.watch.best import is_number
from ..engine.watch.board import counted, epochs
from ..engine.watch.logs import log_of
from ..engine.watch.status import when
from ..engine.words import shown_path
from .additions import additions, shown
from .conclusion import conclusion, remarks
from .curves import curves_of
from .parameters import differing, shared, text, texts, titles
from .ranking import Ranked
from .ranking_sheet import missing
from .records import finite
from .report import Report
from .runs import Run, keys_of, places_of, statuses_of
from .settings import Setting
from .trials import searches

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("charts.js", "trials.js", "intervals.js", "page.js")
# A confusion matrix of more classes is not shown. Its most frequent confusions are.
MOST_CLASSES = 20
CONFUSIONS = 15


def page(report: Report) -> str:
    """The content of the HTML file."""
    title = " ".join(report.names) or "all experiments"
    data = json.dumps(
        finite(content(report, title)), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    parts = {
        "title": html.escape(title),
        "style": _asset("page.css"),
        "data": data.replace("<", "\\u003c"),  # a value may hold "</script>"
        "script": "".join(map(_asset, SCRIPTS)),
    }
    return re.sub(r"@@(\w+)@@", lambda mark: parts[mark[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def content(report: Report, title: str) -> dict[str, Any]:
    """All data of the page. A run or a setting is referred to by its place in its list."""
    runs = report.runs
    keys = differing(runs)
    names = titles(keys)
    place = places_of(runs)
    common = _common(runs)
    entries = report.entries
    curves, stride = curves_of([one.setting for one in entries])
    has_epochs = all(epochs_in(run.history) for run in runs if run.history)
    return {
        "title": title,
        "made": when(time.time()),
        "counts": counted(statuses_of(runs), " · "),
        "base": texts(shared(runs)),
        "over": report.over_keys,
        "metric": report.metric,
        "compared": report.compared,
        "conclusion": conclusion(report.ranking),
        "remarks": remarks(report.ranking),
        "additions": shown(report.ranking, additions(report.ranking)),
        "metrics": report.metrics,
        "modes": {name: report.better.mode(name) for name in report.metrics},
        "parameters": [{"key": key, "title": names[key]} for key in keys],
        "settings": [_setting(one, report, place) for one in entries],
        "runs": [_run(run, keys, common) for run in runs],
        "common": texts(common),
        "classes": _classes(runs),
        "curves": curves,
        "stride": stride,
        "axis": "epoch" if has_epochs else "entry",
        "searches": searches(report),
    }


# --- settings ---


def _setting(one: Ranked, report: Report, place: Mapping[Run, int]) -> dict[str, Any]:
    keys = differing(report.runs, report.over_keys)
    low, high = one.found.difference_interval or (None, None)
    metrics = keys_of([report.metrics, filter(None, [report.compared])])
    return {
        "name": one.name,
        "values": _shown(one.setting.values(keys)),
        "runs": list(map(place.get, one.setting.runs)),
        "n": one.found.n,
        "missing": missing(one, report.compared),
        "metrics": {name: _summary(one.setting, name, report.over_keys) for name in metrics},
        "behind": [one.found.difference, low, high],
        "verdict": one.verdict,
    }


def _summary(setting: Setting, name: str, over: Sequence[str]) -> list[Any] | None:
    """[mean, standard deviation, n, low, high]."""
    found = setting.summary(name, over)
    if found is None:
        return None
    return [found.mean, found.std, found.n, *(found.interval or (None, None))]


# --- runs and their cards ---


def _run(run: Run, keys: Sequence[str], common: Mapping[str, Any]) -> dict[str, Any]:
    """Args: keys: the columns of the table. common: values that the card leaves out."""
    own = {key: value for key, value in run.config.items() if key not in common}
    return {
        "sig": run.sig,
        "state": str(run.status.state),
        "brief": str(run.status),
        "finished": run.finished,
        "cause": "" if run.finished else run.status.cause,
        "epochs": epochs(run.state, run.epochs),
        "values": _shown(run.values(keys)),
        "metrics": run.metrics,
        "config": texts(own),
        "facts": _facts(run),
        "command": run.command,
        "confusion": _confusion(run),
    }


def _facts(run: Run) -> dict[str, str]:
    """Texts for the card of a run. Facts that are not known are left out."""
    facts = {"epochs": epochs(run.state, run.epochs), "where": run.status.where}
    if not run.status.live:
        facts["ended"] = when(run.state.ended)
    facts["grids"] = ", ".join(run.grids)
    facts["code"] = in_words(run.codes)
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    facts["folder"] = shown_path(run.experiment.folder)
    log = log_of(run.experiment, run.experiment.job())
    if log:
        facts["log"] = shown_path(log)
    return {name: fact for name, fact in facts.items() if fact}


def _common(runs: Sequence[Run]) -> dict[str, Any]:
    """The values that all runs have in common."""
    common = dict(runs[0].config)
    for run in runs[1:]:
        for key in list(common):  # a copy, as keys are removed
            # by their text: for Python, true is 1
            if key not in run.config or text(run.config[key]) != text(common[key]):
                del common[key]
    return common


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as they are, for an axis, and all other values as text."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found[key] = value if is_number(value) else text(value)
    return found


def _confusion(run: Run) -> dict[str, Any] | None:
    """The matrix, or the most frequent confusions [true, given, count] if there are many classes."""
    matrix = run.experiment.confusion()
    if matrix is None:
        return None
    if len(matrix) <= MOST_CLASSES:
        return {"matrix": matrix}
    wrong = []
    for row, counts in enumerate(matrix):
        for column, count in enumerate(counts):
            if row != column and count:
                wrong.append([row, column, count])
    wrong.sort(key=lambda triple: -triple[2])
    return {"most": wrong[:CONFUSIONS], "of": sum(map(sum, matrix))}


def _classes(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The names of the classes that each run told apart, by signature."""
    found: dict[str, list[str]] = {}
    for run in runs:
        inputs = run.experiment.inputs()
        if isinstance(inputs, dict) and isinstance(inputs.get("classes"), list):
            found[run.sig] = list(map(str, inputs["classes"]))
    return found
