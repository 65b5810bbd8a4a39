"""The record of a new experiment, `birth.json`. `experiments.py` stores it."""

import socket
import sys
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .. import VERSION
from ..config.defaults import with_defaults
from . import claims
from .code import Code
from .origin import Find, locate, sha256
from .records import Birth
from .xp import XP

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "dora-search", "submitit")


def birth_of(xp: XP, counted: Mapping[str, Any], code: Code, find: Find) -> Birth:
    """The birth of an experiment that is made now.

    Args:
        counted: the values of `xp` that count in its signature.
        code: the project's code as the command found it.
        find: from a signature to its experiment.

    Raises:
        UserError: `continue_from` names a file that is not there.
    """
    return Birth(
        sig=xp.sig,
        argv=list(xp.argv),
        delta=[list(pair) for pair in xp.delta or []],
        config=dict(counted),
        rule=xp.rule,
        threads=xp.values.get("threads") or 1,
        code=code.stored(),
        versions=versions(),
        born=time.time(),
        host=socket.gethostname(),
        user=claims.user_name(),
        origin=_origin(xp.values.get("continue_from") or "", find),
        groups=dict(xp.groups),
        deterministic=bool(with_defaults(xp.values)["deterministic"]),
    )


def _origin(given: str, find: Find) -> dict[str, str]:
    """The file that `continue_from` names, as a birth stores it."""
    path = locate(given, find)
    if path is None:
        return {}
    return {"given": given, "file": path.name, "sha256": sha256(path)}


@cache
def versions() -> dict[str, str]:
    """The versions of this project, of Python and of the main packages, without importing them."""
    found = {"dora_train": VERSION, "python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
