"""The values that an experiment was made with, compared with those of today.

Values that count in the signature are frozen when the experiment is made. `lookup.py` and
`experiments.py` ask here for the frozen values, and for the keys that have another value now.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dora.conf import DoraConfig, SlurmConfig

from .. import environment
from ..config.compose import RULE
from ..config.values import (
    flatten,
    is_excluded,
    merged,
    never_counts,
    same,
    split,
    unflatten,
)
from .folder import Experiment
from .records import Birth
from .xp import XP

Stored = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass
class Drift:
    """A key whose value would now be another one than when the experiment was made."""

    key: str
    was: Any
    now: Any  # None with `gone`
    gone: bool = False

    def __str__(self) -> str:
        now = "is gone" if self.gone else f"is {self.now} now"
        return f"{self.key} was {self.was}; it {now}"


class FrozenValues:
    """The values that experiments were made with.

    Args:
        dora: Dora's own settings. `dora.exclude` has the patterns of the keys that do not count.
        as_stored: adds keys to the configuration of an older experiment, see `hydra_main`.
    """

    def __init__(self, dora: DoraConfig, as_stored: Stored):
        self.dora, self.as_stored = dora, as_stored

    def counted(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a configuration that counts in the signature."""
        return split(config, self.dora.exclude)[0]

    def of(self, xp: XP, birth: Birth) -> Mapping[str, Any]:
        """The values that count, as the experiment was made with them.

        Keys that are younger than the experiment have the values that it did or first ran with.
        """
        config = self.stored(birth)
        known = {key for key, _ in flatten(config)}
        # Mostly there is no younger key: then no more files are read.
        if all(key in known for key, _ in flatten(self.counted(xp.values))):
            return config
        added: dict[str, Any] = {}
        for start in Experiment(xp.folder).starts():
            added = start.added | added
        return merged(unflatten(list(added.items())), config)

    def stored(self, birth: Birth) -> Mapping[str, Any]:
        """The values of a birth, without empty sections whose keys do not count.

        An older version stored such sections: `sbatch: {}`. They must not hide the keys of today.
        """
        config = self.as_stored(birth.config)
        for key, value in list(flatten(config)):
            if value == {} and never_counts(key, self.dora.exclude):
                config = _without(config, key.split("."))
        return config

    def restore(self, xp: XP, birth: Birth) -> None:
        """Leave `xp` with the values that the experiment was made with."""
        xp.values = merged(xp.values, self.of(xp, birth)) | birth.fixed

    def drift(self, xp: XP, birth: Birth | None) -> list[Drift]:
        """The keys that were frozen with another value than `xp` has now.

        A key that `dora.exclude` has taken in since does not count.

        Args:
            birth: of the stored experiment. None if there is none: then there is no drift.

        Raises:
            UserError: by chance, another experiment has the same signature.
        """
        if birth is not None and birth.rule <= RULE:
            xp.refuse_collision(birth.delta)
        # The user may ask to continue with the frozen values.
        if birth is None or environment.frozen_values_asked():
            return []
        if _is_frozen(birth.config, xp.values, tuple(self.dora.exclude)):
            return []
        known = {key for key, _ in flatten(birth.config)}
        younger = {key for key, _ in flatten(self.as_stored(birth.config))} - known
        now = self.counted(xp.values)
        return _differing(self.of(xp, birth), now, self.dora.exclude, younger)

    def added(self, xp: XP, birth: Birth | None) -> dict[str, Any]:
        """The keys that the configuration did not have yet when the experiment last ran, and their
        values."""
        if birth is None:
            return {}
        frozen = dict(flatten(self.of(xp, birth)))
        counted = flatten(self.counted(xp.values))
        return {key: value for key, value in counted if key not in frozen}


def _without(config: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """The same configuration without one key, given as its parents and its own name."""
    first, *rest = path
    if first not in config:
        return config
    copied = dict(config)
    if rest and isinstance(copied[first], Mapping):
        copied[first] = _without(copied[first], rest)
    elif not rest:
        del copied[first]
    return copied


def _is_frozen(
    config: Mapping[str, Any], values: Mapping[str, Any], exclude: Sequence[str], prefix: str = ""
) -> bool:
    """Whether `config` has exactly the values that count, and each is the same.

    Mostly it is so, and then nothing else needs to be compared.
    """
    if not config.keys() <= values.keys():
        return False
    for key, value in values.items():
        if key in config and config[key] == value:
            continue
        frozen = config.get(key, {})
        if isinstance(value, Mapping) and isinstance(frozen, Mapping) and value:
            if not _is_frozen(frozen, value, exclude, f"{prefix}{key}."):
                return False
        elif key in config or not is_excluded(f"{prefix}{key}", exclude):
            return False
    return True


def _differing(
    frozen: Mapping[str, Any],
    counted: Mapping[str, Any],
    exclude: Sequence[str],
    younger: Collection[str],
) -> list[Drift]:
    """The drift of values.

    Args:
        frozen: as `FrozenValues.of` gives them.
        counted: the values of today that count.
        exclude: patterns of the keys that do not count today.
        younger: keys that `as_stored` has added. They have the value that they always had.
    """
    now = dict(flatten(counted))
    found = []
    for key, was in flatten(frozen):
        if is_excluded(key, exclude) or key in younger:
            continue
        if key in now and same(now[key], was):
            continue
        # An empty dict has got keys.
        start, below = f"{key}.", {}
        for name, value in now.items():
            if name.startswith(start):
                below[name.removeprefix(start)] = value
        today = now.get(key, below or None)
        found.append(Drift(key, was, today, key not in now and not below))
    return found


def values_of_a_job(
    values: Mapping[str, Any], slurm: SlurmConfig, birth: Birth | None
) -> dict[str, Any]:
    """The values that a job takes from its submission.

    These are the values that do not count, as they are now. Keys that are younger than the
    experiment are among them, with their defaults.

    Args:
        values: the configuration as it is now.
        slurm: the resources that the job gets.
        birth: of the experiment. None if it is not stored yet.
    """
    frozen: dict[str, Any] = {}
    if birth is not None:
        frozen = dict(flatten(birth.config))
    now = dict(values) | {"slurm": asdict(slurm)}
    # No run reads it. An address may hold a password, and others may read the files of a job.
    now.pop("notify", None)
    return unflatten([(key, value) for key, value in flatten(now) if key not in frozen])
