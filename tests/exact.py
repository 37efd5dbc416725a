"""Denoisers that are right by construction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from common.diffusion import NoiseSchedule
from common.networks import Denoiser


def gaussian_denoiser(mean: float, spread: float, schedule: NoiseSchedule) -> Denoiser:
    """The posterior mean of x_0 ~ N(mean, spread²), every voxel by itself, as a network that predicts the sample."""

    def network(x: Tensor, timesteps: Tensor) -> Tensor:
        alpha_bar = schedule.alphas_cumprod[timesteps].reshape(-1, *(1,) * (x.ndim - 1))
        gain = alpha_bar.sqrt() * spread**2 / (alpha_bar * spread**2 + 1 - alpha_bar)
        return mean + gain * (x - alpha_bar.sqrt() * mean)

    return Denoiser(network, schedule, "sample", clip=None)


def toy_network(x: Tensor, timesteps: Tensor) -> Tensor:
    """ε(x, t) = tanh(0.5 x + 0.001 t)."""
    return torch.tanh(0.5 * x + 0.001 * timesteps.reshape(-1, *(1,) * (x.ndim - 1)))


def toy_image(size: int = 32) -> Tensor:
    """0.5 + 0.5 sin(0.3 i + 0.2 j), (1, 1, size, size)."""
    i, j = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    return (0.5 + 0.5 * torch.sin(0.3 * i + 0.2 * j))[None, None]


def toy_field(size: int = 32) -> Tensor:
    """cos(0.7 i + 1.3 j), (1, 1, size, size)."""
    i, j = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    return torch.cos(0.7 * i + 1.3 * j)[None, None]


def constant_noise(field: Tensor) -> Callable[..., Tensor]:
    """A noise whose every draw is ``field``."""
    return lambda x, generator=None: field.expand_as(x)
