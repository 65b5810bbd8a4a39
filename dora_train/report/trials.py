"""The trials of searches, in the order in which they were asked for, and what each reached.

page.py shows them.
"""

import math
from typing import Any

from ..engine.experiment.folder import GRIDS, SearchRecord, State, read_search
from ..engine.watch.best import MAX
from .names import Outputs
from .report import Report
from .runs import Run, numbers
from .section import Section

FINAL = (State.COMPLETED, State.STOPPED)  # the best value so far may come from these trials


def searches(report: Report, section: Section) -> list[dict[str, Any]]:
    """Each search among the grids of a report that has a trial in a section.

    A search that was asked for by its name, and has no known trial yet, is in every section.
    A trial is a place in the section's runs, or None if it is not among them.
    """
    places = {run.sig: at for at, run in enumerate(section.runs)}
    elsewhere = {run.sig for run in report.runs} - set(places)
    found = []
    for grid in Outputs(report.outputs).grids():
        record = read_search(report.outputs / GRIDS / grid)
        if record is not None and record.trials and (grid in report.names or not report.names):
            sigs = [str(trial["sig"]) for trial in record.trials]
            is_unknown = grid in report.names and elsewhere.isdisjoint(sigs)
            if is_unknown or not places.keys().isdisjoint(sigs):
                trials = list(map(places.get, sigs))
                found.append({"grid": grid, **_drawn(record, section.runs, trials)})
    return found


def _drawn(record: SearchRecord, runs: list[Run], trials: list[int | None]) -> dict[str, Any]:
    """A search as page.py writes it: the value of each trial, and the best value so far."""
    question = record.question if isinstance(record.question, dict) else {}
    objective, mode = str(question.get("objective")), str(question.get("mode"))
    better = max if mode == MAX else min
    values: list[float | None] = []
    best: list[float | None] = []
    so_far: list[float] = []
    for at in trials:
        value = None
        if at is not None:
            value = better(_values(runs[at], objective), default=None)
            if value is not None and runs[at].status.state in FINAL:
                so_far = [better([*so_far, value])]
        values.append(value)
        best.append(better(so_far, default=None))
    return {
        "objective": objective,
        "mode": mode,
        "optimizer": str(question.get("optimizer")),
        "runs": trials,
        "values": values,
        "best": best,
    }


def _values(run: Run, metric: str) -> list[float]:
    """The finite values of a metric, such as `valid.acc`, in the history of a run."""
    found = []
    for entry in run.history:
        value = dict(numbers(entry)).get(metric)
        if value is not None and math.isfinite(value):
            found.append(value)
    return found
