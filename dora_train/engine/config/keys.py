"""What a key of the configuration takes: whether it is there, and whether a value fits it.

Overrides (compose.py) and recipes (recipes.py) are held to the same rules. Works on plain nested
dicts.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import UserError, did_you_mean, near, shortened
from .values import coerced, flatten, is_interpolation

MISSING = object()


def at(config: Any, key: str) -> Any:
    """The value at a dotted key, or `MISSING`."""
    for part in key.split("."):
        config = config.get(part, MISSING) if isinstance(config, Mapping) else MISSING
    return config


def is_open(defaults: Mapping[str, Any], key: str) -> bool:
    """Whether `key` lies below one whose default is `{}`: such a dict takes any keyword."""
    return any(at(defaults, parent) == {} for parent in _parents(key))


def has_no_room(config: Mapping[str, Any], key: str) -> bool:
    """Whether `key` lies below one that holds a value: a dict would take that value's place."""
    held = [at(config, parent) for parent in _parents(key)]
    return any(
        value is not None and value is not MISSING and not isinstance(value, Mapping)
        for value in held
    )


def takes_a_dict(defaults: Mapping[str, Any], key: str) -> bool:
    """Whether `key` lies below one whose default is blank: that takes a dict as well as a value."""
    return any(at(defaults, parent) is None for parent in _parents(key))


def _parents(key: str) -> list[str]:
    """`["a", "a.b"]` for `a.b.c`."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def unknown(key: str, config: Mapping[str, Any], groups: Iterable[str] = ()) -> UserError:
    """The error for a key that `config` does not have.

    Args:
        groups: of the configuration: their names can be overridden like keys.
    """
    known = [name for name, _ in flatten(config)]
    section = key.rpartition(".")[0]
    has = at(config, section)
    if section and isinstance(has, Mapping):
        valid = f"{section} has: {shortened(has)}."
    else:
        sections = sorted({*config, *(group for group in groups if "/" not in group)})
        valid = "" if near(key, known) else f"the keys are: {shortened(sections, 30)}."
    return UserError(f'unknown key "{key}"{did_you_mean(key, [*known, *groups])}', valid)


# Keys whose null means something, though their default is a number.
MAY_BE_NULL = ("trainer.check_val_every_n_epoch",)  # val_check_interval counts on over the epochs


def fitted(key: str, value: Any, default: Any, text: str) -> Any:
    """`value` as the type of the key's default, within dicts key by key.

    Args:
        text: the value as the user wrote it.

    Raises:
        UserError: it does not fit, or a dict has a key that the default lacks.
    """
    if value is None and key in MAY_BE_NULL:
        return None
    if not (isinstance(default, dict) and isinstance(value, dict)):
        return coerced(key, value, default, text)
    if not default:
        return value
    for name in value:
        if name not in default:
            path = f"{key}.{name}"
            raise UserError(
                f'unknown key "{path}"{did_you_mean(path, [f"{key}.{name}" for name in default])}'
            )
    return {
        name: fitted(f"{key}.{name}", inner, default[name], str(inner))
        for name, inner in value.items()
    }


def refuse_names(key: str, value: Any, text: str) -> None:
    """Raises: UserError if a dict in `value` has a key that JSON would give back as another one."""
    if isinstance(value, list):
        for inner in value:
            refuse_names(key, inner, text)
    if not isinstance(value, Mapping):
        return
    for name, inner in value.items():
        if not isinstance(name, str) or "." in name:
            raise UserError(f"{key}={text}: the key {name!r} of a dict must be text without a dot.")
        refuse_names(key, inner, text)


def holds_interpolation(value: Any) -> bool:
    """Whether `${...}` stands anywhere in `value`."""
    if isinstance(value, Mapping):
        return any(holds_interpolation(inner) for inner in value.values())
    if isinstance(value, list):
        return any(holds_interpolation(inner) for inner in value)
    return is_interpolation(value)
