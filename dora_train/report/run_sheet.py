"""The table of runs: one line each, in parts that can be compared."""

from collections.abc import Sequence
from typing import Any

from ..engine.watch.best import Better
from ..engine.watch.board import Board, Column, Line, meta
from ..engine.watch.columns import Part
from ..engine.watch.progress import duration, moment, short_moment
from ..engine.watch.usage import short, total
from .fit import WHAT, fitted
from .groups import DATA
from .labels import pair
from .parameters import by_separation, differing, shared, titles
from .runs import Run, joined, statuses_of, told_by
from .section import Section
from .sheet import Sheet, base_of, cells, for_people, metric_column, own, parameter, style_of


def sheet_of_runs(
    title: str,
    sections: Sequence[Section],
    chosen: Sequence[str],
    width: int,
    listed: bool = False,
    note: str = "",
) -> Sheet:
    """One line for each run. Only a finished run can hold the best value of a column.

    Args:
        chosen: the metrics that the user chose. Empty: the main ones first.
        width: of the screen, in characters.
        listed: the times come first, and the parameters are in one text.
        note: a line below the table.
    """
    runs = joined(section.runs for section in sections)
    keys = varying(sections)
    names = titles(keys)
    metrics = _metrics(sections, chosen)
    columns = _own(runs, metrics, listed)
    parameters = [parameter(key, names[key], runs) for key in keys]
    lines = [_line(run, keys, section) for section in sections for run in section.runs]
    parts = parts_of(sections)
    others = [] if chosen else _others(runs, sections)

    def widest(column: Column) -> int:
        return board.widest(column, range(len(lines)))

    better = told_by(runs)
    board = Board("", "", [*columns, *parameters, *others], lines, better, final=True, parts=parts)
    shown = fitted(columns, parameters, others, widest, width, listed)
    rest = [keys[parameters.index(column)] for column in shown.rest]
    _add_what(lines, sections, rest, names, empty="(defaults)" if listed else "")
    notes = []
    if shown.hidden:
        names_of_hidden = ", ".join(column.title for column in shown.hidden)
        notes.append(f"too narrow for: {names_of_hidden}")
    if note:
        notes.append(note)
    used = total(run.used for run in runs)
    if used.wall:
        notes.append(f"used: {used}")
    return Sheet(
        title,
        base_of(runs),
        shown.columns,
        lines,
        better,
        notes=notes,
        statuses=statuses_of(runs),
        final=True,
        parts=parts,
        below=WHAT.path if shown.below else (),
    )


def varying(sections: Sequence[Section]) -> list[str]:
    """The keys that differ within a section, those first that tell the most runs apart."""
    runs = joined(section.runs for section in sections)
    if len(runs) == 1:
        return differing(runs)
    found: dict[str, None] = {}
    for section in sections:
        if len(section.runs) > 1:
            found |= dict.fromkeys(differing(section.runs))
    alone = [section.runs[0] for section in sections if len(section.runs) == 1]
    for run in alone:
        found |= dict.fromkeys(key for key in run.delta if key not in DATA)
    return by_separation([section.runs for section in sections], found)


def _own(runs: Sequence[Run], metrics: Sequence[Column], listed: bool) -> list[Column]:
    """The columns that are always shown."""
    states = []
    if len({run.status.state for run in runs}) > 1:
        states = [own("state", left=True)]
    times = [own("when", left=True), own("took")]
    if listed:
        return [own("sig", left=True), *times, *states, *metrics]
    return [own("sig", left=True), *states, *metrics, *times]


def _metrics(sections: Sequence[Section], chosen: Sequence[str]) -> list[Column]:
    """The columns of the metrics that were chosen, else of the main ones.

    If the sections have different main metrics, the columns are `best` and `test`.
    """
    runs = joined(section.runs for section in sections)
    if chosen:
        return [metric_column(("metrics", name), name, runs) for name in chosen]
    mains = {section.main for section in sections} - {""}
    tested = {section.tested for section in sections} - {""}
    if len(mains) < 2 and len(tested) < 2:
        names = [*mains, *tested]
        return [metric_column(("metrics", name), name, runs) for name in names]
    return [
        Column(("main", "best"), "best", style_of(runs, *mains)),
        Column(("main", "test"), "test", style_of(runs, *tested)),
    ]


def _others(runs: Sequence[Run], sections: Sequence[Section]) -> list[Column]:
    """The progress of each run, and the metrics that are not the main ones."""
    known: dict[str, float] = {}
    for run in runs:
        known |= run.metrics
    main = {section.main for section in sections} | {section.tested for section in sections}
    columns = [own("epoch"), own("used")]
    for name in for_people(list(known)):
        if name not in main:
            columns.append(metric_column(("metrics", name), name, runs))
    if any(run.status.cause and not run.finished for run in runs):
        columns.append(own("cause", left=True))
    return columns


def _line(run: Run, keys: Sequence[str], section: Section) -> Line:
    own_values = {
        **meta(run.state, run.status, run.epochs),
        "sig": run.sig,
        "state": str(run.status.state),
        "when": moment(run.times.started),
        "day": short_moment(run.times.started),
        "took": duration(run.times.took),
        "used": short(run.used),
        "cause": "" if run.finished else run.status.cause,
        **cells(run, keys),
    }
    main = {"best": run.metrics.get(section.main), "test": run.metrics.get(section.tested)}
    values = {"Meta": own_values, "metrics": run.metrics, "main": main}
    return Line(run.status, values, group=section.name)


def parts_of(sections: Sequence[Section]) -> dict[str, Part]:
    """The headings of the sections, each with what all of its runs share. Empty for one section."""
    if len(sections) < 2:
        return {}
    of_all = shared(joined(section.runs for section in sections))
    parts = {}
    for section in sections:
        mode = section.better.mode
        main = {"main.best": mode(section.main), "main.test": mode(section.tested)}
        words = [pair(key, value) for key, value in section.base.items() if key not in of_all]
        better = Better({**section.better.told, **main})
        parts[section.name] = Part(section.name, " ".join(words), better)
    return parts


def _add_what(
    lines: Sequence[Line],
    sections: Sequence[Section],
    rest: Sequence[str],
    names: dict[str, str],
    empty: str,
) -> None:
    """Put the values that have no column into one text for each run: `lr=0.1 model=resnet18`.

    A default is left out, unless it was edited between two runs, so that no run names it. So is
    what the heading of a section says.

    Args:
        rest: the keys that have no column.
        names: the title of each key.
        empty: the text if there is nothing to say.
    """
    runs = joined(section.runs for section in sections)
    said = [section.base for section in sections for _ in section.runs]
    named = {key for run in runs for key in run.delta}
    for line, run, above in zip(lines, runs, said):
        words = []
        for key in rest:
            is_changed = key in run.delta or (key not in named and run.value(key) is not None)
            if is_changed and key not in above:
                words.append(pair(names[key], run.value(key)))
        own_values: Any = line.values["Meta"]
        if own_values["cause"] and rest:
            words.append(f"({own_values['cause']})")
        own_values["what"] = " ".join(words) or empty
