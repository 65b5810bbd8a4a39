"""Nevergrad, Optuna, and a plain random search, behind one small interface: ask, tell, adopt.

Both libraries are optional. Each is imported when a search asks for it. All of their state is in
memory and is rebuilt from the experiments (replay.py). So neither needs a file or a database.
"""

import importlib
import inspect
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UserError, did_you_mean
from .outcomes import Objective, Outcome
from .space import Dimension, OneOf, Real, Space, Value, Whole

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

FAMILIES = ("nevergrad", "optuna", "random")
LOSS_OF_FAILURE = 1e3  # of a failed trial that comes before the first success


@dataclass(frozen=True)
class Asked:
    """A suggestion of an optimizer."""

    values: dict[str, Any]  # to run
    handle: Any = None  # the optimizer's own object for this suggestion


class Optimizer(Protocol):
    """What suggests trials. The same calls in the same order give the same suggestions."""

    def ask(self) -> Asked:
        """The next suggestion."""

    def adopt(self, values: Mapping[str, Any]) -> Asked:
        """A suggestion with these values, which the optimizer has not made itself."""

    def tell(self, asked: Asked, outcome: Outcome) -> None:
        """Tell the optimizer what came of a suggestion."""


@dataclass(frozen=True)
class Terms:
    """What an optimizer is made for."""

    space: Space
    objective: Objective
    seed: int
    trials: int  # experiments in all
    at_once: int  # experiments that wait or run at the same time

    def asked(self, values: Mapping[str, Any], handle: object = None) -> Asked:
        """A suggestion of these values, rounded."""
        rounded = {key: dimension.rounded(values[key]) for key, dimension in self.space.items()}
        return Asked(rounded, handle)


def make(name: str, terms: Terms) -> Optimizer:
    """The optimizer of this name.

    Args:
        name: "nevergrad" (NGOpt), "optuna" (TPE), "random", or any other optimizer of a library:
            "nevergrad:DE", "optuna:GP".

    Raises:
        UserError: there is none of that name, or its library is not installed.
    """
    family, _, which = name.partition(":")
    if family == "nevergrad":
        return Nevergrad(which or "NGOpt", terms)
    if family == "optuna":
        return Optuna(which or "TPE", terms)
    if name == "random":
        return Random(terms)
    raise UserError(
        f'unknown optimizer "{name}"{did_you_mean(family, FAMILIES)}',
        "there is: nevergrad, optuna (any of theirs: nevergrad:DE, optuna:GP), random.",
    )


def library(name: str) -> ModuleType:
    """The module of a search library.

    Raises:
        UserError: it is not installed.
    """
    try:
        with _without_warnings():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(
            f"the optimizer {name} is not installed: it is optional.",
            'pip install -r requirements-extra.txt     without it: optimizer = "random"',
        ) from None


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide warnings of the libraries, e.g. about optional packages and experimental samplers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Random:
    """Draws every trial by itself. Any other optimizer has to be better than this."""

    def __init__(self, terms: Terms):
        self.terms, self.draw = terms, random.Random(terms.seed)

    def ask(self) -> Asked:
        return self.terms.asked(
            {key: dimension.at(self.draw.random()) for key, dimension in self.terms.space.items()}
        )

    def adopt(self, values: Mapping[str, Any]) -> Asked:
        return Asked(dict(values))

    def tell(self, asked: Asked, outcome: Outcome) -> None:
        pass


class Nevergrad:
    """Any optimizer of Nevergrad's registry.

    It minimises a loss and has no way to tell a failure. A failed trial gets a loss above all others.
    """

    def __init__(self, name: str, terms: Terms):
        import numpy

        self.terms = terms
        nevergrad = library("nevergrad")
        registry = nevergrad.optimizers.registry
        if name not in registry:
            raise UserError(f'nevergrad has no optimizer "{name}"{did_you_mean(name, registry)}')
        self._parameters = nevergrad.p.Dict(
            **{key: _parameter(nevergrad.p, dimension) for key, dimension in terms.space.items()}
        )
        # Nevergrad draws from this state alone, so that the seed decides everything.
        self._parameters.random_state = numpy.random.RandomState(terms.seed)
        with _without_warnings():
            self._optimizer = registry[name](
                self._parameters, budget=terms.trials, num_workers=terms.at_once
            )
        self._losses: list[float] = []  # of the trials that succeeded

    def ask(self) -> Asked:
        with _without_warnings():
            candidate = self._optimizer.ask()
        return self.terms.asked(candidate.value, candidate)

    def adopt(self, values: Mapping[str, Any]) -> Asked:
        return Asked(dict(values), self._parameters.spawn_child(new_value=dict(values)))

    def tell(self, asked: Asked, outcome: Outcome) -> None:
        from nevergrad.common.errors import TellNotAskedNotSupportedError

        try:
            with _without_warnings():
                self._optimizer.tell(asked.handle, self._loss(outcome))
        except TellNotAskedNotSupportedError:  # some learn from their own suggestions only
            pass

    def _loss(self, outcome: Outcome) -> float:
        if outcome.value is None:
            if not self._losses:
                return LOSS_OF_FAILURE
            worst, best = max(self._losses), min(self._losses)
            return worst + (worst - best or 1.0)
        loss = -outcome.value if self.terms.objective.mode == "max" else outcome.value
        self._losses.append(loss)
        return loss


def _parameter(kinds: ModuleType, dimension: Dimension[Any]) -> object:
    """A dimension as a parameter of Nevergrad.

    Args:
        kinds: the module `nevergrad.p`.
    """
    if isinstance(dimension, Real) and dimension.log:
        return kinds.Log(lower=dimension.low, upper=dimension.high)
    if isinstance(dimension, Whole):
        return kinds.Scalar(lower=dimension.low, upper=dimension.high).set_integer_casting()
    if isinstance(dimension, Real):
        return kinds.Scalar(lower=dimension.low, upper=dimension.high)
    assert isinstance(dimension, OneOf)
    return kinds.Choice(list(dimension.options))


class Optuna:
    """Any sampler of Optuna's, in a study that lives in memory."""

    def __init__(self, name: str, terms: Terms):
        self.terms = terms
        optuna = library("optuna")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        names = {
            word.removesuffix("Sampler")
            for word in dir(optuna.samplers)
            if word.endswith("Sampler")
        }
        short = name.removesuffix("Sampler")
        if short not in names - {"Base"}:
            raise UserError(f'optuna has no sampler "{name}"{did_you_mean(short, names)}')
        self._study = optuna.create_study(
            direction="maximize" if terms.objective.mode == "max" else "minimize",
            sampler=_sampler(getattr(optuna.samplers, f"{short}Sampler"), terms),
            pruner=optuna.pruners.NopPruner(),  # the search stops trials by itself
        )

    def ask(self) -> Asked:
        values = {}
        with _without_warnings():
            trial = self._study.ask()
            for key, dimension in self.terms.space.items():
                values[key] = _suggested(trial, key, dimension)
        return self.terms.asked(values, trial)

    def adopt(self, values: Mapping[str, Any]) -> Asked:
        # The next ask of a study returns the trial that was enqueued.
        self._study.enqueue_trial(dict(values))
        return Asked(dict(values), self.ask().handle)

    def tell(self, asked: Asked, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        # A trial that is told as pruned has no value but these.
        for epoch, value in enumerate(outcome.steps, start=1):
            if value is not None:
                asked.handle.report(value, epoch)
        if outcome.value is None:
            self._study.tell(asked.handle, state=TrialState.FAIL)
        elif outcome.stopped:
            self._study.tell(asked.handle, state=TrialState.PRUNED)
        else:
            self._study.tell(asked.handle, outcome.value, state=TrialState.COMPLETE)


def _suggested(trial: "Trial", key: str, dimension: Dimension[Any]) -> Value:
    """The value that a trial of Optuna suggests for a key."""
    if isinstance(dimension, OneOf):
        return trial.suggest_categorical(key, list(dimension.options))
    if isinstance(dimension, Whole):
        return trial.suggest_int(key, dimension.low, dimension.high)
    assert isinstance(dimension, Real)
    return trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log)


def _sampler(kind: "type[BaseSampler]", terms: Terms) -> "BaseSampler":
    """A sampler of Optuna of this class.

    Raises:
        UserError: it needs more than a seed, or a library of its own that is not installed.
    """
    options = {}
    if "seed" in inspect.signature(kind).parameters:
        options["seed"] = terms.seed
    try:
        with _without_warnings():
            return kind(**options)
    except (TypeError, ImportError) as error:
        raise UserError(
            f"optuna's {kind.__name__} cannot be made here: {str(error).splitlines()[0]}"
        ) from error
