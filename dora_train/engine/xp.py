"""Dora's XP, with its configuration as plain values: a grid holds thousands, and most are only looked at."""

from collections.abc import Mapping, Sequence
from typing import Any

import dora.xp
from dora.conf import DoraConfig
from omegaconf import OmegaConf

from .signature import Delta


class XP(dora.xp.XP):
    """An experiment as a command knows it: what `dora.get_xp()` gives.

    Args:
        values: the configuration as plain Python, interpolations resolved.
        sig: where it is known already.
    """

    def __init__(self, dora: DoraConfig, values: Mapping[str, Any], argv: Sequence[str], delta: Delta | None = None,
                 sig: str | None = None):
        self.values = values
        super().__init__(dora, None, list(argv), delta, sig)

    @property
    def values(self) -> Mapping[str, Any]:
        """Ten times smaller than the DictConfig of the same keys, and ten times as fast to make."""
        return self._values

    @values.setter
    def values(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._cfg: Any = None

    @property
    def cfg(self) -> Any:
        """`values` as the DictConfig that `main` is given; made when it is first asked for."""
        if self._cfg is None:
            self._cfg = OmegaConf.create(dict(self._values))
        return self._cfg

    @cfg.setter
    def cfg(self, cfg: Any) -> None:  # Dora's own __init__ sets one
        self._cfg = cfg
