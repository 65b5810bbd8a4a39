"""HiPlot's static page: a point a run, with parameters and metrics.

An extra: HiPlot is maintained no longer.
"""

import math
from typing import Any

from ..engine.errors import UserError
from .parameters import differing, text
from .records import of_run
from .report import Report


def page(report: Report) -> str:
    """One HTML file of HiPlot's own.

    Raises:
        UserError: HiPlot is not installed.
    """
    try:
        import hiplot
    except ImportError:
        raise UserError(
            "--hiplot needs HiPlot, which is not installed: pip install -r requirements-extra.txt",
            "without it: --html FILE draws parallel coordinates, too",
        ) from None
    points = [
        hiplot.Datapoint(uid=point["sig"], values=_harmless(point)) for point in values(report)
    ]
    experiment = hiplot.Experiment(datapoints=points)
    experiment.colorby = report.metric or None
    experiment.display_data(hiplot.Displays.PARALLEL_PLOT).update(
        {"hide": ["uid", "from_uid", "sig"]}
    )
    experiment.display_data(hiplot.Displays.TABLE).update({"hide": ["uid", "from_uid"]})
    return experiment.to_html()


def _harmless(point: dict[str, Any]) -> dict[str, Any]:
    """HiPlot 0.1.33 takes text for HTML, in its script and in its table: a tag in a value would be
    one."""
    return {
        _without_tags(key): _without_tags(value) if isinstance(value, str) else value
        for key, value in point.items()
    }


def _without_tags(text: str) -> str:
    return text.replace("<", "‹").replace(">", "›").replace("&", "＆")


def values(report: Report) -> list[dict[str, Any]]:
    """What HiPlot shows of each run."""
    keys = differing(report.runs)
    found = []
    for run in report.runs:
        record = of_run(run, keys, report.metrics)
        parameters = {
            key: value if isinstance(value, (int, float)) else text(value)
            for key, value in record["parameters"].items()
        }
        metrics = {name: value for name, value in record["metrics"].items() if math.isfinite(value)}
        found.append({"sig": run.sig, "state": record["state"], **parameters, **metrics})
    return found
