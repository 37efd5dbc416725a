"""The diffusion core: schedules, spacings, noise, predictions, and exact steps between any two levels."""

from common.diffusion.intensity import to_image_range, to_model_range
from common.diffusion.noise import (
    NOISES,
    CoarseNoise,
    Generators,
    Noise,
    PyramidNoise,
    SimplexNoise,
    SynomalyNoise,
    case_generators,
    case_seed,
    child_generators,
    gaussian_noise,
    get_noise,
    run_generator,
    simplex_field,
)
from common.diffusion.prediction import (
    Clip,
    DynamicThreshold,
    Prediction,
    PredictionType,
    StaticClip,
    predict,
    training_target,
)
from common.diffusion.schedule import BETA_SCHEDULES, CLEAN, Level, NoiseSchedule
from common.diffusion.severity import level_of_severity, severity
from common.diffusion.spacing import SPACINGS, nearest_levels, sampling_levels
from common.diffusion.steps import Variance, between, ddim_step, ddpm_step, forward_step

__all__ = [
    "BETA_SCHEDULES",
    "CLEAN",
    "NOISES",
    "SPACINGS",
    "Clip",
    "CoarseNoise",
    "DynamicThreshold",
    "Generators",
    "Level",
    "Noise",
    "NoiseSchedule",
    "Prediction",
    "PredictionType",
    "PyramidNoise",
    "SimplexNoise",
    "StaticClip",
    "SynomalyNoise",
    "Variance",
    "between",
    "case_generators",
    "case_seed",
    "child_generators",
    "ddim_step",
    "ddpm_step",
    "forward_step",
    "gaussian_noise",
    "get_noise",
    "level_of_severity",
    "nearest_levels",
    "predict",
    "run_generator",
    "sampling_levels",
    "severity",
    "simplex_field",
    "to_image_range",
    "to_model_range",
    "training_target",
]
