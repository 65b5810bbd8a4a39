"""The names of experiments in the table of their grid: first the values that tell them apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..experiment.xp import XP

SEED = "seed"
MISSING = object()  # what an experiment has for a key that it does not have. None is a value


class Naming(Protocol):
    """The part of Dora's API that a project can override to name its experiments."""

    def get_name_parts(self, xp: XP) -> Mapping[str, Any]: ...

    def short_name_part(self, key: str, value: Any) -> str: ...


def names(naming: Naming, xps: Sequence[XP]) -> tuple[list[str], str]:
    """A name for each experiment, and the values that all of them share.

    As Dora's `get_names`, but the keys of a name are in the order of how many experiments they tell
    apart. The seed comes last. It says nothing of a setting.
    """
    parts = [dict(naming.get_name_parts(xp)) for xp in xps]
    apart: dict[str, int] = {}  # how many pairs of experiments each key tells apart
    for key in dict.fromkeys(key for one in parts for key in one):
        counts = Counter(repr(one.get(key, MISSING)) for one in parts)
        apart[key] = len(parts) ** 2 - sum(count**2 for count in counts.values())
    keys = sorted(apart, key=lambda key: (key == SEED, -apart[key]))
    shared = [key for key in apart if not apart[key]]
    found = []
    for one in parts:
        own = [key for key in keys if key in one and apart[key]]
        found.append(" ".join(naming.short_name_part(key, one[key]) for key in own))
    base = [naming.short_name_part(key, parts[0][key]) for key in shared]
    return found, " ".join(base)
