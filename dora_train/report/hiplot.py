"""HiPlot's static page: one point for each run, with its parameters and metrics.

HiPlot is an extra requirement, because it is no longer maintained.
"""

import math
from typing import Any

from ..engine.errors import UserError
from .parameters import differing, text
from .records import of_run
from .report import Report


def page(report: Report) -> str:
    """The content of HiPlot's HTML file.

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
    experiment.colorby = report.sections[0].metric or None
    experiment.display_data(hiplot.Displays.PARALLEL_PLOT).update(
        {"hide": ["uid", "from_uid", "sig"]}
    )
    experiment.display_data(hiplot.Displays.TABLE).update({"hide": ["uid", "from_uid"]})
    return experiment.to_html()


def _harmless(point: dict[str, Any]) -> dict[str, Any]:
    """The point without characters that HTML gives a meaning to.

    HiPlot 0.1.33 writes names and texts into its page unescaped, so that a tag in a value would
    become a part of the page.
    """
    found = {}
    for key, value in point.items():
        found[_without_tags(key)] = _without_tags(value) if isinstance(value, str) else value
    return found


def _without_tags(text: str) -> str:
    return text.replace("<", "‹").replace(">", "›").replace("&", "＆")


def values(report: Report) -> list[dict[str, Any]]:
    """Signature, state, parameters and metrics of each run."""
    keys = differing(report.runs)
    found = []
    for run in report.runs:
        record = of_run(run, keys, report.metrics)
        point = {"sig": run.sig, "state": record["state"]}
        for key, value in record["parameters"].items():
            # a browser knows whole numbers up to 2^53
            is_exact = isinstance(value, (int, float)) and abs(value) <= 2**53
            point[key] = value if is_exact else text(value)
        for name, value in record["metrics"].items():
            if math.isfinite(value):
                point[name] = value
        found.append(point)
    return found
