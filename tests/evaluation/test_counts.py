from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from common.evaluation import PooledScores
from common.evaluation.counts import auroc, average_precision, oracle_dice, per_region_overlap, sensitivity_at
from common.evaluation.histogram import BIN_EDGES, N_BINS
from common.evaluation.pool import image_counts


def on_edges(values: np.ndarray) -> np.ndarray:
    """Values lowered to the histogram's bin edges, so that its numbers are exact."""
    return BIN_EDGES[np.searchsorted(BIN_EDGES, values, side="right") - 1].astype(np.float32)


def counted(scores: np.ndarray, truth: np.ndarray, bins: int) -> np.ndarray:
    return np.stack([np.bincount(scores[truth == side], minlength=bins) for side in (0, 1)])


def test_a_batch_of_histograms_agrees_with_sklearn_one_by_one() -> None:
    rng = np.random.default_rng(0)
    draws = [(rng.integers(0, 12, 300), rng.integers(0, 2, 300)) for _ in range(5)]
    counts = np.stack([counted(scores, truth, 12) for scores, truth in draws]).reshape(5, 2, 12)
    for index, (scores, truth) in enumerate(draws):
        assert average_precision(counts)[index] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        assert auroc(counts)[index] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        dice = max(2 * truth[scores >= t].sum() / (truth.sum() + (scores >= t).sum()) for t in range(12))
        assert oracle_dice(counts)[index] == pytest.approx(dice, abs=1e-12)


def test_weights_may_be_fractions() -> None:
    counts = np.array([[3.0, 1, 0], [1, 1, 2]])
    assert average_precision(counts / 7) == pytest.approx(average_precision(counts))
    assert auroc(counts / 7) == pytest.approx(auroc(counts))


@pytest.mark.parametrize("empty", [0, 1])
def test_one_class_alone_is_undefined(empty: int) -> None:
    counts = np.ones((2, 4))
    counts[empty] = 0
    assert np.isnan(auroc(counts))
    assert np.isnan(sensitivity_at(counts, 0.01))
    assert np.isnan(average_precision(counts)) == (empty == 1)
    assert np.isnan(oracle_dice(counts)) == (empty == 1)


def test_sensitivity_takes_no_more_false_positives_than_allowed() -> None:
    # 100 negatives: 96 in bin 0, 3 in bin 1, 1 in bin 2. 10 positives: 2, 3, 5.
    counts = np.array([[96, 3, 1], [2, 3, 5]])
    assert sensitivity_at(counts, 0.01) == 0.5
    assert sensitivity_at(counts, 0.039) == 0.5  # the tie in bin 1 is taken whole or not at all
    assert sensitivity_at(counts, 0.04) == 0.8
    assert sensitivity_at(counts, 1.0) == 1.0
    assert sensitivity_at(counts, 0.0) == 0.0


def test_per_region_overlap_by_hand() -> None:
    # Two lesions: one all in bin 2, one half in bin 1. Negatives: a fifth in bin 1, the rest in bin 0.
    negatives, overlap = np.array([8, 2, 0]), np.array([0.5, 0.5, 1.0])
    # (FPR, overlap): (0, 0.5), (0.2, 0.75), (1, 1)
    assert per_region_overlap(negatives, overlap, 0.2) == pytest.approx((0.5 + 0.75) / 2)
    at_limit = 0.75 + 0.25 * 0.1 / 0.8
    assert per_region_overlap(negatives, overlap, 0.3) == pytest.approx(
        (0.2 * 0.625 + 0.1 * (0.75 + at_limit) / 2) / 0.3
    )
    assert per_region_overlap(np.array([1, 0]), np.array([0, 3.0])) == 1.0
    assert np.isnan(per_region_overlap(negatives, np.zeros(3)))


def test_aupro_of_a_pool_is_that_of_all_thresholds() -> None:
    rng = np.random.default_rng(1)
    truth = np.zeros((40, 40), bool)
    truth[5:8, 5:8] = truth[20:32, 18:30] = True
    truth[8, 8] = True  # touches the first at a corner
    score = on_edges(np.abs(rng.normal(0, 0.2, truth.shape)) + 0.3 * truth * rng.random(truth.shape))
    region = np.ones_like(truth)
    region[:, :3] = False
    pool = PooledScores()
    pool.add("one", score, truth, region)
    labels, count = ndimage.label(truth, np.ones((3, 3)))
    assert count == 2
    points = [(0.0, 0.0)]
    for threshold in np.unique(score)[::-1]:
        found = score >= threshold
        rate = found[region & ~truth].mean()
        points.append((rate, np.mean([found[labels == index].mean() for index in (1, 2)])))
    rates, overlaps = np.array(points).T
    grid = np.unique(np.append(rates[rates <= 0.3], 0.3))
    last = {rate: overlaps[rates == rate].max() for rate in rates}
    first = {rate: overlaps[rates == rate].min() for rate in rates}
    area = 0.0
    for left, right in pairwise(grid):
        end = first.get(right, np.interp(right, rates, overlaps))
        area += (right - left) * (last[left] + end) / 2
    assert pool.summary()["aupro"] == pytest.approx(area / 0.3, abs=1e-9)


def test_a_lesion_of_one_voxel_counts_as_much_as_a_large_one() -> None:
    truth = np.zeros((20, 20), bool)
    truth[2, 2] = truth[10:16, 10:16] = True
    score = np.where(truth, 0.5, 0.0)
    score[2, 2] = 0.0  # missed
    pool = PooledScores()
    pool.add("one", score, truth)
    # Half of the lesions from the first threshold on, and the way to (1, 1) is a straight line.
    assert pool.summary()["aupro"] == pytest.approx(0.5 + 0.5 * 0.3 / 2)
    assert pool.overlap.sum() == pytest.approx(2)
    assert pool.overlap.shape == (N_BINS,)


def test_images_are_ranked_exactly_with_ties() -> None:
    scores, ill = [0.1, 0.4, 0.4, 0.3, 0.9], [False, True, False, False, True]
    counts = image_counts(scores, ill)
    assert average_precision(counts) == pytest.approx(average_precision_score(ill, scores))
    assert auroc(counts) == pytest.approx(roc_auc_score(ill, scores))
