"""A configuration as plain nested dicts: dotted keys, what counts in a signature, what fits a
default, what differs.

Light: standard library alone. `compose.py` composes them; loggers, the grid and the report take
them apart.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from typing import Any

from ..errors import UserError

Delta = list[tuple[str, Any]]


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; lists and empty dicts are values.

    >>> list(flatten({"a": {"b": 1, "c": {}}}))
    [('a.b', 1), ('a.c', {})]
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def unflatten(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    config: dict[str, Any] = {}
    for key, value in pairs:
        *parents, leaf = key.split(".")
        inner = config
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = value
    return config


def key_of(override: str) -> str:
    """The dotted key, or the group, of an override.

    >>> key_of("+a.b=1")
    'a.b'
    """
    return override.partition("=")[0].lstrip("+~").strip()


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above` over it."""
    result = dict(below)
    for key, value in above.items():
        inner = result.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[key] = merged(inner, value) if both else copy.deepcopy(value)  # type: ignore[arg-type]
    return result


def split(
    config: Mapping[str, Any], exclude: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The part of `config` that counts in the signature, and the part under the patterns of
    `dora.exclude`."""
    counted: Delta = []
    excluded: Delta = []
    for key, value in flatten(config):
        (excluded if is_excluded(key, exclude) else counted).append((key, value))
    return unflatten(counted), unflatten(excluded)


def is_excluded(key: str, exclude: Sequence[str]) -> bool:
    """Whether one of the patterns of `dora.exclude` takes this dotted key out of the signature."""
    return _matches(key, tuple(exclude))


@lru_cache(maxsize=10_000)
def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    """A grid asks a thousand times for the same seventy keys."""
    return any(fnmatch(key, pattern) for pattern in patterns)


def coerced(key: str, value: Any, default: Any, text: str) -> Any:
    """`value` as the type of the key's default, where nothing is lost by it; a null default takes
    anything.

    Args:
        text: the value as the user wrote it, for a key that holds text.

    Raises:
        UserError: the value does not fit.
    """
    if default is None or is_interpolation(value) or is_interpolation(default) or value == "???":
        return value
    if isinstance(default, bool):
        fits = isinstance(value, bool)
    elif isinstance(default, int):
        fits = _is_number(value) and float(value).is_integer()
        value = int(value) if fits else value
    elif isinstance(default, float):
        fits = _is_number(value)
        value = float(value) if fits else value
    elif isinstance(default, str):
        fits = value is None or isinstance(value, (str, int, float))
        value = text if fits and not isinstance(value, (str, type(None))) else value
    elif isinstance(default, dict):
        fits = value is None or isinstance(value, dict)
    else:
        fits = isinstance(value, type(default))
    if not fits:
        if isinstance(default, dict) and "name" in default:
            raise UserError(
                f"{key}={text}: it takes {_kind(default)}. Did you mean {key}.name={text}?"
            )
        raise UserError(f"{key}={text}: it takes {_kind(default)} (default: {_shown(default)}).")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_interpolation(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _kind(default: Any) -> str:
    kinds = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list: [a,b]",
        dict: "a dict: {key: value}",
    }
    return kinds.get(type(default), type(default).__name__)


def _shown(value: Any) -> str:
    return (
        {True: "true", False: "false"}.get(value, str(value))
        if isinstance(value, bool)
        else str(value)
    )


def differences(base: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Delta:
    """Dotted keys of `other` whose value is not that of `base`, as stock Dora lists them.

    A key that is gone is listed as `~key`.
    """
    delta: Delta = []
    for key in [*base, *(key for key in other if key not in base)]:
        path = f"{prefix}{key}"
        if key not in other:
            delta.append((f"~{path}", None))
        elif key in base and isinstance(base[key], Mapping) and isinstance(other[key], Mapping):
            delta += differences(base[key], other[key], f"{path}.")
        elif key not in base or not _equal(base[key], other[key]):
            delta.append((path, other[key]))
    return delta


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, where a NaN equals a NaN."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other or (one != one and other != other)


def _equal(one: Any, other: Any) -> bool:
    return (
        type(one) is type(other)
        and one == other
        or (_is_number(one) and _is_number(other) and one == other)
    )
