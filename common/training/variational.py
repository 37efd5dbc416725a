"""The loss of a network that learns its variance besides (Nichol & Dhariwal 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from common.diffusion import NoiseSchedule, between

__all__ = ["HybridLoss", "variance_target"]


def variance_target(noise: Tensor, t: Tensor) -> Tensor:
    """What ``HybridLoss`` takes for its target: the noise (B, C, …), and the level of each case as C channels more."""
    return torch.cat([noise, t.reshape(-1, *(1,) * (noise.ndim - 1)).expand_as(noise).to(noise)], dim=1)


class HybridLoss(nn.Module):
    """Mean squared error of the noise, plus the variational bound for the variance alone (L_hybrid, eq. 16).

    The bound is the divergence of the model's reverse step from the true one, in nats. It sees the mean as a constant,
    so that it teaches the variance only. At level 0, where the true step has no variance, it is the negative
    log-likelihood of the image under a Gaussian.

    Args:
        schedule: of the process.
        weight: of the bound, a mean over levels. 1 / ln 2 is both the original, which weighs the sum over 1000 levels
            with 0.001, and the code of Wolleb et al. 2022: their bounds are in bits.
    """

    small: Tensor
    large: Tensor
    gain: Tensor

    def __init__(self, schedule: NoiseSchedule, weight: float = 1.0) -> None:
        super().__init__()
        bars = [(schedule.alpha_bar(t - 1), schedule.alpha_bar(t)) for t in range(schedule.steps)]
        betas = [1 - bar / below for below, bar in bars]
        small = [beta * (1 - below) / (1 - bar) for beta, (below, bar) in zip(betas, bars, strict=True)]
        small[0] = small[1]  # the true variance at level 0 is 0, whose logarithm is none
        gains = [beta / math.sqrt((1 - beta) * (1 - bar)) for beta, (_, bar) in zip(betas, bars, strict=True)]
        for name, values in (("small", small), ("large", betas), ("gain", gains)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.weight = weight

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of ``output`` (B, 2C, …): noise, then variance; against ``variance_target`` (B, 2C, …)."""
        noise, place = output.chunk(2, dim=1)
        true, levels = target.chunk(2, dim=1)
        t = levels.flatten(1)[:, 0].round().long()
        shape, tables = (-1, *(1,) * (output.ndim - 1)), (self.small, self.large, self.gain)
        small, large, gain = (each.to(t.device)[t].reshape(shape) for each in tables)
        variance = between(place, small, large)
        difference = (gain * (noise.detach() - true)).square()  # of the two means
        divergence = 0.5 * (variance.log() - small.log() + (small + difference) / variance - 1)
        likelihood = 0.5 * (variance.log() + math.log(2 * math.pi) + difference / variance)
        bound = torch.where(levels > 0, divergence, likelihood)
        return (noise - true).square().mean() + self.weight * bound.mean()
