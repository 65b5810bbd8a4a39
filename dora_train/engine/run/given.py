"""What `main` gave to `train` as data, as loaders for Lightning.

It may be a LightningDataModule; or an object with `train` and maybe `valid` and `test`; or None, if
the LightningModule brings its own loaders. Each of these may be a loader, or several. trainer.py is
the one user.
"""

import functools
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from ... import counters
from .exact_loader import batches_from
from .loaders import EvalLoader, TrainLoader, each_loader
from .ranks import Ranks

HOOKS = {"train": "train_dataloader", "valid": "val_dataloader", "test": "test_dataloader"}


class Loaders:
    """Makes loaders of whatever stands for a split.

    Args:
        settings: `batch_size` and `num_workers`, for a Dataset without a loader.
        overfits: training and validation both have the first batches of the training set.
        say: told if a resume is slow.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        ranks: Ranks,
        seed: int,
        settings: Any,
        overfits: bool,
        say: Callable[[str], None],
    ):
        self.trainer, self.ranks, self.overfits = trainer, ranks, overfits
        self.seed, self.settings, self.say = seed, settings, say

    def of(self, split: str, source: Any, draws_as: str = "") -> Any:
        """Args: draws_as: the split whose order and draws it has, if it is another one."""
        return each_loader(source, functools.partial(self._loader, split, draws_as or split))

    def _loader(self, split: str, draws_as: str, source: Any, number: int) -> Any:
        purpose = f"{draws_as} {number}" if number else draws_as
        batches = batches_from(
            source, counters.seed_cpu, self.seed, purpose, self.settings, self.say
        )
        if split == "train":
            return TrainLoader(batches, self.ranks, self.trainer, self.overfits)
        return EvalLoader(batches, self.ranks)


class Splits:
    """An object with `train`, and maybe `valid` and `test`."""

    def __init__(self, data: Any, loaders: Loaders):
        self.data, self.loaders = data, loaders
        self.train = loaders.of("train", data.train)
        self.valid = self._valid()
        self.test = None
        if getattr(data, "test", None) is not None:
            self.test = loaders.of("test", data.test)

    def _valid(self) -> Any:
        if self.loaders.overfits:
            return self.loaders.of("valid", self.data.train, draws_as="train")
        source = getattr(self.data, "valid", None)
        return None if source is None else self.loaders.of("valid", source)

    def to_fit(self) -> dict[str, Any]:
        """Keywords of `Trainer.fit`."""
        return {"train_dataloaders": self.train, "val_dataloaders": self.valid}

    def to_test(self) -> dict[str, Any] | None:
        """Keywords of `Trainer.test`; None if there is no test set."""
        return None if self.test is None else {"dataloaders": self.test}

    def lengths(self) -> dict[str, int | None]:
        """Batches of each split that has one loader; None if nobody knows."""
        return {name: _length(getattr(self, name)) for name in HOOKS}


class Hooks:
    """A LightningDataModule, or a LightningModule, whose loaders come from its hooks.

    Lightning asks for them when the data are set up. So the hooks of this one object are replaced.
    """

    def __init__(self, owner: Any, loaders: Loaders):
        self.owner, self.loaders = owner, loaders
        given = {name: getattr(owner, hook) for name, hook in HOOKS.items()}
        self.has_test = is_overridden(HOOKS["test"], owner)
        for split, hook in HOOKS.items():
            if is_overridden(hook, owner):
                setattr(owner, hook, self._made(split, given))

    def _made(self, split: str, given: dict[str, Any]) -> Callable[[], Any]:
        def loader() -> Any:
            if split == "valid" and self.loaders.overfits:
                return self.loaders.of(split, given["train"](), draws_as="train")
            return self.loaders.of(split, given[split]())

        return loader

    def _argument(self) -> dict[str, Any]:
        is_module = isinstance(self.owner, pl.LightningModule)
        return {} if is_module else {"datamodule": self.owner}

    def to_fit(self) -> dict[str, Any]:
        return self._argument()

    def to_test(self) -> dict[str, Any] | None:
        return self._argument() if self.has_test else None

    def lengths(self) -> dict[str, int | None]:
        """Unknown until Lightning sets the data up."""
        return dict.fromkeys(HOOKS)


def given(module: pl.LightningModule, data: Any, loaders: Loaders) -> Splits | Hooks:
    """The data that `train` was given, as loaders."""
    if data is None:
        return Hooks(module, loaders)
    if isinstance(data, pl.LightningDataModule):
        return Hooks(data, loaders)
    return Splits(data, loaders)


def described(data: Any) -> str:
    """In words, for the second line of a run."""
    if data is None:
        return "its own data"
    has_words = type(data).__str__ is not object.__str__
    is_module = isinstance(data, pl.LightningDataModule)
    return str(data) if has_words and not is_module else type(data).__name__


def _length(loader: Any) -> int | None:
    try:
        return len(loader) if hasattr(loader, "share") else None
    except TypeError:
        return None
