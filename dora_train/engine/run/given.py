"""The data that `main` gave to `train`, as loaders for Lightning.

They may be a LightningDataModule, an object with `train` and maybe `valid` and `test`, or None if
the LightningModule brings its own loaders. Each of these may be one loader or several. trainer.py
is the one user.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from ... import counters
from ..upstream.lightning import repeats
from .exact_loader import batches_from
from .loaders import EvalLoader, Loader, TrainLoader, each_loader
from .ranks import Ranks

HOOKS = {"train": "train_dataloader", "valid": "val_dataloader", "test": "test_dataloader"}


class HasTrain(Protocol):
    """An object with the data of each split. It may also have `valid` and `test`."""

    train: Any


Data = HasTrain | pl.LightningDataModule | None


class Loaders:
    """Makes our loaders of the data of a split.

    Args:
        settings: `batch_size` and `num_workers`, for a Dataset without a loader.
        overfits: training and validation both have the first batches of the training set.
        say: called with a line if a resume is slow.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        ranks: Ranks,
        seed: int,
        settings: Mapping[str, Any],
        overfits: bool,
        say: Callable[[str], None],
    ):
        self.trainer, self.ranks, self.overfits = trainer, ranks, overfits
        self.seed, self.settings, self.say = seed, settings, say

    def of(self, split: str, source: object, draws_as: str = "") -> object:
        """Return the loader, or the loaders, of a split.

        Args:
            draws_as: the split whose order and draws it has, if that is another one.
        """
        make = functools.partial(self._loader, split, draws_as or split, repeats(source))
        return each_loader(source, make)

    def _loader(
        self, split: str, draws_as: str, is_repeated: bool, source: object, number: int
    ) -> Loader:
        # The first loader has no number, so that a single one draws as it always did.
        purpose = draws_as
        if number:
            purpose = f"{draws_as} {number}"
        batches = batches_from(
            source, counters.seed_cpu, self.seed, purpose, self.settings, self.say
        )
        if split == "train":
            return TrainLoader(batches, self.ranks, self.trainer, self.overfits, is_repeated)
        return EvalLoader(batches, self.ranks)


class Splits:
    """The loaders of an object with `train`, and maybe `valid` and `test`."""

    def __init__(self, data: HasTrain, loaders: Loaders):
        self.train = loaders.of("train", data.train)
        self.valid = self.test = None
        # Whether it overfits is seen on the batches that it trains on.
        if loaders.overfits:
            self.valid = loaders.of("valid", data.train, draws_as="train")
        elif (valid := getattr(data, "valid", None)) is not None:
            self.valid = loaders.of("valid", valid)
        if (test := getattr(data, "test", None)) is not None:
            self.test = loaders.of("test", test)

    def to_fit(self) -> dict[str, Any]:
        """Return the keywords of `Trainer.fit`."""
        return {"train_dataloaders": self.train, "val_dataloaders": self.valid}

    def to_test(self) -> dict[str, Any] | None:
        """Return the keywords of `Trainer.test`, or None if there is no test set."""
        return None if self.test is None else {"dataloaders": self.test}

    def lengths(self) -> dict[str, int | None]:
        """Return the batches of each split. None if it has several loaders, or no known length."""
        return {name: _length(getattr(self, name)) for name in HOOKS}


class Hooks:
    """A LightningDataModule, or a LightningModule, whose loaders come from its hooks.

    Lightning calls these hooks once the data are set up, which it does itself. So this one object
    gets other hooks, which make our loaders of what its own hooks return.
    """

    def __init__(self, owner: pl.LightningModule | pl.LightningDataModule, loaders: Loaders):
        self.owner, self.loaders = owner, loaders
        # All of them before the first is replaced: to overfit, the validation asks for `train`.
        given = {name: getattr(owner, hook) for name, hook in HOOKS.items()}
        self.has_test = is_overridden(HOOKS["test"], owner)
        for split, hook in HOOKS.items():
            if is_overridden(hook, owner):
                setattr(owner, hook, self._made(split, given))

    def _made(self, split: str, given: dict[str, Callable[[], object]]) -> Callable[[], object]:
        """Return a hook that makes our loaders of what a hook of the owner returns."""

        def loader() -> object:
            if split == "valid" and self.loaders.overfits:
                return self.loaders.of(split, given["train"](), draws_as="train")
            return self.loaders.of(split, given[split]())

        return loader

    def to_fit(self) -> dict[str, Any]:
        """Return the keywords of `Trainer.fit`, beside the module."""
        if isinstance(self.owner, pl.LightningModule):
            return {}
        return {"datamodule": self.owner}

    def to_test(self) -> dict[str, Any] | None:
        """Return the keywords of `Trainer.test`, or None if there is no test set."""
        return self.to_fit() if self.has_test else None

    def lengths(self) -> dict[str, int | None]:
        """Return None for each split: the lengths are unknown until Lightning sets the data up."""
        return dict.fromkeys(HOOKS)


def given(module: pl.LightningModule, data: Data, loaders: Loaders) -> Splits | Hooks:
    """Return the loaders of the data that `train` was given."""
    if data is None:
        return Hooks(module, loaders)
    if isinstance(data, pl.LightningDataModule):
        return Hooks(data, loaders)
    return Splits(data, loaders)


def described(data: Data) -> str:
    """Return the data in words, for the second line of a run."""
    if data is None:
        return "its own data"
    # A data module's own text has many lines.
    has_words = type(data).__str__ is not object.__str__
    if has_words and not isinstance(data, pl.LightningDataModule):
        return str(data)
    return type(data).__name__


def _length(loader: object) -> int | None:
    if not isinstance(loader, Loader):
        return None
    try:
        return len(loader)
    except TypeError:
        return None
