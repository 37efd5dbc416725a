"""What a sampler costs besides its network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor

from benchmarks.measure import Row, Setup, Watch, compare
from common.diffusion import NoiseSchedule, sampling_levels
from common.networks import Denoiser, DenoisingUNet
from common.samplers import ddim_sample, dpm_sample

__all__ = ["overhead", "real"]

_SCHEDULE = NoiseSchedule()


def _nothing(x: Tensor, timesteps: Tensor | None = None, **kwargs: Any) -> Tensor:
    """A network that costs one multiplication."""
    return 0.1 * x


def overhead(setup: Setup) -> list[Row]:
    """Microseconds a step of each loop with a network that does nothing; ratios to MONAI's."""
    rows, steps = [], 5 if setup.quick else 50
    for shape in ((1, 1, 64, 64), (16, 1, 128, 128)):
        x = torch.randn(shape, device=setup.device)
        loops = {
            "MONAI DiffusionInferer.sample": _monai(x, steps),
            "zoo ddim_sample": _sampling(ddim_sample, Denoiser(_nothing, _SCHEDULE, clip=None), x, steps),
            "zoo dpm_sample": _sampling(dpm_sample, Denoiser(_nothing, _SCHEDULE, clip=None), x, steps),
            **_diffusers(x, steps),
        }
        with torch.inference_mode():
            rows += compare(
                "sampler",
                f"loop without a network, {'×'.join(map(str, shape))}",
                loops,
                setup,
                reference="MONAI DiffusionInferer.sample",
                scale=1e6 / steps,
                unit="µs a step",
            )
    return rows


def real(setup: Setup) -> list[Row]:
    """Sampling with a real network: the whole time over that of the evaluations in it."""
    steps = 2 if setup.quick else 5
    channels = (32, 32, 32) if setup.quick else (64, 128, 128)
    network = DenoisingUNet(
        2, 1, 1, patch_size=2, channels=channels, attention_levels=(False, False, True), num_res_blocks=1,
        num_head_channels=32,
    ).to(setup.device).eval()  # fmt: skip
    x = torch.randn(16, 1, *((16, 16) if setup.quick else (80, 96)), device=setup.device)
    denoiser = Denoiser(network, _SCHEDULE)
    watch, rows = Watch(network, setup), []
    for name, sample in (("zoo ddim_sample", ddim_sample), ("zoo dpm_sample", dpm_sample)):
        run, over = _sampling(sample, denoiser, x, steps), []
        for _ in range(setup.rounds):
            watch.seconds, start = 0.0, setup.now()
            with torch.inference_mode():
                run()
            over.append((setup.now() - start) / watch.seconds)
        case = f"{steps} steps, whole time over that inside the network, 16 slices"
        rows.append(Row("sampler", case, name, median(over), "×", low=min(over), high=max(over)))
    return rows


def _sampling(sample: Callable[..., Tensor], denoiser: Denoiser, x: Tensor, steps: int) -> Callable[[], Tensor]:
    return lambda: sample(denoiser, x, sampling_levels(999, steps))


def _monai(x: Tensor, steps: int) -> Callable[[], Tensor]:
    scheduler = DDIMScheduler(1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, clip_sample=False)
    scheduler.set_timesteps(steps)
    inferer = DiffusionInferer(scheduler)
    return lambda: inferer.sample(x, _nothing, scheduler, verbose=False)  # type: ignore[arg-type]


def _diffusers(x: Tensor, steps: int) -> dict[str, Callable[[], Tensor]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import diffusers
    except ImportError:
        return {}
    names = {"diffusers DDIM": "DDIMScheduler", "diffusers DPM-Solver++": "DPMSolverMultistepScheduler"}
    return {name: _loop(getattr(diffusers, kind), x, steps) for name, kind in names.items()}


def _loop(kind: Any, x: Tensor, steps: int) -> Callable[[], Tensor]:
    """The loop of diffusers' pipelines."""
    scheduler = kind(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)

    def run() -> Tensor:
        scheduler.set_timesteps(steps, device=x.device)
        state = x
        for t in scheduler.timesteps:
            state = scheduler.step(_nothing(state), t, state).prev_sample
        return state

    return run
