"""Makes the draws of other people's code a function of counters.

That code draws from the global generators of torch, numpy and Python. They are seeded before it
draws, and the process gets their states back afterwards. A generator that an object keeps for
itself is out of reach.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch
from torch.utils.data import get_worker_info

Seed = Callable[..., Any]  # (purpose, *counters): see counters.seed_cpu


class Draws:
    """Seeds the global generators of the CPU by counters, for one purpose.

    Args:
        purpose: tells these draws from others at the same counters, e.g. "train order".
        seed: the run's `seed`.
    """

    def __init__(self, seed_cpu: Seed, purpose: str, seed: int):
        self.seed_cpu, self.purpose, self.seed = seed_cpu, purpose, seed

    def start(self, *counters: int) -> None:
        """Seed the generators for the draws at these counters."""
        self.seed_cpu(self.purpose, self.seed, *counters)

    @contextlib.contextmanager
    def apart(self, *counters: int) -> Iterator[None]:
        """Seed the generators for a block. After it they are as they were before it."""
        with kept_generators():
            self.start(*counters)
            yield


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Put the global generators back as they were before the block."""
    states = _states()
    try:
        yield
    finally:
        _set_states(states)


def draw_once() -> None:
    """Draw from the global generators, as other work in the process would."""
    random.random()
    numpy.random.rand()
    torch.rand(())


def kept_in_training() -> contextlib.AbstractContextManager:
    """Do the same in a process that also trains, because it has no workers to read for it."""
    # A worker does nothing but read. To keep its generators would only cost time.
    return contextlib.nullcontext() if get_worker_info() else kept_generators()


def continued(iterator: Iterator[Any], draws: Draws, *counters: int) -> Iterator[Any]:
    """Give the items of `iterator`, whose draws follow each other from one start.

    Args:
        counters: of the start.
    """
    with draws.apart(*counters):
        states = _states()
    while True:
        # Between two items, the process draws numbers of its own.
        with kept_generators():
            _set_states(states)
            try:
                item = next(iterator)
            except StopIteration:
                return
            states = _states()
        yield item


def _states() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), numpy.random.get_state(), torch.get_rng_state()


def _set_states(states: tuple[Any, Any, torch.Tensor]) -> None:
    python, arrays, tensors = states
    random.setstate(python)
    numpy.random.set_state(arrays)
    torch.set_rng_state(tensors)
