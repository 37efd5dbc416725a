"""Kinds of noise by name."""

from __future__ import annotations

from common.diffusion.noise.coarse import CoarseNoise, PyramidNoise
from common.diffusion.noise.gaussian import (
    Generators,
    Noise,
    case_generators,
    case_seed,
    child_generators,
    gaussian_noise,
    run_generator,
)
from common.diffusion.noise.simplex import SimplexNoise, simplex_field
from common.diffusion.noise.synomaly import SynomalyNoise
from common.options import choice

__all__ = [
    "NOISES",
    "CoarseNoise",
    "Generators",
    "Noise",
    "PyramidNoise",
    "SimplexNoise",
    "SynomalyNoise",
    "case_generators",
    "case_seed",
    "child_generators",
    "gaussian_noise",
    "get_noise",
    "run_generator",
    "simplex_field",
]

NOISES: dict[str, Noise] = {
    "gaussian": gaussian_noise,
    "simplex": SimplexNoise(dimensions=2),  # pDDPM and its relatives
    "simplex3d": SimplexNoise(dimensions=3),  # AnoDDPM, THOR
    "pyramid": PyramidNoise(),  # ANDi, in training
    "coarse": CoarseNoise(),  # Kascenas et al.; for images in [0, 1]
    "synomaly_brats": SynomalyNoise(),  # bright lesions of brains
    "synomaly_lits": SynomalyNoise(offset=1.0, direction=-1.0),  # dark tumours of livers
    "synomaly_us": SynomalyNoise(sigma=7.0, threshold=150.0),  # plaques in ultrasound
}


def get_noise(noise: str | Noise) -> Noise:
    """The noise registered under a name; a noise itself is returned as it is.

    Raises:
        InputError: no such noise.
    """
    return noise if callable(noise) else NOISES[choice("noise", noise, NOISES)]
