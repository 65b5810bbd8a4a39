"""Metrics as text: which metric is an experiment's main one, and how it is named in results.

The main metric is `best.metric`: it chooses the epoch of `best.ckpt`. A run's lines, `dora info`,
a grid's table and the report all take it from here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Form = Callable[[float], str]


def main_metric(config: Mapping[str, Any]) -> tuple[str, str]:
    """What chooses the best epoch: ("valid.acc", "max"); two empty texts if nothing was stored."""
    best = config.get("best")
    best = best if isinstance(best, Mapping) else {}
    return str(best.get("metric") or ""), str(best.get("mode") or "")


def directions(metric: str) -> tuple[str, ...]:
    """The directions that a metric can have, "max" or "min": of a loss, less is better.

    No other name tells its direction.
    """
    return ("min",) if "loss" in metric.lower() else ("max", "min")


def number(value: float) -> str:
    """Three digits after the point; small and large numbers with an exponent."""
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"


def shown(metrics: Mapping[str, float], form: Form = number) -> str:
    """`loss 0.131 acc 0.972`: the loss first."""
    names = sorted(metrics, key=lambda name: (name != "loss", name))
    return " ".join(f"{name} {form(metrics[name])}" for name in names)


def shown_best(best: Mapping[str, Any], metric: str, form: Form = number) -> str:
    """`valid acc 0.975 @5`: what the best epoch reached in the metric that chose it; `@step 300` if
    the entries of the history have steps.

    Args:
        best: as `state.json` and `result.json` have it; empty gives an empty text.
        metric: as `main_metric` gives it; of an experiment that stored none: all metrics.
    """
    if not best:
        return ""
    place = f"step {best['step']}" if "step" in best else best.get("epoch")
    where = f" @{place}" if place else ""
    if metric and "value" in best:
        return f"{metric.replace('.', ' ')} {form(best['value'])}{where}"
    return f"valid {shown(validated(best), form)}{where}"


def validated(best: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of the validation in the best epoch."""
    return {name: value for name, value in best.items() if name not in ("epoch", "step", "value")}


def shown_test(test: Mapping[str, float], metric: str, form: Form = number) -> str:
    """`test acc 0.983`: the main metric on the test set; all metrics, if it was not tested."""
    name = metric.rpartition(".")[2]
    return f"test {shown({name: test[name]} if name in test else test, form)}".strip()


def best_key(metric: str) -> str:
    """What the best epoch reached, by its name in tables:

    `best.acc`; `best.train.acc` of training.
    """
    split, _, name = metric.partition(".")
    return f"best.{name}" if split == "valid" else f"best.{metric}"


def shown_path(path: Path) -> str:
    """Relative to the working directory where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
