"""The report as a page: one HTML file that needs no network.

The numbers are collected here. The scripts in assets/ draw them in the browser.

The scripts are our own, a few hundred lines. Plotly would add 4.8 MB to each page, it has no dark
mode, and it takes seconds to draw 500 curves.
"""

import html
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..best_so_far import epochs_in
from ..engine.machine import without_collections
from ..engine.watch.best import is_number
from ..engine.watch.board import counted
from ..engine.watch.status import when
from ..engine.words import number
from .additions import additions, shown
from .cards import card, classes_of, common_values, confusion
from .compact import compact
from .conclusion import conclusion, remarks
from .curves import curves_of
from .groups import data_name
from .parameters import by_separation, differing, shared, text, texts, titles
from .ranking_sheet import missing
from .records import finite
from .report import Report
from .runs import Run, keys_of, metric_names, places_of, statuses_of
from .section import Section
from .settings import Setting
from .trials import searches

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = (
    "compact.js",
    "table.js",
    "charts.js",
    "trials.js",
    "intervals.js",
    "card.js",
    "part.js",
    "page.js",
)
COMPACT: Any = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
MOST_NAMES = 3  # of grids and runs in the title
# A page of more runs than that holds them in columns (compact.py), and has these limits:
MANY = 1000
MOST_OF_MANY = 300_000  # numbers of all its curves, some 3 MB
MOST_DETAILED = 500  # runs of a group that have their confusion matrix on it
LEFT_OUT = (
    f"Of these many runs, the first {MOST_DETAILED} have their confusion matrix here. That of"
    " another run: python -m dora_train.report SIG --html run.html"
)


def page(report: Report) -> str:
    """The content of the HTML file."""
    with without_collections():
        found = content(report)
        data = _as_json(found)
    parts = {
        "title": html.escape(found["title"]),
        "style": _asset("page.css"),
        "data": data.replace("<", "\\u003c"),  # a value may hold "</script>"
        "script": "".join(map(_asset, SCRIPTS)),
    }
    return re.sub(r"@@(\w+)@@", lambda mark: parts[mark[1]], _asset("page.html"))


def _as_json(found: dict[str, Any]) -> str:
    try:
        return json.dumps(found, **COMPACT)
    except ValueError:  # NaN and infinity, which are rare
        return json.dumps(finite(found), **COMPACT)


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
    common = common_values(runs)
    over = [key for key in section.over if key in keys]  # one that never varies has no column
    metrics = metrics_of_group(section, report)
    said = shared(report.runs)
    most = None
    detailed = runs
    has_settings = True
    if len(report.runs) > MANY:
        most = MOST_OF_MANY * len(runs) // len(report.runs)
        detailed = runs[:MOST_DETAILED]
        # if each run is a setting, there is no table of them
        has_settings = len(section.entries) < len(runs)
    curves, stride = curves_of([one.setting for one in section.entries], most)
    # `--metrics` need not name those that the page colours and sorts by
    main = [section.main, section.tested, section.metric, section.compared]
    directed = keys_of([metrics, filter(None, main)])
    made: dict[str, Any] = {
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
        "modes": {name: section.better.mode(name) for name in directed},
        "parameters": [_parameter(key, names[key], runs) for key in keys],
        "settings": _settings(section, metrics if has_settings else []),
        "runs": [card(run, keys, common) for run in runs],
        "common": texts(common),
        "classes": classes_of(detailed),
        "curves": curves,
        "stride": stride,
        "axis": "epoch" if all(epochs_in(run.history) for run in runs if run.history) else "entry",
        "searches": searches(report, section),
        "left_out": "",
    }
    for run, its_card in zip(detailed, made["runs"]):
        its_card["confusion"] = confusion(run)
    if len(report.runs) > MANY:
        _shorten(made)
    return made


def _shorten(group: dict[str, Any]) -> None:
    """Put the records of a group into columns, and say what the page leaves out."""
    runs, settings = group["runs"], group["settings"]
    if len(runs) > MOST_DETAILED and any(run.get("confusion") for run in runs):
        group["left_out"] = LEFT_OUT
    group["runs"] = compact(runs, [run["sig"] for run in runs])
    group["settings"] = compact(settings)


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


def _settings(section: Section, metrics: Sequence[str]) -> list[dict[str, Any]]:
    keys = differing(section.runs, section.over)
    metrics = keys_of([metrics, filter(None, [section.compared])])
    place = places_of(section.runs)
    found = []
    for one in section.entries:
        low, high = one.found.difference_interval or (None, None)
        setting = {
            "name": one.name,
            "values": texts(one.setting.values(keys)),
            "runs": list(map(place.get, one.setting.runs)),
            "n": one.found.n,
            "missing": missing(one, section.compared),
            "metrics": {name: _summary(one.setting, name, section.over) for name in metrics},
            "behind": [one.found.difference, low, high],
            "verdict": one.verdict,
        }
        found.append(setting)
    return found


def _summary(setting: Setting, name: str, over: Sequence[str]) -> list[Any] | None:
    """[mean, standard deviation, n, low, high]."""
    found = setting.summary(name, over)
    if found is None:
        return None
    return [found.mean, found.std, found.n, *(found.interval or (None, None))]
