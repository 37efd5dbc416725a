"""Anomaly maps, post-processing, and thresholds."""

from common.anomaly.calibrated import changed_settings
from common.anomaly.filters import dilate, gaussian_smooth, grey_closing, opencv_blur, tv_denoise
from common.anomaly.mahalanobis import body_region, check_mahalanobis, mahalanobis
from common.anomaly.maps import (
    MAPS,
    AnomalyMap,
    Polarity,
    get_map,
    harmonic_mean,
    magnitude,
    residual,
    smooth_residual,
    squared,
    ssim,
    tv_residual,
)
from common.anomaly.normalised import HealthyStatistics, StatisticsBuilder, normalised_residual, resolve_statistics
from common.anomaly.perceptual import FeatureDistance, LpipsDistance
from common.anomaly.postprocess import PostProcessd, clean_map, clean_mask
from common.anomaly.saliency import counterfactual_saliency, saliency_mask
from common.anomaly.threshold import Threshold, resolve_threshold

__all__ = [
    "MAPS",
    "AnomalyMap",
    "FeatureDistance",
    "HealthyStatistics",
    "LpipsDistance",
    "Polarity",
    "PostProcessd",
    "StatisticsBuilder",
    "Threshold",
    "body_region",
    "changed_settings",
    "check_mahalanobis",
    "clean_map",
    "clean_mask",
    "counterfactual_saliency",
    "dilate",
    "gaussian_smooth",
    "get_map",
    "grey_closing",
    "harmonic_mean",
    "magnitude",
    "mahalanobis",
    "normalised_residual",
    "opencv_blur",
    "residual",
    "resolve_statistics",
    "resolve_threshold",
    "saliency_mask",
    "smooth_residual",
    "squared",
    "ssim",
    "tv_denoise",
    "tv_residual",
]
