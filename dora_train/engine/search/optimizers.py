"""Nevergrad, Optuna, and a plain random search, behind one small interface: ask, tell, adopt.

Both libraries are optional, and each is imported when a search asks for it. All of their state is
in memory: it is rebuilt from the experiments (replay.py), so that neither needs a file or a
database.
"""

import importlib
import inspect
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import UserError, did_you_mean
from .outcomes import Objective, Outcome
from .space import OneOf, Real, Space, Whole

FAMILIES = ("nevergrad", "optuna", "random")
NO_LOSS = 1e3  # of a failure before which nothing succeeded


@dataclass(frozen=True)
class Asked:
    """A suggestion: the values to run, and what the optimizer knows it by."""

    values: dict[str, Any]
    handle: Any = None


class Optimizer(Protocol):
    """The same calls in the same order give the same suggestions."""

    def ask(self) -> Asked: ...

    def adopt(self, values: Mapping[str, Any]) -> Asked:
        """Values that it did not suggest, and will be told about."""

    def tell(self, asked: Asked, outcome: Outcome) -> None: ...


@dataclass(frozen=True)
class Terms:
    """What an optimizer is made for."""

    space: Space
    objective: Objective
    seed: int
    trials: int
    at_once: int

    def asked(self, values: Mapping[str, Any], handle: Any = None) -> Asked:
        return Asked(
            {key: dimension.rounded(values[key]) for key, dimension in self.space.items()}, handle
        )


def make(name: str, terms: Terms) -> Optimizer:
    """The optimizer of this name: "nevergrad" (NGOpt), "optuna" (TPE), "random", or "nevergrad:DE",
    "optuna:GP".

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


def library(name: str) -> Any:
    """Raises: UserError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what they could plot
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(
            f"the optimizer {name} is not installed: it is optional.",
            'pip install -r requirements-extra.txt     without it: optimizer = "random"',
        ) from None


class Random:
    """Every trial drawn by itself: what any other optimizer has to beat."""

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

    It minimises, and knows no failure: one is told as a loss above all.
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
        self._parameters.random_state = numpy.random.RandomState(terms.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._optimizer = registry[name](
                self._parameters, budget=terms.trials, num_workers=terms.at_once
            )
        self._losses: list[float] = []

    def ask(self) -> Asked:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            candidate = self._optimizer.ask()
        return self.terms.asked(candidate.value, candidate)

    def adopt(self, values: Mapping[str, Any]) -> Asked:
        return Asked(dict(values), self._parameters.spawn_child(new_value=dict(values)))

    def tell(self, asked: Asked, outcome: Outcome) -> None:
        from nevergrad.common.errors import TellNotAskedNotSupportedError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._optimizer.tell(asked.handle, self._loss(outcome))
        except TellNotAskedNotSupportedError:  # some learn from their own suggestions only
            pass

    def _loss(self, outcome: Outcome) -> float:
        if outcome.value is None:
            return (
                max(self._losses) + (max(self._losses) - min(self._losses) or 1.0)
                if self._losses
                else NO_LOSS
            )
        loss = -outcome.value if self.terms.objective.mode == "max" else outcome.value
        self._losses.append(loss)
        return loss


def _parameter(kinds: Any, dimension: Any) -> Any:
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
            pruner=optuna.pruners.NopPruner(),
        )

    def ask(self) -> Asked:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self._study.ask()
            values = {
                key: _suggested(trial, key, dimension)
                for key, dimension in self.terms.space.items()
            }
        return self.terms.asked(values, trial)

    def adopt(self, values: Mapping[str, Any]) -> Asked:
        self._study.enqueue_trial(dict(values))
        return Asked(dict(values), self.ask().handle)

    def tell(self, asked: Asked, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        for epoch, value in enumerate(outcome.steps, start=1):
            if value is not None:
                asked.handle.report(value, epoch)
        state = (
            TrialState.FAIL
            if outcome.value is None
            else TrialState.PRUNED
            if outcome.stopped
            else TrialState.COMPLETE
        )
        self._study.tell(
            asked.handle, outcome.value if state == TrialState.COMPLETE else None, state=state
        )


def _suggested(trial: Any, key: str, dimension: Any) -> Any:
    if isinstance(dimension, OneOf):
        return trial.suggest_categorical(key, list(dimension.options))
    if isinstance(dimension, Whole):
        return trial.suggest_int(key, dimension.low, dimension.high)
    return trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log)


def _sampler(kind: Any, terms: Terms) -> Any:
    """Raises: UserError for one that cannot be made from a seed, or whose own library is
    missing."""
    takes = inspect.signature(kind).parameters
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind(**({"seed": terms.seed} if "seed" in takes else {}))
    except (TypeError, ImportError) as error:
        raise UserError(
            f"optuna's {kind.__name__} cannot be made here: {str(error).splitlines()[0]}"
        ) from error
