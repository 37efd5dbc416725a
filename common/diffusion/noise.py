"""Kinds of noise, and one generator a case, so that a result does not depend on its neighbours in the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from common.errors import InputError

__all__ = ["NOISES", "Generators", "Noise", "case_generators", "case_seed", "gaussian_noise", "get_noise"]

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


def gaussian_noise(x: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise of the shape of ``x``; case i is drawn from generator i where a list is given.

    Raises:
        InputError: the number of generators is not the batch size.
    """
    if generator is None:
        return torch.randn_like(x)
    if isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
    if len(generator) != x.shape[0]:
        raise InputError(f"{len(generator)} generators", f"do not fit a batch of {x.shape[0]}", "give one a case")
    draws = [torch.randn(x.shape[1:], generator=g, device=g.device, dtype=x.dtype) for g in generator]
    return torch.stack(draws).to(x.device)


NOISES: dict[str, Noise] = {"gaussian": gaussian_noise}


def get_noise(noise: str | Noise) -> Noise:
    """The noise registered under a name; a noise itself is returned as it is.

    Raises:
        InputError: no such noise.
    """
    if not isinstance(noise, str):
        return noise
    if noise not in NOISES:
        raise InputError(f"noise '{noise}'", "is not known", f"choose one of {sorted(NOISES)}")
    return NOISES[noise]
