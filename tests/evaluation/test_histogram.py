from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from common.errors import InputError
from common.evaluation import ScoreHistogram
from common.evaluation.histogram import BIN_EDGES, N_BINS


def mixture(seed: int, n: int = 60_000, prevalence: float = 0.005) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose positives are shifted upwards, and their truth."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < prevalence
    shape, scale = rng.uniform(1, 4), rng.uniform(0.01, 0.2)
    scores = rng.gamma(shape, scale, n) + truth * rng.gamma(3, rng.uniform(1, 4) * scale, n)
    return scores.astype(np.float32), truth


def quantised(scores: np.ndarray) -> np.ndarray:
    """Scores lowered to the edge of their bin."""
    return BIN_EDGES[np.searchsorted(BIN_EDGES, scores, side="right") - 1]


def counted(scores: object, truth: object, region: object = None) -> ScoreHistogram:
    histogram = ScoreHistogram()
    histogram.update(scores, truth, region)
    return histogram


def brute_force_dice(scores: np.ndarray, truth: np.ndarray) -> float:
    """Best Dice over all distinct scores, by one sort."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    tp = np.cumsum(truth[order])
    dice = 2 * tp / (np.arange(1, scores.size + 1) + truth.sum())
    return float(dice[last_of_tie].max())


def test_there_are_exactly_4096_bins_with_the_stated_edges() -> None:
    assert ScoreHistogram().counts.shape == (2, N_BINS) == (2, 4096)
    assert BIN_EDGES[1] == 2.0**-24 * (1 + 2**-7)
    assert BIN_EDGES[128] == 2.0**-23
    assert BIN_EDGES[-2] == 2.0**8 * (1 - 2**-8)


@pytest.mark.parametrize("seed", range(4))
def test_quantised_scores_agree_with_sklearn_exactly(seed: int) -> None:
    scores, truth = mixture(seed, prevalence=0.03)
    scores = quantised(scores)
    scores[::7] = scores[0]  # a large tie
    histogram = counted(scores, truth)
    assert histogram.average_precision() == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    assert histogram.auroc() == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    assert histogram.oracle_dice()[0] == pytest.approx(brute_force_dice(scores, truth), abs=1e-12)


def test_continuous_scores_at_low_prevalence_lose_little() -> None:
    losses = []
    for seed in range(10):
        scores, truth = mixture(seed, n=200_000)
        histogram = counted(scores, truth)
        losses.append(
            (
                average_precision_score(truth, scores) - histogram.average_precision(),
                roc_auc_score(truth, scores) - histogram.auroc(),
                brute_force_dice(scores, truth) - histogram.oracle_dice()[0],
            )
        )
    ap, auroc, dice = np.array(losses).T
    assert np.abs(ap).max() < 3e-3
    assert np.abs(ap).mean() < 2e-3
    assert np.abs(auroc).max() < 1e-4
    assert dice.max() < 5e-3
    assert dice.mean() < 2e-3
    assert dice.min() >= 0  # bin edges are some of all thresholds: never above the exact optimum


def test_the_oracle_threshold_reproduces_the_oracle_dice() -> None:
    scores, truth = mixture(3, prevalence=0.05)
    histogram = counted(scores, truth)
    dice, threshold = histogram.oracle_dice()
    predicted = scores >= threshold
    assert dice == pytest.approx(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()), abs=1e-12)
    assert histogram.dice_at(threshold) == dice
    assert histogram.false_positive_rate(threshold) == pytest.approx(predicted[~truth].mean(), abs=1e-12)


def test_quantile_as_threshold_keeps_the_promised_share() -> None:
    scores, truth = mixture(5, prevalence=0.1)
    histogram = counted(scores, truth)
    for q in (0.0, 0.5, 0.95, 0.995, 1.0):
        threshold = histogram.quantile(q)
        assert histogram.false_positive_rate(threshold) <= 1 - q + 1e-12
        assert (scores[~truth] < threshold).mean() >= q
        assert threshold <= np.quantile(scores[~truth], q) * (1 + 2**-6)
    assert histogram.quantile(0.9, of="all") > histogram.quantile(0.9)
    assert counted([1000.0], [0]).quantile(1.0) == np.inf
    assert counted([1000.0], [0]).false_positive_rate(np.inf) == 0.0


def test_undefined_numbers_are_nan() -> None:
    empty = ScoreHistogram()
    assert np.isnan([empty.average_precision(), empty.auroc(), empty.prevalence, empty.quantile(0.5)]).all()
    assert np.isnan(empty.oracle_dice()).all()
    healthy = counted([0.1, 0.2], [0, 0])
    assert healthy.prevalence == 0.0
    assert np.isnan([healthy.average_precision(), healthy.auroc(), healthy.dice_at(0.1), *healthy.oracle_dice()]).all()
    lesion = counted([0.1, 0.2], [1, 1])
    assert lesion.prevalence == lesion.average_precision() == lesion.oracle_dice()[0] == 1.0
    assert lesion.dice_at(0.15) == pytest.approx(2 / 3)
    assert np.isnan([lesion.auroc(), lesion.false_positive_rate(0.1), lesion.quantile(0.5)]).all()


def test_merging_equals_a_joint_update() -> None:
    (a, truth_a), (b, truth_b) = mixture(0, 1000, 0.1), mixture(1, 1000, 0.1)
    joint = counted(np.concatenate((a, b)), np.concatenate((truth_a, truth_b)))
    first, second = counted(a, truth_a), counted(b, truth_b)
    total = first + second
    np.testing.assert_array_equal(total.counts, joint.counts)
    assert first.counts.sum() == 1000
    total.all_reduce()  # alone: nothing to add
    np.testing.assert_array_equal(total.counts, joint.counts)


def test_scaling_by_powers_of_two_changes_nothing() -> None:
    scores, truth = mixture(2, 5000, 0.05)
    reference = counted(scores, truth)
    for factor in (2.0**-8, 0.5, 32.0):
        scaled = counted(scores * np.float32(factor), truth)
        assert scaled.average_precision() == reference.average_precision()
        assert scaled.auroc() == reference.auroc()
        assert scaled.oracle_dice() == (reference.oracle_dice()[0], reference.oracle_dice()[1] * factor)


def test_arrays_of_any_kind_and_shape_and_a_region() -> None:
    scores, truth = mixture(4, 6000, 0.1)
    region = np.arange(6000) % 3 > 0
    reference = counted(scores[region], truth[region])
    shape = (10, 20, 30)
    volumes = [item.reshape(shape) for item in (scores, truth.astype(np.uint8) * 255, region)]
    as_numpy = counted(*volumes)
    as_torch = counted(*(torch.from_numpy(item) for item in volumes))
    strided = counted(*(item[::-1] for item in volumes))
    for histogram in (as_numpy, as_torch, strided):
        np.testing.assert_array_equal(histogram.counts, reference.counts)
    outside = counted([np.nan, 1.0], [0, 1], [0, 1])
    assert outside.positives == 1
    assert outside.negatives == 0


def test_extreme_scores_fall_into_the_outer_bins() -> None:
    histogram = counted([0.0, -0.0, 1e-30, 256.0, 1e30], [0, 0, 0, 1, 1])
    assert histogram.counts[0, 0] == 3
    assert histogram.counts[1, -1] == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e-6])
def test_bad_scores_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="case 7: negative, infinite or NaN"):
        ScoreHistogram().update([0.1, bad], [0, 1], source="case 7")


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="of the truth differs"):
        ScoreHistogram().update(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(InputError, match="of the region differs"):
        ScoreHistogram().update(np.zeros(3), np.zeros(3), np.zeros(4))
    with pytest.raises(InputError, match="not a share"):
        ScoreHistogram().quantile(99.0)
    for threshold in (-0.1, np.nan):
        with pytest.raises(InputError, match="threshold"):
            ScoreHistogram().dice_at(threshold)
