"""Gaussian noise, and one generator a case, so that a result does not depend on its neighbours in the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from common.errors import InputError

__all__ = [
    "Generators",
    "Noise",
    "OppositeGenerator",
    "case_generators",
    "case_seed",
    "child_generators",
    "device_of",
    "draw_cases",
    "gaussian_noise",
    "opposed",
    "run_generator",
    "standard_normal",
]

Generators = torch.Generator | Sequence[torch.Generator] | None


class Noise(Protocol):
    """Draws noise of the shape, device and dtype of ``x`` (B, C, …)."""

    def __call__(self, x: Tensor, generator: Generators = None) -> Tensor:
        """Return a fresh draw."""


def case_seed(seed: int, *identity: object) -> int:
    """A seed for one case, from the run's seed and whatever names the case (id, slice, …); stable across machines."""
    text = "\x1f".join(str(part) for part in (seed, *identity))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def case_generators(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator a case. On the CPU (default) the numbers are the same whatever device the network is on."""
    return [torch.Generator(device).manual_seed(int(seed)) for seed in seeds]


class OppositeGenerator(torch.Generator):
    """A source of randomness whose noise comes out negated: with the seed of another one, its antithetic twin."""


def run_generator(seed: int, run: int, antithetic: bool = False) -> torch.Generator:
    """The generator of one of several runs of a case.

    Args:
        seed: of the case, and of its first run.
        run: its number, from 0.
        antithetic: runs 2k and 2k + 1 draw the same noise with opposite signs (Hammersley and Morton, *A new Monte
            Carlo technique: antithetic variates*, 1956). What a denoiser makes of noise is odd in it for the most part,
            and the mean of the two is without that part.
    """
    first = run - run % 2 if antithetic else run
    generator = OppositeGenerator() if antithetic and run % 2 else torch.Generator()
    return generator.manual_seed(seed if first == 0 else case_seed(seed, first))


def child_generators(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """Generators with seeds drawn from one; those of an ``OppositeGenerator`` are opposite, too."""
    seeds = [int(torch.randint(2**62, (), generator=generator)) for _ in range(count)]
    return [type(generator)().manual_seed(seed) for seed in seeds]


def opposed(noise: Tensor, generator: Generators) -> Tensor:
    """Noise (B, …) with the sign that each case's generator asks for."""
    signs = [-1.0 if isinstance(each, OppositeGenerator) else 1.0 for each in _each(generator)]
    if -1.0 not in signs:
        return noise
    return noise * noise.new_tensor(signs).reshape(-1, *(1,) * (noise.ndim - 1))


def _each(generator: Generators) -> Sequence[torch.Generator | None]:
    return [generator] if generator is None or isinstance(generator, torch.Generator) else generator


def draw_cases(x: Tensor, generator: Generators, draw: Callable[[torch.Generator | None], Tensor]) -> Tensor:
    """One draw a case of the batch ``x`` (B, …), stacked: case i from generator i where a list is given.

    Args:
        x: gives the number of cases.
        generator: source of randomness, one for all (drawn from in order) or one a case.
        draw: ``generator -> Tensor``, on the generator's device, where the result stays.

    Raises:
        InputError: the number of generators is not the batch size.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return torch.stack([draw(generator) for _ in range(x.shape[0])])
    if len(generator) != x.shape[0]:
        raise InputError(f"{len(generator)} generators", f"do not fit a batch of {x.shape[0]}", "give one a case")
    return torch.stack([draw(each) for each in generator])


def device_of(generator: torch.Generator | None) -> torch.device:
    """Where a generator draws; the CPU without one."""
    return torch.device("cpu") if generator is None else generator.device


def standard_normal(
    shape: Sequence[int], generator: torch.Generator | None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal values on the generator's device."""
    return torch.randn(tuple(shape), generator=generator, device=device_of(generator), dtype=dtype)


def gaussian_noise(x: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise of the shape of ``x``; case i is drawn from generator i where a list is given.

    Raises:
        InputError: the number of generators is not the batch size.
    """
    if generator is None:
        return torch.randn_like(x)
    drawn = draw_cases(x, generator, lambda g: standard_normal(x.shape[1:], g, x.dtype)).to(x.device)
    return opposed(drawn, generator)
