"""Whether more or less of a metric is better. The user says so, it is never guessed."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import UserError
from ..words import directions, main_metric
from .compose import Composer

METRIC, MODE = "best.metric", "best.mode"


def is_said(layers: Iterable[Mapping[str, Any]], metric: str = METRIC, mode: str = MODE) -> bool:
    """Whether the mode was given together with the metric, or after it.

    Args:
        layers: the values that each file, and then the command, sets. A later layer wins. The
            first one sets both.
        metric, mode: the names of the two values in a layer.
    """
    said, current = True, None
    for layer in layers:
        if layer.get(mode) is not None:
            said = True
        elif layer.get(metric, current) != current:
            said = False
        current = layer.get(metric, current)
    return said


def refuse_guess(values: Mapping[str, Any], argv: list[str], composer: Composer) -> None:
    """Refuse an experiment whose `best.metric` has no `best.mode`, or a wrong one.

    Args:
        values: its configuration.
        argv: its overrides.

    Raises:
        UserError: the message names the key to add.
    """
    metric, mode = main_metric(values)
    possible = directions(metric)
    if metric != main_metric(composer.defaults)[0] and not is_said(composer.layers(argv)):
        keys = " or ".join(f"{MODE}={one}" for one in possible)
        raise UserError(f"{METRIC}={metric} needs its direction: add {keys}.")
    if mode in ("max", "min") and mode not in possible:
        raise UserError(
            f"{MODE}={mode}: {metric} is a loss, and less of it is better: write {MODE}=min."
        )
