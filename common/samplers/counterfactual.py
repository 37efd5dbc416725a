"""What an image would look like if it were healthy: encoded into noise without loss, and decoded under guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from common.diffusion import (
    Generators,
    Noise,
    NoiseSchedule,
    Prediction,
    Variance,
    ddim_step,
    ddpm_step,
    gaussian_noise,
)
from common.errors import InputError
from common.networks import Denoiser
from common.samplers.basic import check_sampler, ddim_invert, ddim_sample
from common.samplers.multistep import MultistepSolver, dpm_invert, dpm_sample
from common.samplers.walk import Advance, Callback, Guidance, check_falling, walk

__all__ = ["INVERTERS", "FusedSample", "Solver", "check_solver", "ddim_round_trip", "fused_sample", "invert"]

Solver = Literal["ddim", "dpm++"]
INVERTERS: dict[str, Callable[..., Tensor]] = {"ddim": ddim_invert, "dpm++": dpm_invert}


def check_solver(method: str, fixed_point_steps: int = 0) -> None:
    """Stop unless ``method`` is a key of ``INVERTERS``, and one that knows fixed points if some are asked for.

    Raises:
        InputError: it is not.
    """
    check_sampler(method)
    if method not in INVERTERS:
        raise InputError(f"sampler '{method}'", "is no deterministic one", f"choose one of {sorted(INVERTERS)}")
    if fixed_point_steps and method != "ddim":
        raise InputError(f"fixed_point_steps {fixed_point_steps}", f"are not known to '{method}'", "use sampler 'ddim'")


def invert(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    method: Solver = "ddim",
    fixed_point_steps: int = 0,
    **kwargs: Any,
) -> Tensor:
    """Encode an image by the inversion of that name: ``ddim_invert``, which takes fixed points, or ``dpm_invert``.

    Raises:
        InputError: as ``check_solver``, or levels that do not rise.
    """
    check_solver(method, fixed_point_steps)
    options = {"fixed_point_steps": fixed_point_steps} if fixed_point_steps else {}
    return INVERTERS[method](denoiser, x, timesteps, **options, **kwargs)


def ddim_round_trip(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    inversion_timesteps: Sequence[int] | None = None,
    inversion_conditioning: dict[str, Any] | None = None,
    method: Solver = "ddim",
    fixed_point_steps: int = 0,
    guidance: Guidance | None = None,
    callback: Callback | None = None,
    **conditioning: Any,
) -> Tensor:
    """Encode an image by DDIM inversion, and decode it again under guidance (Wolleb et al. 2022, alg. 1).

    Without guidance, and with the same conditioning both ways, the image returns: up to the error of the inversion,
    which falls with the number of levels and with ``fixed_point_steps``.

    Args:
        denoiser: without clipping, or the way back is another one.
        x: image (B, C, …) in the model's range.
        timesteps: falling levels of the decoding, to ``CLEAN``.
        inversion_timesteps: rising levels of the encoding; by default those of the decoding, reversed.
        inversion_conditioning: for the network while encoding; by default the same as while decoding.
        method: ``ddim``, or the second-order solver both ways.
        fixed_point_steps: of ``ddim_invert``.
        guidance: changes each prediction while decoding.
        callback: sees every step, up and down.
        **conditioning: for the network.

    Returns:
        The counterfactual image.

    Raises:
        InputError: levels that do not fall, or do not rise, or as ``check_solver``.
    """
    check_falling(timesteps, "ddim_round_trip")
    rising = list(reversed(timesteps)) if inversion_timesteps is None else inversion_timesteps
    encoding = conditioning if inversion_conditioning is None else inversion_conditioning
    options: dict[str, Any] = {"method": method, "fixed_point_steps": fixed_point_steps}
    code = invert(denoiser, x, rising, callback=callback, **options, **encoding)
    decode = ddim_sample if method == "ddim" else dpm_sample
    return decode(denoiser, code, timesteps, guidance=guidance, callback=callback, **conditioning)


class FusedSample(NamedTuple):
    """Result of ``fused_sample``: the image with its region drawn anew, and the deterministic reconstruction."""

    image: Tensor
    reconstruction: Tensor


def fused_sample(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    mask: Tensor,
    method: Solver = "ddim",
    variance: Variance = "fixed_large",
    fuse_above: int | None = None,
    guidance: Guidance | None = None,
    noise: Noise = gaussian_noise,
    generator: Generators = None,
    callback: Callback | None = None,
    **conditioning: Tensor,
) -> FusedSample:
    """Draw a region anew by DDPM, while everything else follows a DDIM chain of its own (Fontanella et al. 2024).

    Two chains start from one code. The deterministic one runs for itself; after each step it replaces the stochastic
    one outside the region. Both run as one batch.

    Args:
        denoiser: estimates image and noise.
        x: code (B, C, …) at ``timesteps[0]``, as ``ddim_invert`` makes it.
        timesteps: falling levels.
        mask: (B, 1, …) or (B, C, …), true where the image is to be drawn.
        method: of the deterministic chain: ``ddim`` or the second-order ``dpm++``.
        variance: of the DDPM steps.
        fuse_above: fuse only where the level stepped from is above this one; ``None`` fuses after every step.
        guidance: changes each prediction, of both chains: states are (2B, C, …), the stochastic ones first.
        noise: kind of noise.
        generator: source of randomness, one for all or one a case.
        callback: sees every step of both chains, (2B, C, …).
        **conditioning: for the network, tensors (B, …).

    Returns:
        Both images. Outside the mask they are equal bit for bit, if the last step is one that fuses.

    Raises:
        InputError: levels that do not fall, or a mask that does not fit.
    """
    check_falling(timesteps, "fused_sample")
    check_solver(method)
    inside = mask.bool()
    if inside.shape[0] != x.shape[0] or inside.shape[1] not in (1, x.shape[1]) or inside.shape[2:] != x.shape[2:]:
        raise InputError(f"mask of shape {tuple(mask.shape)}", f"does not fit {tuple(x.shape)}", "give (B, 1 or C, …)")
    cases = x.shape[0]
    schedule, halves = denoiser.schedule, (slice(None, cases), slice(cases, None))
    follow: Advance = MultistepSolver(schedule) if method == "dpm++" else _ddim(schedule)

    def advance(state: Tensor, prediction: Prediction, t: int, t_next: int) -> Tensor:
        first, second = (prediction.of_cases(part) for part in halves)
        draw = lambda: noise(x, generator)  # noqa: E731
        drawn = ddpm_step(state[:cases], first, schedule, t, t_next, noise=draw, variance=variance)
        followed = follow(state[cases:], second, t, t_next)
        if fuse_above is None or t > fuse_above:
            drawn = torch.where(inside, drawn, followed)
        return torch.cat([drawn, followed])

    both: dict[str, Any] = {key: torch.cat([value, value]) for key, value in conditioning.items()}
    state = walk(denoiser, torch.cat([x, x]), timesteps, advance, guidance=guidance, callback=callback, **both)
    return FusedSample(state[:cases], state[cases:])


def _ddim(schedule: NoiseSchedule) -> Advance:
    return lambda x, prediction, t, t_next: ddim_step(prediction, schedule, t, t_next)
