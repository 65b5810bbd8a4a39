"""The trials of searches in the order in which they were asked for, and what each reached: page.py
draws them."""

import math
from typing import Any

from ..engine.experiment.folder import GRIDS, SearchRecord, State, read_search
from ..engine.watch.best import MAX, is_number
from .names import Outputs
from .report import Report
from .runs import Run, flat

OVER = (State.COMPLETED, State.STOPPED)  # what the best so far may come from


def searches(report: Report) -> list[dict[str, Any]]:
    """Each search among the grids of a report, its runs by their place there: a trial that is left
    out has none."""
    places = {run.sig: at for at, run in enumerate(report.runs)}
    found = []
    for grid in Outputs(report.outputs).grids():
        record = read_search(report.outputs / GRIDS / grid)
        if record is not None and record.trials and (grid in report.names or not report.names):
            found.append(
                {
                    "grid": grid,
                    **_drawn(
                        record,
                        report.runs,
                        [places.get(str(trial["sig"])) for trial in record.trials],
                    ),
                }
            )
    return found


def _drawn(record: SearchRecord, runs: list[Run], places: list[int | None]) -> dict[str, Any]:
    question = record.question if isinstance(record.question, dict) else {}
    objective, mode = str(question.get("objective")), str(question.get("mode"))
    better = max if mode == MAX else min
    values = [
        None if at is None else better(_values(runs[at], objective), default=None) for at in places
    ]
    best: list[float | None] = []
    for at, value in zip(places, values):
        over = at is not None and value is not None and runs[at].status.state in OVER
        known = [one for one in [*best[-1:], value if over else None] if one is not None]
        best.append(better(known, default=None))
    return {
        "objective": objective,
        "mode": mode,
        "optimizer": str(question.get("optimizer")),
        "runs": places,
        "values": values,
        "best": best,
    }


def _values(run: Run, metric: str) -> list[float]:
    return [
        value
        for entry in run.history
        for name, value in flat(entry)
        if name == metric and is_number(value) and math.isfinite(value)
    ]
