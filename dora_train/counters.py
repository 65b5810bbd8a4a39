"""Randomness as a pure function of counters: (seed, epoch, batch or sample, rank) and a purpose.

Nothing here depends on what the process did before. So a run that was killed resumes with the same
numbers, without the stored state of a generator. And the number of workers or ranks does not change
the draws of a sample. It needs torch and numpy only: the data, the module, `basic/` and `pl_hydra/`
draw the same numbers through it.

The mixing is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA
2014), once on Python integers and once on whole tensors.
"""

import random
import zlib
from functools import cache

import numpy
import torch

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # the increment and the two multipliers of SplitMix64
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def _mix(value: int) -> int:
    # The masks cut to 64 bits, as C does. Python's integers have no limit.
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def seed_of(purpose: str, *counters: int) -> int:
    """A seed in 0 .. 2**63 - 1 for `purpose` at these counters.

    >>> seed_of("order", 0, 1) == seed_of("order", 0, 1) != seed_of("order", 0, 2)
    True
    """
    # not hash(): that of a text differs from process to process
    value = _mix(zlib.crc32(purpose.encode()))
    for counter in counters:
        value = _mix(value ^ (counter & _MASK))
    return value >> 1


def permutation(size: int, purpose: str, *counters: int) -> torch.Tensor:
    """A random order of `range(size)`: [size] int64, on the CPU."""
    generator = torch.Generator().manual_seed(seed_of(purpose, *counters))
    return torch.randperm(size, generator=generator)


def seed_cpu(purpose: str, *counters: int) -> int:
    """Seed the global generators of Python, numpy and torch's CPU, and return the seed.

    It is called for every sample, and takes 13 us. `torch.manual_seed` alone would take 150 us.
    """
    seed = seed_of(purpose, *counters)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # numpy takes seeds of 32 bits
    torch.default_generator.manual_seed(seed)
    return seed


def seed_all(purpose: str, *counters: int) -> None:
    """The same, and the GPU's: for code that uses the global generators, such as dropout."""
    seed = seed_cpu(purpose, *counters)
    if _has_cuda():
        torch.cuda.manual_seed(seed)
    if _has_mps():
        torch.mps.manual_seed(seed)


@cache  # the call takes 140 us, and each step seeds
def _has_cuda() -> bool:
    return torch.cuda.is_available()


@cache
def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _signed(value: int) -> int:
    """The 64 bits of `value` as an int64, as torch has them."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _shifted(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Shifted right, and filled with zeros. `>>` on int64 would repeat the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def draws(samples: torch.Tensor, purpose: str, *counters: int) -> torch.Tensor:
    """One draw for each sample. It does not depend on the batch that the sample is in.

    Args:
        samples: [B] int64, the samples' numbers in their set.

    Returns:
        [B] int64, uniform in 0 .. 2**62 - 1, on the device of `samples`.
    """
    value = samples ^ _signed(_mix(seed_of(purpose, *counters)))
    value = value + _signed(_GOLDEN)
    value = (value ^ _shifted(value, 30)) * _signed(_FIRST)
    value = (value ^ _shifted(value, 27)) * _signed(_SECOND)
    return _shifted(value ^ _shifted(value, 31), 2)


def integers(samples: torch.Tensor, bound: int, purpose: str, *counters: int) -> torch.Tensor:
    """One integer in 0 .. bound - 1 for each sample: [B] int64. The bias is below bound / 2**62."""
    return draws(samples, purpose, *counters) % bound
