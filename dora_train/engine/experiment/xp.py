"""Dora's XP with its configuration as plain values, and its Link to the history.

A grid holds thousands of them, and most are only shown: plain values are small. The Link only reads
the history, as `history.json` is a copy of the history in the checkpoints.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import dora.link
import dora.xp
from dora.conf import DoraConfig
from omegaconf import DictConfig, OmegaConf

from ..config.defaults import with_defaults
from ..config.values import Delta
from ..errors import UserError
from .folder import CODES, Experiment


class Link(dora.link.Link):
    """The metrics so far: `xp.link`."""

    def __init__(self, history_file: Path):
        self.history_file = history_file

    @property
    def history(self) -> list[dict]:  # type: ignore[override]
        """One entry per epoch, as `history.json` has them now."""
        return Experiment(self.history_file.parent).history()  # type: ignore[union-attr]

    def load(self) -> None:
        """Do nothing: `history` reads the file each time."""

    def push_metrics(self, metrics: dict) -> NoReturn:
        """Refuse, see `_refuse_to_write`."""
        _refuse_to_write("push_metrics")

    def update_history(self, history: list[dict]) -> NoReturn:
        """Refuse, see `_refuse_to_write`."""
        _refuse_to_write("update_history")


def _refuse_to_write(name: str) -> NoReturn:
    """Refuse to write the history. A resume would lose an entry that is in no checkpoint.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"xp.link.{name}() is not supported: the history is kept in the checkpoints, so that a resume has it too.",
        'return the metric from training_step or validation_step, or self.log("valid/NAME", value)',
    )


class XP(dora.xp.XP):
    """An experiment as a command knows it. `dora.get_xp()` gives it.

    Args:
        values: the configuration as plain Python, interpolations resolved.
        sig: the signature, if it is known already.
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
        # The option of each group of the configuration. Empty: not known.
        self.groups: Mapping[str, Any] = {}
        self.rule = 0  # the version of the signature's rule (compose.py). 0: not known
        super().__init__(dora, None, argv, delta, sig)  # type: ignore[arg-type]  # FrozenArgv too
        self.link = Link(self.history)

    @property
    def code_folder(self) -> Path:
        """The code of its last job. The working directory if there was no job."""
        job = Experiment(self.folder).job()
        if job is not None:
            snapshot = self.dora.dir / CODES / str(job.code.get("hash") or "-")
            if snapshot.is_dir():
                return snapshot
        return Path(".")

    def refuse_collision(self, delta: Iterable[Sequence[Any]]) -> None:
        """Refuse an experiment whose signature belongs to another one by chance.

        A signature has 32 bits: among 100,000 experiments about one pair shares one.

        Args:
            delta: of an experiment with the same signature.

        Raises:
            UserError: the differences are not those of this experiment.
        """
        own = self.delta or []
        if delta is own or repr(delta) == repr(own):  # mostly, and then nothing need be sorted
            return
        if _sorted(delta) != _sorted(own):
            other = " ".join(f"{key}={value}" for key, value in delta) or "(the defaults)"
            raise UserError(
                f"XP {self.sig} is the name of another experiment already: {other}. That is chance "
                "(a signature has 32 bits).",
                "make another name: tag=WORD",
            )

    @property
    def values(self) -> Mapping[str, Any]:
        """The configuration as plain Python.

        It is ten times smaller than the DictConfig of the same keys, and ten times as fast to make.
        """
        return self._values

    @values.setter
    def values(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._cfg: Any = None

    @property
    def cfg(self) -> Any:
        """`values` as the DictConfig that `main` receives. It is made when it is first needed.

        It has all keys of the engine. A key that the configuration lacks has its default.
        """
        if self._cfg is None:
            self._cfg = OmegaConf.create(with_defaults(self._values))
        return self._cfg

    @cfg.setter
    def cfg(self, cfg: DictConfig | None) -> None:  # Dora's own __init__ sets one
        self._cfg = cfg


def _sorted(delta: Iterable[Sequence[Any]]) -> list[str]:
    """The differences in a form that is the same for a stored delta and for a new one."""
    return sorted(json.dumps(list(pair), default=str) for pair in delta)
