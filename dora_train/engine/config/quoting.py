"""Python values as Hydra's grammar reads them back: what a grid file gives its launcher becomes
overrides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError


def quoted(value: Any) -> str:
    """A Python value as Hydra's grammar reads it back, whatever letters it holds.

    Raises:
        UserError: a type that a configuration cannot hold.
    """
    if (
        hasattr(value, "item")
        and not isinstance(value, (str, bytes))
        and getattr(value, "ndim", 0) == 0
    ):
        value = value.item()  # numpy's and torch's scalars
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)  # inf and nan as well: Hydra reads them as floats
    if isinstance(value, (str, Path)):
        return _quoted_text(str(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quoted(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(quoted(inner) for inner in value) + "]"
    raise UserError(f"a configuration cannot hold {value!r} ({type(value).__name__}).")


def _quoted_text(text: str) -> str:
    """In single quotes, where Hydra's grammar escapes the quote, and the backslashes before one,
    only."""
    parts, backslashes = [], 0
    for letter in text + "'":  # the closing quote escapes what stands before it as well
        if letter == "\\":
            backslashes += 1
            continue
        parts.append("\\" * (2 * backslashes if letter == "'" else backslashes))
        backslashes = 0
        parts.append("\\'" if letter == "'" else letter)
    body = "".join(parts)
    return "'" + body[:-2] + "'"
