"""The words of a command as Hydra's parser reads them: `optim.lr=0.1`, `data=mnist`, `+a.b=8`."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ..errors import UserError, did_you_mean, refuse_undecoded


def parse(texts: Sequence[str], known: Callable[[], Sequence[str]]) -> list[Override]:
    """Each key once: the last one counts.

    Args:
        known: the keys and groups there are, for a hint.

    Raises:
        UserError: a word that is no override, or one of several values.
    """
    last: dict[str, Override] = {}
    for text in texts:
        override = _parse_one(text, known)
        last.pop(override.key_or_group, None)
        last[override.key_or_group] = override
    return list(last.values())


def _parse_one(text: str, known: Callable[[], Sequence[str]]) -> Override:
    refuse_undecoded(text, "for a path, make a link with another name")
    if "=" not in text and not text.startswith("~"):
        hint = "" if text in known() else did_you_mean(text, known())[1:]
        raise UserError(f'"{text}" has no value: write {text or "KEY"}=VALUE.{hint}')
    try:
        override = _read(_quoted_if_foreign(text))
    except HydraException as error:
        reason = (
            str(error).splitlines()[0].partition(" expecting ")[0]
        )  # its list of tokens helps nobody
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


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@lru_cache(maxsize=10_000)
def _read(text: str) -> Override:
    """0.1 ms, and the experiments of a grid have most of their overrides in common.

    Raises:
        HydraException: it cannot be read.
    """
    return _parser().parse_override(text)


def _quoted_if_foreign(text: str) -> str:
    """`tag=é` as `tag='é'`: Hydra's grammar knows ASCII only outside quotes."""
    key, _, value = text.partition("=")
    if value.isascii() or any(letter in value for letter in "\"'[]{}\\"):
        return text
    return f"{key}='{value}'"


def option(override: Override) -> Any:
    """The file that an override chooses; None: none (`debug=null`, `~debug`, `debug=[]`)."""
    return None if override.is_delete() else override.value() or None


def set_before_delete(override: Override) -> bool:
    """To sort by. Values first: `~optim optim.lr=1` and its reverse are the same experiment."""
    return override.is_delete()
