"""Samplers: pure loops over explicit levels, all with the same shape of signature."""

from common.samplers.basic import (
    SAMPLERS,
    Method,
    check_sampler,
    ddim_invert,
    ddim_sample,
    ddpm_sample,
    partial_diffusion,
)
from common.samplers.cold import cold_sample
from common.samplers.counterfactual import (
    INVERTERS,
    FusedSample,
    Solver,
    check_solver,
    ddim_round_trip,
    fused_sample,
    invert,
)
from common.samplers.deviation import ANDI_LEVELS, Deviation, reverse_deviation
from common.samplers.estimate import estimate_states, estimates, has_pairs, single_step
from common.samplers.guidance import (
    ClassifierFreeGuidance,
    GradientGuidance,
    class_log_probability,
    compose,
    segment_log_probability,
    value_log_likelihood,
)
from common.samplers.inpaint import inpaint, resampling_levels
from common.samplers.multistage import multistage
from common.samplers.multistep import MultistepSolver, dpm_invert, dpm_sample
from common.samplers.patches import Overlap, Patch, box_mask, patch_boxes, patched_estimate
from common.samplers.thor import HARMONISE_LEVELS, MAP_LEVELS, ThorSample, thor_sample
from common.samplers.walk import Callback, Guidance, Step

__all__ = [
    "ANDI_LEVELS",
    "HARMONISE_LEVELS",
    "INVERTERS",
    "MAP_LEVELS",
    "SAMPLERS",
    "Callback",
    "ClassifierFreeGuidance",
    "Deviation",
    "FusedSample",
    "GradientGuidance",
    "Guidance",
    "Method",
    "MultistepSolver",
    "Overlap",
    "Patch",
    "Solver",
    "Step",
    "ThorSample",
    "box_mask",
    "check_sampler",
    "check_solver",
    "class_log_probability",
    "cold_sample",
    "compose",
    "ddim_invert",
    "ddim_round_trip",
    "ddim_sample",
    "ddpm_sample",
    "dpm_invert",
    "dpm_sample",
    "estimate_states",
    "estimates",
    "fused_sample",
    "has_pairs",
    "inpaint",
    "invert",
    "multistage",
    "partial_diffusion",
    "patch_boxes",
    "patched_estimate",
    "resampling_levels",
    "reverse_deviation",
    "segment_log_probability",
    "single_step",
    "thor_sample",
    "value_log_likelihood",
]
