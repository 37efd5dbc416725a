"""Pixel metrics from a histogram, against scikit-learn's from all voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.measure import Row, Setup, compare
from common.evaluation import ScoreHistogram

__all__ = ["metrics"]


def metrics(setup: Setup) -> list[Row]:
    """AP, AUROC and best Dice of as many voxels as a volume has, 1 % of them positive."""
    try:
        from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
    except ImportError:
        print("scikit-learn is not installed (pip install 'anomaly-zoo[benchmark]'): left out")
        return []
    count = 20_000 if setup.quick else 2_000_000
    generator = np.random.default_rng(0)
    truth = generator.random(count) < 0.01
    scores = (generator.gamma(2, 0.05, count) + truth * generator.gamma(2, 0.1, count)).astype(np.float32)

    def ours() -> tuple[float, ...]:
        histogram = ScoreHistogram()
        histogram.update(torch.from_numpy(scores), torch.from_numpy(truth))
        return histogram.average_precision(), histogram.auroc(), histogram.oracle_dice()[0]

    def theirs() -> tuple[float, ...]:
        precision, recall, _ = precision_recall_curve(truth, scores)
        dice = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        return average_precision_score(truth, scores), roc_auc_score(truth, scores), float(dice)

    functions: dict[str, Any] = {"scikit-learn": theirs, "zoo, histogram": ours}
    difference = max(abs(mine - right) for mine, right in zip(ours(), theirs(), strict=True))
    remarks = {"zoo, histogram": f"differs by {difference:.4f} at most"}
    case = f"AP, AUROC, best Dice of {count:,} voxels"
    return compare("metrics", case, functions, setup, reference="scikit-learn", remarks=remarks)
