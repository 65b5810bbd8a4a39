"""Metrics as text: which metric is an experiment's main one, and how it is named in results.

The main metric is `best.metric`: it chooses the epoch of `best.ckpt`. A run's lines, `dora info`,
a grid's table and the report all take it from here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Form = Callable[[float], str]


def main_metric(config: Mapping[str, Any]) -> tuple[str, str]:
    """The metric that chooses the best epoch, and its direction: ("valid.acc", "max").

    Two empty texts if the experiment stored none.
    """
    best = config.get("best")
    if not isinstance(best, Mapping):
        return "", ""
    return str(best.get("metric") or ""), str(best.get("mode") or "")


def directions(metric: str) -> tuple[str, ...]:
    """The directions that a metric can have, "max" or "min".

    Of a loss, less is better. No other name tells the direction.
    """
    if "loss" in metric.lower():
        return ("min",)
    return "max", "min"


def number(value: float) -> str:
    """Three digits after the point. Small and large numbers have an exponent."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3f}"
    return f"{value:.2e}"


def shown(metrics: Mapping[str, float], form: Form = number) -> str:
    """`loss 0.131 acc 0.972`: the loss first."""
    names = sorted(metrics, key=lambda name: (name != "loss", name))
    return " ".join(f"{name} {form(metrics[name])}" for name in names)


def shown_best(best: Mapping[str, Any], metric: str, form: Form = number) -> str:
    """The best value of a metric, and its epoch: `valid acc 0.975 @5`.

    It is `@step 300` if the entries of the history have steps.

    Args:
        best: as `state.json` and `result.json` have it. If it is empty, so is the text.
        metric: as `main_metric` gives it. If it is empty, all metrics are shown.
    """
    if not best:
        return ""
    where = ""
    if "step" in best:
        where = f" @step {best['step']}"
    elif best.get("epoch"):
        where = f" @{best['epoch']}"
    if metric and "value" in best:
        return f"{metric.replace('.', ' ')} {form(best['value'])}{where}"
    return f"valid {shown(validated(best), form)}{where}"


def validated(best: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of the validation in the best epoch."""
    return {name: value for name, value in best.items() if name not in ("epoch", "step", "value")}


def shown_test(test: Mapping[str, float], metric: str, form: Form = number) -> str:
    """`test acc 0.983`: the main metric on the test set. All metrics, if it was not tested."""
    name = metric.rpartition(".")[2]
    if name in test:
        test = {name: test[name]}
    return f"test {shown(test, form)}".strip()


def best_key(metric: str) -> str:
    """The name of a metric's best value in tables: `best.acc` or `best.train.acc`."""
    return f"best.{metric.removeprefix('valid.')}"


def shown_path(path: Path) -> str:
    """A path, relative to the working directory if it lies below that."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
