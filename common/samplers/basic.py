"""Ancestral and deterministic sampling, inversion, and partial diffusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from common.diffusion import CLEAN, Generators, Noise, Prediction, Variance, ddim_step, ddpm_step, gaussian_noise
from common.networks import Denoiser
from common.options import choice
from common.samplers.multistep import dpm_sample
from common.samplers.walk import Callback, Guidance, check_falling, check_rising, walk

__all__ = ["SAMPLERS", "Method", "check_sampler", "ddim_invert", "ddim_sample", "ddpm_sample", "partial_diffusion"]

Method = Literal["ddpm", "ddim", "dpm++"]


def ddpm_sample(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    guidance: Guidance | None = None,
    variance: Variance = "fixed_small",
    noise: Noise = gaussian_noise,
    generator: Generators = None,
    callback: Callback | None = None,
    **conditioning: Any,
) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, alg. 2) over any falling list of levels.

    Args:
        denoiser: estimates image and noise.
        x: state (B, C, …) at ``timesteps[0]``.
        timesteps: falling levels; ends at ``CLEAN`` for an image.
        guidance: changes each prediction.
        variance: of the steps.
        noise: kind of noise in the steps.
        generator: source of randomness, one for all or one a case.
        callback: sees every step.
        **conditioning: for the network.

    Returns:
        The state at ``timesteps[-1]``.

    Raises:
        InputError: levels that do not fall, or are not in the schedule.
    """
    check_falling(timesteps, "ddpm_sample")

    def advance(x: Tensor, prediction: Prediction, t: int, t_next: int) -> Tensor:
        draw = lambda: noise(x, generator)  # noqa: E731
        return ddpm_step(x, prediction, denoiser.schedule, t, t_next, noise=draw, variance=variance)

    return walk(denoiser, x, timesteps, advance, guidance=guidance, callback=callback, **conditioning)


def ddim_sample(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    guidance: Guidance | None = None,
    eta: float = 0.0,
    noise: Noise = gaussian_noise,
    generator: Generators = None,
    callback: Callback | None = None,
    **conditioning: Any,
) -> Tensor:
    """Deterministic sampling (Song et al. 2021) over any falling list of levels; ``eta`` mixes in noise.

    Args, result and errors as ``ddpm_sample``; ``eta`` in [0, 1].
    """
    check_falling(timesteps, "ddim_sample")

    def advance(x: Tensor, prediction: Prediction, t: int, t_next: int) -> Tensor:
        return ddim_step(prediction, denoiser.schedule, t, t_next, eta=eta, noise=lambda: noise(x, generator))

    return walk(denoiser, x, timesteps, advance, guidance=guidance, callback=callback, **conditioning)


def ddim_invert(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    fixed_point_steps: int = 0,
    guidance: Guidance | None = None,
    callback: Callback | None = None,
    **conditioning: Any,
) -> Tensor:
    """Encode an image into the noise that ``ddim_sample`` decodes: the same steps, upwards.

    A step up takes the noise that the network sees where it starts, the step down that where it ends. With
    ``fixed_point_steps`` the code above is moved until the step down from it leads back to where it started, which is
    an exact inverse in the limit (Pan et al. 2023, AIDI).

    Args:
        denoiser: without clipping, or the way back is another one.
        x: state at ``timesteps[0]``; the image itself at ``CLEAN``.
        timesteps: rising levels, e.g. a reversed list of ``sampling_levels``.
        fixed_point_steps: further network evaluations at each level; without guidance.
        guidance: changes each prediction.
        callback: sees every step.
        **conditioning: for the network.

    Returns:
        The state at ``timesteps[-1]``.

    Raises:
        InputError: levels that do not rise, or are not in the schedule.
    """
    check_rising(timesteps, "ddim_invert")

    def advance(x: Tensor, prediction: Prediction, t: int, t_next: int) -> Tensor:
        above = ddim_step(prediction, denoiser.schedule, t, t_next)
        for _ in range(fixed_point_steps):
            eps = denoiser(above, t_next, **conditioning).eps
            start = Prediction(x, eps) if t == CLEAN else Prediction.from_eps(eps, x, denoiser.schedule, t)
            above = ddim_step(start, denoiser.schedule, t, t_next)
        return above

    return walk(denoiser, x, timesteps, advance, guidance=guidance, callback=callback, **conditioning)


SAMPLERS: dict[str, Callable[..., Tensor]] = {"ddpm": ddpm_sample, "ddim": ddim_sample, "dpm++": dpm_sample}


def check_sampler(method: str) -> None:
    """Stop unless ``method`` is a key of ``SAMPLERS``.

    Raises:
        InputError: it is not.
    """
    choice("sampler", method, SAMPLERS)


def partial_diffusion(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    method: Method = "ddpm",
    noise: Noise = gaussian_noise,
    reverse_noise: Noise | None = None,
    generator: Generators = None,
    **kwargs: Any,
) -> Tensor:
    """Noise an image to ``timesteps[0]`` and sample back: what the model would have drawn near it (Wyatt et al. 2022).

    Args:
        denoiser: estimates image and noise.
        x: image (B, C, …) in the model's range.
        timesteps: falling levels.
        method: a key of ``SAMPLERS``.
        noise: kind of noise.
        reverse_noise: another kind on the way back; ``None`` takes the same.
        generator: source of randomness, one for all or one a case.
        **kwargs: of the sampler, and conditioning.

    Raises:
        InputError: unknown method, or levels that do not fall.
    """
    check_sampler(method)
    check_falling(timesteps, "partial_diffusion")
    x_t = denoiser.schedule.add_noise(x, noise(x, generator), timesteps[0])
    return SAMPLERS[method](denoiser, x_t, timesteps, noise=reverse_noise or noise, generator=generator, **kwargs)
