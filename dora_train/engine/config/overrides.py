"""The overrides of a command as Hydra's parser reads them: `optim.lr=0.1`, `data=mnist`, `+a.b=8`."""

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from hydra.errors import HydraException

from ..errors import UserError, did_you_mean, refuse_undecoded

LISTS = ("local.gpus",)  # keys whose list is written as in CUDA_VISIBLE_DEVICES


def parse(texts: Sequence[str], known: Callable[[], Sequence[str]]) -> list[Override]:
    """The overrides, each key once. Of several overrides of one key, the last one counts.

    Args:
        known: gives the keys and groups that there are, for a hint.

    Raises:
        UserError: a text that is no override, or an override with several values.
    """
    last: dict[str, Override] = {}
    for text in texts:
        override = _parse_one(text, known)
        last.pop(
            override.key_or_group, None
        )  # else the key would keep its first place in the order
        last[override.key_or_group] = override
    return list(last.values())


def _parse_one(text: str, known: Callable[[], Sequence[str]]) -> Override:
    refuse_undecoded(text, "for a path, make a link with another name")
    if "=" not in text and not text.startswith("~"):
        hint = ""
        if text not in known():
            hint = did_you_mean(text, known())[1:]
        raise UserError(f'"{text}" has no value: write {text or "KEY"}=VALUE.{hint}')
    try:
        override = _read(_quoted_if_foreign(text))
    except HydraException as error:
        # Hydra's list of the tokens that it expects does not help a user.
        reason = str(error).splitlines()[0].partition(" expecting ")[0]
        raise UserError(
            f'cannot read "{text}": {reason}', "quote special letters, e.g. 'tag=\"a, b\"'"
        ) from error
    if not override.key_or_group:
        raise UserError(f'"{text}" names no key: write KEY=VALUE.')
    if override.is_sweep_override():
        raise UserError(
            f'"{text}" names several values; one run takes one.',
            "a list is written [a,b]; to run several, write a grid (grids/mysweep.py)",
        )
    return override


# A key and a plain number. Their meaning in Hydra's grammar is Python's own.
NUMBER = re.compile(
    r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=(-?(?:0|[1-9]\d*))(\.\d+)?(e-?\d+)?", re.ASCII
)


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@lru_cache(maxsize=10_000)
def _read(text: str) -> Override:
    """An override as Hydra's parser reads it.

    Cached: it takes 0.1 ms, and the experiments of a grid have most of their overrides in common.
    What they do not have in common is mostly a number, which needs no grammar.

    Raises:
        HydraException: it cannot be read.
    """
    if number := NUMBER.fullmatch(text):
        key, whole, fraction, exponent = number.groups("")
        kind = float if fraction or exponent else int
        value = kind(whole + fraction + exponent)
        return Override(OverrideType.CHANGE, key, ValueType.ELEMENT, value, input_line=text)
    return _parser().parse_override(text)


def _quoted_if_foreign(text: str) -> str:
    """`tag=é` as `tag='é'`: outside quotes, Hydra's grammar knows ASCII only.

    So is a key of `LISTS`: to Hydra, `2,3` are several values.
    """
    key, _, value = text.partition("=")
    if key.lstrip("+") in LISTS and "," in value and value[0] not in "\"'[":
        return f"{key}=[{value}]"
    if value.isascii() or any(letter in value for letter in "\"'[]{}\\"):
        return text
    return f"{key}='{value}'"


def option(override: Override) -> Any:
    """The file that an override of a group chooses. None: no file (`debug=null`, `~debug`,
    `debug=[]`)."""
    if override.is_delete():
        return None
    value = override.value() or None  # false and 0 stand for no file, too
    if isinstance(value, (bool, int, float)):  # a file may have the name 2026
        return str(override.input_line).partition("=")[2].strip()
    return value


def choice_of(override: Override) -> str:
    """An override of a group, as Hydra takes it. A name that reads as a number is quoted."""
    text = str(override.input_line)
    if isinstance(override.value(), (bool, int, float)):
        key, _, name = text.partition("=")
        return choice(key, name.strip())
    return text


def choice(group: str, name: object) -> str:
    """The override that chooses a file of a group, whatever its name is."""
    if isinstance(name, str) and _reads_as_a_number(name):
        return f"{group}='{name}'"
    return f"{group}={name}"


@lru_cache(maxsize=1000)
def _reads_as_a_number(name: str) -> bool:
    try:
        value = OverridesParser.create().parse_override(f"a={name}").value()
    except HydraException:
        return False
    return isinstance(value, (bool, int, float))


def set_before_delete(override: Override) -> bool:
    """A key to sort overrides by, which puts those that remove a key last.

    So `~optim optim.lr=1` and `optim.lr=1 ~optim` are the same experiment.
    """
    return override.is_delete()
