"""Python values as overrides: what a grid file gives its launcher, in Hydra's grammar."""

from collections.abc import Container, Mapping
from pathlib import Path

from ..errors import UserError


def overrides_from(given: object, groups: Container[str]) -> list[str]:
    """Overrides from what a grid file gives its launcher: text, dicts, or lists of them.

    Args:
        groups: of the configuration. The text of a group names a file, and is not quoted.

    Raises:
        UserError: it is something else, or a value that a configuration cannot hold.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping):
        return [f"{key}={_right_side(key, value, groups)}" for key, value in given.items()]
    if isinstance(given, (list, tuple)):
        overrides = []
        for part in given:
            overrides += overrides_from(part, groups)
        return overrides
    raise UserError(f"a launcher takes text, a dict or a list of them, not {given!r}.")


def _right_side(key: str, value: object, groups: Container[str]) -> str:
    """The text of an override behind its `=`."""
    return unquoted(value) if key in groups else quoted(value)


def unquoted(value: object) -> str:
    """As `quoted`, but text as it is."""
    return value if isinstance(value, str) else quoted(value)


def quoted(value: object) -> str:
    """A Python value as Hydra's grammar reads it back, whatever letters it holds.

    Raises:
        UserError: a type that a configuration cannot hold.
    """
    value = _without_array(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)  # inf and nan as well: Hydra reads them as floats
    if isinstance(value, (str, Path)):
        return _quoted_text(str(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quoted(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(quoted, value)) + "]"
    raise UserError(f"a configuration cannot hold {value!r} ({type(value).__name__}).")


def _without_array(value: object) -> object:
    """The number in a scalar of numpy or torch. Anything else stays as it is."""
    item = getattr(value, "item", None)
    if item is None or isinstance(value, (str, bytes)) or getattr(value, "ndim", 0) != 0:
        return value
    return item()


def _quoted_text(text: str) -> str:
    """Text in single quotes.

    Hydra's grammar knows two escapes in it: of a quote, and of the backslashes before a quote.
    """
    # The quote at the end counts as well: backslashes before it would escape it.
    *parts, last = text.split("'")
    body = "".join(_doubled_at_end(part) + "\\'" for part in parts)
    return f"'{body}{_doubled_at_end(last)}'"


def _doubled_at_end(text: str) -> str:
    """Text whose last backslashes stand there twice."""
    count = len(text) - len(text.rstrip("\\"))
    return text + "\\" * count
