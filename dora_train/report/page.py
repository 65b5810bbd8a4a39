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
from ..engine.watch.progress import duration, moment
from ..engine.watch.status import when
from ..engine.words import number, shown_path
from .additions import additions, shown
from .conclusion import conclusion, remarks
from .curves import curves_of
from .groups import data_name
from .parameters import by_separation, differing, shared, text, texts, titles
from .ranking import Ranked
from .ranking_sheet import missing
from .records import finite
from .report import Report
from .runs import Run, keys_of, metric_names, places_of, statuses_of
from .section import Section
from .settings import Setting
from .trials import searches

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("table.js", "charts.js", "trials.js", "intervals.js", "card.js", "part.js", "page.js")
LARGEST = 2**53  # the largest whole number up to which a browser knows all
MOST_NAMES = 3  # of grids and runs in the title
# A confusion matrix of more classes is not shown. Its most frequent confusions are.
MOST_CLASSES = 20
CONFUSIONS = 15


def page(report: Report) -> str:
    """The content of the HTML file."""
    found = content(report)
    data = json.dumps(finite(found), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(found["title"]),
        "style": _asset("page.css"),
        "data": data.replace("<", "\\u003c"),  # a value may hold "</script>"
        "script": "".join(map(_asset, SCRIPTS)),
    }
    return re.sub(r"@@(\w+)@@", lambda mark: parts[mark[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def content(report: Report) -> dict[str, Any]:
    """All data of the page: a few words, and the groups of runs that can be compared."""
    return {
        "title": title(report),
        "made": when(time.time()),
        "counts": counted(statuses_of(report.runs), " · "),
        "base": texts(shared(report.runs)),
        "groups": [_group(section, report) for section in report.sections],
    }


def title(report: Report) -> str:
    """What the page holds: `mysweep: 9 runs, 26 November`, `22 runs, 3 data sets, 26 November`."""
    parts = [_many(len(report.runs), "run")]
    sets = {data_name(section.runs[0]) for section in report.sections}
    if len(sets) > 1:
        parts.append(_many(len(sets), "data set"))
    days = _days([run.times.started for run in report.runs if run.times.started])
    text = ", ".join(filter(None, [*parts, days]))
    if 0 < len(report.names) <= MOST_NAMES:
        return f"{' '.join(report.names)}: {text}"
    return text


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _days(times: Sequence[float]) -> str:
    """`26 November`, `24 to 26 November`, `30 November to 2 December`, with the years if not this."""
    if not times:
        return ""
    first, last = (time.localtime(pick(times)) for pick in (min, max))
    year = ""
    if not first.tm_year == last.tm_year == time.localtime().tm_year:
        year = " %Y"
    end = time.strftime(f"{last.tm_mday} %B{year}", last)
    if first[:3] == last[:3]:
        return end
    if first[:2] == last[:2]:
        return f"{first.tm_mday} to {end}"
    return time.strftime(f"{first.tm_mday} %B{year} to ", first) + end


def _group(section: Section, report: Report) -> dict[str, Any]:
    """The data of one group. A run or a setting is referred to by its place in its list."""
    runs = section.runs
    keys = by_separation([runs], differing(runs))
    names = titles(keys)
    place = places_of(runs)
    common = _common(runs)
    entries = section.entries
    over = [key for key in section.over if key in keys]  # one that never varies has no column
    curves, stride = curves_of([one.setting for one in entries])
    metrics = metrics_of_group(section, report)
    told = differing(runs, section.over)
    said = shared(report.runs)
    return {
        "name": section.name,
        "top": _top(section),
        "base": {key: text(value) for key, value in section.base.items() if key not in said},
        "over": over,
        "main": [section.main, section.tested],
        "metric": section.metric,
        "compared": section.compared,
        "conclusion": conclusion(section.ranking),
        "remarks": remarks(section.ranking),
        "additions": shown(section.ranking, additions(section.ranking)),
        "metrics": metrics,
        "modes": {name: section.better.mode(name) for name in metrics},
        "parameters": [_parameter(key, names[key], runs) for key in keys],
        "settings": [_setting(one, section, told, metrics, place) for one in entries],
        "runs": [_run(run, keys, common) for run in runs],
        "common": texts(common),
        "classes": _classes(runs),
        "curves": curves,
        "stride": stride,
        "axis": "epoch" if all(epochs_in(run.history) for run in runs if run.history) else "entry",
        "searches": searches(report, section),
    }


def metrics_of_group(section: Section, report: Report) -> list[str]:
    """The metrics of the report that a run of the group has."""
    known = metric_names(section.runs)
    return [name for name in report.metrics if name in known]


def _parameter(key: str, title: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Values are sent as text. A browser would round whole numbers above 2^53."""
    values = [run.value(key) for run in runs]
    numeric = all(value is None or is_number(value) for value in values)
    return {"key": key, "title": title, "numeric": numeric}


def _top(section: Section) -> str:
    """`best lr=0.1: test acc 0.9677`: the leading setting of a group. Empty without a result."""
    best = section.ranking.entries[0]
    if not section.ranking.mode or best.found.mean is None:
        return ""
    return f"{best.name}: {section.compared.replace('.', ' ')} {number(best.found.mean)}"


# --- settings ---


def _setting(
    one: Ranked,
    section: Section,
    keys: Sequence[str],
    metrics: Sequence[str],
    place: Mapping[Run, int],
) -> dict[str, Any]:
    """Args: keys: those that tell the settings apart. place: of each run of the section."""
    low, high = one.found.difference_interval or (None, None)
    metrics = keys_of([metrics, filter(None, [section.compared])])
    return {
        "name": one.name,
        "values": texts(one.setting.values(keys)),
        "runs": list(map(place.get, one.setting.runs)),
        "n": one.found.n,
        "missing": missing(one, section.compared),
        "metrics": {name: _summary(one.setting, name, section.over) for name in metrics},
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
        "values": texts(run.values(keys)),
        "metrics": {name: _exact(value) for name, value in run.metrics.items()},
        "started": run.times.started,
        "when": moment(run.times.started),
        "took": run.times.took,
        "duration": duration(run.times.took),
        "config": texts(own),
        "facts": _facts(run),
        "command": run.command,
        "confusion": _confusion(run),
    }


def _facts(run: Run) -> dict[str, str]:
    """Texts for the card of a run. Facts that are not known are left out."""
    times = run.times
    facts = {
        "epochs": epochs(run.state, run.epochs),
        "began": when(times.began),
        "ended": when(times.ended),
        "took": duration(times.took),
        "attempts": str(times.attempts) if times.attempts > 1 else "",
        "where": run.status.where,
    }
    facts["grids"] = ", ".join(run.grids)
    facts["bits"] = run.state.bits
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


def _exact(value: float) -> float | str:
    """The value, as text if it is a whole number that a browser would round."""
    is_large = isinstance(value, int) and abs(value) > LARGEST
    return str(value) if is_large else value


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
