"""Dora's XP, with its configuration as plain values: a grid holds thousands, and most are only
looked at.

And its Link to the history, which here is read: `history.json` is a copy of what the checkpoints
hold.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import dora.link
import dora.xp
from dora.conf import DoraConfig
from omegaconf import OmegaConf

from ..config.defaults import with_defaults
from ..config.values import Delta
from ..errors import UserError
from .folder import CODES, Experiment


class Link(dora.link.Link):
    """What `xp.link` is: the metrics so far."""

    def __init__(self, history_file: Path):
        self.history_file = history_file

    @property
    def history(self) -> list[dict]:  # type: ignore[override]
        """One entry per epoch, as they are on disk now."""
        return Experiment(self.history_file.parent).history()  # type: ignore[union-attr]

    def load(self) -> None:
        """Nothing: `history` is always of now."""

    def push_metrics(self, metrics: dict) -> NoReturn:
        """Raises: UserError, always; see `_not_written`."""
        _not_written("push_metrics")

    def update_history(self, history: list[dict]) -> NoReturn:
        """Raises: UserError, always; see `_not_written`."""
        _not_written("update_history")


def _not_written(name: str) -> NoReturn:
    """Refuse to write the history: an entry that is in no checkpoint would be lost by a resume.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"xp.link.{name}() is not supported: the history is kept in the checkpoints, so that a resume has it too.",
        'return the metric from training_step or validation_step, or self.log("valid/NAME", value)',
    )


class XP(dora.xp.XP):
    """An experiment as a command knows it: what `dora.get_xp()` gives.

    Args:
        values: the configuration as plain Python, interpolations resolved.
        sig: where it is known already.
    """

    def __init__(
        self,
        dora: DoraConfig,
        values: Mapping[str, Any],
        argv: Sequence[str],
        delta: Delta | None = None,
        sig: str | None = None,
    ):
        self.values = values
        # the option of each group of the configuration; empty: not known
        self.groups: Mapping[str, Any] = {}
        self.rule = 0  # that its signature follows: see compose.py; 0: not known
        super().__init__(dora, None, argv, delta, sig)  # type: ignore[arg-type]  # a list, and more than that
        self.link = Link(self.history)

    @property
    def code_folder(self) -> Path:
        """The code of its last job; the working directory for one that never was a job."""
        job = Experiment(self.folder).job()
        snapshot = self.dora.dir / CODES / str(job.code.get("hash") or "-") if job else None
        return snapshot if snapshot is not None and snapshot.is_dir() else Path(".")

    def refuse_collision(self, delta: Iterable[Sequence[Any]]) -> None:
        """A signature has 32 bits: of 100,000 experiments, one pair is to be expected that shares
        one by chance.

        Args:
            delta: of an experiment with the same signature.

        Raises:
            UserError: it is another one.
        """
        if _sorted(delta) != _sorted(self.delta or []):
            other = " ".join(f"{key}={value}" for key, value in delta) or "(the defaults)"
            raise UserError(
                f"XP {self.sig} is the name of another experiment already: {other}. That is chance "
                "(a signature has 32 bits).",
                "make another name: tag=WORD",
            )

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
        """`values` as the DictConfig that `main` is given; made when it is first asked for.

        It has each key of the engine: one that the configuration lacks has its default.
        """
        if self._cfg is None:
            self._cfg = OmegaConf.create(with_defaults(self._values))
        return self._cfg

    @cfg.setter
    def cfg(self, cfg: Any) -> None:  # Dora's own __init__ sets one
        self._cfg = cfg


def _sorted(delta: Iterable[Sequence[Any]]) -> list[str]:
    """Comparable, whether it was stored or not."""
    return sorted(json.dumps(list(pair), default=str) for pair in delta)
