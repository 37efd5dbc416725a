"""How numbers came about, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from common.anomaly import Threshold
from common.evaluation.bundle import BundleRun, names_file
from common.evaluation.comparison.case import CaseRecord
from common.evaluation.comparison.run import Job
from common.evaluation.comparison.scores import DETECTION_IOU, PANOPTIC_IOU, SIZES_MM
from common.evaluation.origin import OTHER_WEIGHTS
from common.evaluation.restoration import MARGIN_MM

__all__ = ["RULES", "bundle_protocol", "command_of"]

RULES: dict[str, str] = {
    "region": "pixels inside the brain or body mask, on the grid of the network",
    "pooling": "all pixels of all cases together, unless a name says 'case' or 'image'",
    "pixel_ap": "step-wise average precision (no interpolation), 4096 logarithmic bins of scores",
    "oracle_dice": "best Dice over all 4096 bin edges on the test cases themselves: an upper bound",
    "sensitivity": "where at most 1 % or 5 % of the pixels outside lesions are called anomalous (labels used)",
    "aupro": "per-region overlap against the false-positive rate up to 0.3, divided by 0.3; 26-connected lesions",
    "dice": "at the threshold calibrated on healthy scans, before small components are removed",
    "lesions": f"mask at that threshold without small components (min_size) against 26-connected lesions of any size; "
    f"one to one, highest total IoU, a pair needs IoU > {DETECTION_IOU}",
    "panoptic_quality": f"sum of IoU of the pairs / (TP + FP/2 + FN/2), a pair needs IoU > {PANOPTIC_IOU}; pooled",
    "hd95": "95th percentile of the symmetric distance of the outlines in mm, mean over the cases with lesion; a case "
    "with an empty prediction counts with the diagonal of the grid (hd95_empty says how many)",
    "image_score": "top1: mean of the highest 1 % of the scores in the region; mean: of all",
    "restoration": "SSIM (Gaussian window of 11 pixels, σ 1.5) and mean absolute change in the region: of healthy "
    f"cases, and of the others farther than {MARGIN_MM:g} mm from a lesion",
    "indices": "variants of RQI, AHI and CACI without a network, not comparable with published values. rqi_ssim: mean "
    "over cases of the SSIM away from lesions; ahi_pixel: how much closer the intensities of cases with lesion have "
    "come to those of healthy cases, 1 - W(restored, healthy) / W(input, healthy), at least 0; caci_ssim: mean over "
    "cases of the harmonic mean of the SSIM away from lesions and 1 - SSIM inside them",
    "sizes": "diameter of the disc (one slice) or ball of equal size, in ranges from "
    f"{', '.join(f'{low:g}' for low, _ in SIZES_MM)} mm on; "
    f"found: at least {DETECTION_IOU:.0%} of the lesion at or above the threshold",
    "intensity": "the image itself as the score, bright or dark, whichever has the higher pixel AP (labels used)",
    "seconds": "in the inferer alone, one case at a time, the first case of a process left out",
    "gflop": "counted on the first case (multiply and add are two), over its evaluations, times those a slice",
    "memory": "highest allocated (GPU) or resident, program included (CPU)",
}


def command_of(verb: str, words: Mapping[str, Any]) -> str:
    """A command as others would write it, with names for the paths of this machine, which say nothing to them.

    Args:
        verb: e.g. ``compare``.
        words: its options; those that are None are left out, and ``weights``, ``settings`` and ``points`` get a name.
    """
    named = {
        key: key.upper() if key in ("weights", "settings", "points") else word
        for key, word in words.items()
        if word is not None
    }
    return " ".join(["anomaly-zoo", verb, "--data TEST_SET", *(f"--{key} {word}" for key, word in named.items())])


def bundle_protocol(
    run: BundleRun, job: Job, record: CaseRecord, threshold: Threshold | float | None
) -> dict[str, Any]:
    """What a reader needs to repeat or doubt the numbers of one bundle.

    Args:
        run: its workflow.
        job: what was asked for.
        record: any of its cases, for the grid.
        threshold: with its origin.
    """
    # What the config says of its own weights and threshold does not hold for others; what is in use is told below.
    stated = {k: v for k, v in run.get("protocol", {}).items() if k not in ("weights_sha256", "threshold_from")}
    metadata = run.parser.get("_meta_", {})
    inputs = metadata.get("network_data_format", {}).get("inputs", {}).get("image", {})
    if "weights" in job.overrides:
        stated["training_set"] = OTHER_WEIGHTS
    return {
        **stated,
        "name": metadata.get("name", run.bundle.name),
        "version": metadata.get("version", "?"),
        "supervision": metadata.get("supervision", "?"),
        "modality": "?" if "weights" in job.overrides else inputs.get("modality", "?"),
        "channels": inputs.get("num_channels", "?"),
        "grid": list(record.anomaly_map.shape),
        "spacing_mm": list(record.spacing),
        "slices": {key: run.get(key) for key in ("slice_mm", "slice_range_mm", "space")},
        "mask": run.get("brain_mask"),
        "post_processing": {key: run.get(key) for key in ("median", "erosion", "min_size")},
        "threshold": _origin(threshold),
        "overrides": {key: value for key, value in job.overrides.items() if not names_file(key)},
        "weights_sha256": run.weights_sha256,
        "key": run.key,
    }


def _origin(threshold: Threshold | float | None) -> Any:
    if not isinstance(threshold, Threshold):
        return {"value": threshold, "calibrated_on": None if threshold is None else "a number that was given"}
    known = asdict(threshold)
    return {**{key: value for key, value in known.items() if key not in ("settings", "subjects")}} | {
        "subjects": len(threshold.subjects)
    }
