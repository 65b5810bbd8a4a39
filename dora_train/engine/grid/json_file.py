"""The JSON file of a sweep: a list of experiments, or lists of values for keys."""

import json
from pathlib import Path
from typing import Any

from ..config.gridfile import Axis
from ..config.values import flatten
from ..errors import UserError


def read_json(file: Path) -> tuple[list[dict[str, Any]], list[Axis], dict[str, Any]]:
    """The cases of a list of dicts, or the axes and shared values of a dict of lists.

    In a dict of lists, a value that is no list is shared by all experiments.

    Returns:
        (cases, axes, shared)

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text("utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{file}:{error.lineno}:{error.colno}: {error.msg}.") from error
    except ValueError as error:  # a key twice, or no UTF-8
        raise UserError(f"{file}: {error}.") from error
    if isinstance(content, list):
        return _cases(file, content), [], {}
    if not isinstance(content, dict) or not content:
        raise UserError(f"{file}: a list of dicts is wanted, or a dict of lists.")
    axes, shared = [], {}
    for key, value in dict(flatten(content)).items():
        if value == []:
            raise UserError(f'{file}: "{key}" names no value.')
        if isinstance(value, list):
            axes.append(Axis(key, value))
        else:
            shared[key] = value
    return [], axes, shared


def _cases(file: Path, content: list[Any]) -> list[dict[str, Any]]:
    """The overrides of each entry of a list.

    Raises:
        UserError: the list is empty, or an entry is no dict.
    """
    for number, case in enumerate(content):
        if not isinstance(case, dict):
            raise UserError(
                f"{file}: entry {number + 1} of the list is no dict of overrides: {json.dumps(case)}."
            )
    if not content:
        raise UserError(f"{file}: the list is empty.")
    return [dict(flatten(case)) for case in content]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of JSON, for `json.loads`, which itself would take the last of equal keys.

    Raises:
        ValueError: a key stands there twice.
    """
    keys = [key for key, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f'"{twice}" stands there twice')
    return dict(pairs)
