"""Randomness as a pure function of counters: (seed, epoch, batch or sample, rank) and a purpose.

Nothing here depends on what the process did before. That is why a run killed anywhere goes on with
the same numbers without storing the state of a generator, and why the number of workers or ranks
does not change what a sample gets. Needs torch and numpy only: the data, the module, `basic/` and
`pl_hydra/` draw the same numbers through it.

The mixing is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA
2014), once on Python integers and once on whole tensors.
"""

import random
import zlib

import numpy
import torch

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # the increment and the two multipliers of SplitMix64
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def seed_of(purpose: str, *counters: int) -> int:
    """A seed in 0 .. 2**63 - 1 for `purpose` at these counters, e.g.

    `seed_of("order", seed, epoch)`.
    """
    value = _mix(zlib.crc32(purpose.encode()))
    for counter in counters:
        value = _mix(value ^ (counter & _MASK))
    return value >> 1


def permutation(size: int, purpose: str, *counters: int) -> torch.Tensor:
    """A random order of `range(size)`: [size] int64, on the CPU."""
    generator = torch.Generator().manual_seed(seed_of(purpose, *counters))
    return torch.randperm(size, generator=generator)


def seed_cpu(purpose: str, *counters: int) -> int:
    """Seed the global generators of Python, numpy and torch's CPU; returns the seed.

    `torch.manual_seed` does its part in 150 us, too slow for every sample; all of this takes 13 us.
    """
    seed = seed_of(purpose, *counters)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    return seed


def seed_all(purpose: str, *counters: int) -> None:
    """The same, and the GPU's: for what draws from them by itself (dropout, mixup)."""
    seed = seed_cpu(purpose, *counters)
    if _has_cuda():
        torch.cuda.manual_seed(seed)


def _has_cuda(known: list[bool] = []) -> bool:  # noqa: B006 - the default is the memory: asking takes 140 us
    if not known:
        known.append(torch.cuda.is_available())
    return known[0]


def _signed(value: int) -> int:
    """The same 64 bits as torch's int64 has them."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _shifted(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Shifted right with zeros coming in; `>>` on int64 repeats the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def draws(samples: torch.Tensor, purpose: str, *counters: int) -> torch.Tensor:
    """One draw for each sample, whatever batch it is in.

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
