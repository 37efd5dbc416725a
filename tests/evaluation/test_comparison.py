from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.anomaly import Threshold
from common.bundles import find_bundles
from common.errors import InputError
from common.evaluation.bundle import one_set_each, overrides_of, read_settings, settings_for
from common.evaluation.calibration import level_for_others, quantile_interval, subject_hash
from common.evaluation.comparison.bootstrap import draw_subjects, interval, metrics_of, paired, pixel_ap_of, subjects_of
from common.evaluation.comparison.case import CaseRecord, Cost, fingerprint
from common.evaluation.comparison.folds import check_folds, fold_thresholds
from common.evaluation.comparison.leaks import check_data, check_scores, check_threshold
from common.evaluation.comparison.scores import Scores, baseline, cost_summary, score_cases
from common.evaluation.histogram import ScoreHistogram
from common.evaluation.indices import N_INTENSITIES, ahi_pixel, intensity_counts
from tests.data.files import picture

SHAPE = (24, 20, 1)
COST = Cost(1, 4, 0.5, 2e9, 300.0, False, "CPU")


def record(index: int, lesion: bool, subject: str = "", **changes: Any) -> CaseRecord:
    """A case whose map finds most of its lesion."""
    rng = np.random.default_rng(index)
    region, truth = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    region[2:-2, 2:-2] = True
    if lesion:
        truth[6:10, 6 : 8 + index % 3] = truth[14, 14] = True
    image = np.clip(rng.uniform(0.2, 0.6, SHAPE) + 0.3 * truth, 0, 1)[None].astype(np.float32)
    scores = (np.abs(rng.normal(0, 0.1, SHAPE)) + 0.4 * truth * rng.random(SHAPE)).astype(np.float32) * region
    values = {
        "case": f"case{index}",
        "subject": subject or f"subject{index}",
        "label": int(lesion),
        "key": "k",
        "data": "d",
        "spacing": (2.0, 2.0, 1.0),
        "raw_maximum": float(scores.max()),
        "anomaly_map": scores,
        "truth": truth,
        "region": region,
        "image": image,
        "pseudo_healthy": (0.9 * image).astype(np.float16).astype(np.float32),
        "cost": COST,
    }
    return CaseRecord(**{**values, **changes})


@pytest.fixture
def records() -> list[CaseRecord]:
    return [record(index, index % 3 != 2, f"subject{index // 2}") for index in range(12)]


@pytest.fixture
def scores(records: list[CaseRecord]) -> Scores:
    return score_cases("toy", records, 0.25, min_size=2)


def test_a_record_comes_back_as_it_was(tmp_path: Path, records: list[CaseRecord]) -> None:
    path = tmp_path / "deep" / "case.npz"
    records[0].save(path)
    loaded = CaseRecord.load(path)
    for each in dataclasses.fields(CaseRecord):
        np.testing.assert_array_equal(getattr(loaded, each.name), getattr(records[0], each.name))
    assert CaseRecord.done(path, "k", "d")
    assert not CaseRecord.done(path, "other settings", "d")
    assert not CaseRecord.done(path, "k", "other data")
    path.write_bytes(path.read_bytes()[:200])
    assert not CaseRecord.done(path, "k", "d")
    with pytest.raises(InputError, match=r"case\.npz: cannot be read"):
        CaseRecord.load(path)


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"pixels")
    first, second = ({"image": str(tmp_path / name)} for name in ("a", "b"))
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first) != fingerprint({**first, "mask": str(tmp_path / "b")})
    assert fingerprint(first) != fingerprint({**first, "label": 1})
    (tmp_path / "b").write_bytes(b"other pixels")
    assert fingerprint(first) != fingerprint(second)


def test_point_values_are_those_of_the_pool(scores: Scores) -> None:
    summary, found = scores.pool.summary(), metrics_of(scores)
    shared = set(summary) & set(found)
    assert len(shared) >= 12
    for name in shared:
        assert found[name] == pytest.approx(summary[name], abs=1e-12), name


def test_object_metrics_by_hand(scores: Scores) -> None:
    found = {name: float(values[0]) for name, values in metrics_of(scores).items()}
    tp, fp, fn = (sum(row[f"lesions_{name}"] for row in scores.rows) for name in ("tp", "fp", "fn"))
    assert tp > 0
    assert tp + fn == 16  # two lesions in each of eight cases
    assert found["lesion_sensitivity"] == tp / 16
    assert found["lesion_precision"] == tp / (tp + fp)
    assert found["lesion_f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert found["false_lesions_per_case"] == fp / 12
    assert 0 <= found["panoptic_quality"] <= found["lesion_f1"]
    ill = [row["hd95_mm"] for row in scores.rows if row["lesion_voxels"]]
    assert found["hd95_mm"] == pytest.approx(np.mean(ill))
    assert found["mae_healthy"] > 0


def test_lesions_are_sought_inside_the_region_and_specks_are_none() -> None:
    values, truth = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)
    truth[6:10, 6:10] = truth[0, 0] = True
    values[6:10, 6:8] = values[14, 14] = values[0, 10:14] = 1  # half of a lesion, a speck, and what lies outside
    scores = score_cases("toy", [record(0, True, anomaly_map=values, truth=truth)], 0.25, min_size=2)
    assert [scores.rows[0][f"lesions_{name}"] for name in ("tp", "fp", "fn")] == [1, 0, 0]
    assert [size["lesions"] for size in scores.sizes if size["lesions"]] == [1]


def test_a_lesion_that_is_only_touched_is_not_found() -> None:
    values, truth = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)
    truth[6:10, 6:10] = values[6, 6] = True
    scores = score_cases("toy", [record(0, True, anomaly_map=values, truth=truth)], 0.25, min_size=1)
    assert [(size["found"], size["share"]) for size in scores.sizes if size["lesions"]] == [(0, 1 / 16)]
    assert scores.rows[0]["lesions_fn"] == 1


def test_without_a_threshold_there_are_no_masks(records: list[CaseRecord]) -> None:
    found = metrics_of(score_cases("toy", records))
    assert "lesion_f1" not in found
    assert "dice" not in found
    assert not np.isnan(found["pixel_ap"])


def test_thresholds_by_subject_act_on_their_cases(records: list[CaseRecord]) -> None:
    limits = {each.subject: 0.1 + index / 100 for index, each in enumerate(records)}
    scores = score_cases("toy", records, 0.2, min_size=2, of_subject=limits)
    for each, row in zip(records, scores.rows, strict=True):
        alone = score_cases("toy", [each], limits[each.subject], min_size=2).rows[0]
        assert row == pytest.approx(alone, nan_ok=True)
    assert scores.pool.summary()["threshold"] == 0.2
    shares = [
        alone["share_found"] for alone in score_cases("toy", records[:1], limits["subject0"], min_size=2).size_table()
    ]
    first = score_cases("toy", records[:1], 0.9, min_size=2, of_subject=limits)
    assert [each["share_found"] for each in first.size_table()] == pytest.approx(shares, nan_ok=True)


def test_folds_take_thresholds_from_other_subjects(records: list[CaseRecord]) -> None:
    """Subject i // 2 of case i. Cases 2, 5, 8, 11 are healthy, of subjects 1, 2, 4, 5, so folds begin with these:
    1, 5 and 2, 0 and 4, 3."""
    before, origin = fold_thresholds(records, 0.95, 3, {"level": 2})
    assert (origin.quantile, origin.cases, origin.voxels, origin.settings) == (0.95, 4, 4 * 20 * 16, {"level": 2})
    assert [before[f"subject{index}"] for index in (5, 0, 3)] == [before[f"subject{index}"] for index in (1, 2, 4)]
    assert origin.value == pytest.approx(np.median([before[f"subject{index}"] for index in (1, 2, 4)]))
    own: dict[str, ScoreHistogram] = {}
    for each in records[5], records[8]:  # of subjects 2 and 4: for the fold of subjects 1 and 5
        own[each.subject] = ScoreHistogram()
        own[each.subject].update(each.anomaly_map, each.truth, each.region)
    level = level_for_others(own, 0.95)
    assert level > 0.95
    assert before["subject1"] == sum(own.values(), ScoreHistogram()).quantile(level)
    louder = [
        dataclasses.replace(each, anomaly_map=10 * each.anomaly_map) if each.case == "case2" else each
        for each in records
    ]
    after, _ = fold_thresholds(louder, 0.95, 3, {})
    assert {subject for subject in before if before[subject] == after[subject]} == {"subject1", "subject5"}
    for label in (1, 2):
        ill = [dataclasses.replace(each, label=label) if each.case == "case2" else each for each in louder]
        assert fold_thresholds(ill, 0.95, 3, {})[1].cases == 3


@pytest.mark.parametrize(
    ("folds", "healthy", "message"),
    [
        (1, "abcd", "--folds 1: does not divide 4 subjects"),
        (5, "abcd", "--folds 5: does not divide 4 subjects"),
        (-1, "abcd", "--folds -1: cannot be used"),
        (2, "ab", "healthy cases of 1 subjects"),
        (2, "a", "healthy cases of 0 subjects"),
    ],
)
def test_folds_that_cannot_be(folds: int, healthy: str, message: str) -> None:
    cases = [entry(name, int(name not in healthy), name) for name in "abcd"]
    with pytest.raises(InputError, match=message):
        check_folds(folds, cases, {case["case"]: bool(case["label"]) for case in cases})
    check_folds(0, cases, {})
    check_folds(2, cases, dict.fromkeys("abcd", False))


def test_a_subject_drawn_twice_counts_twice(records: list[CaseRecord], scores: Scores) -> None:
    weights = np.array([[2, 1, 0, 1, 1, 1]])
    assert subjects_of(scores) == [f"subject{index}" for index in range(6)]
    again = [dataclasses.replace(each, case=each.case + "again") for each in records if each.subject == "subject0"]
    kept = [each for each in records if each.subject != "subject2"]
    expected = metrics_of(score_cases("toy", [*kept, *again], 0.25, min_size=2))
    for name, values in metrics_of(scores, weights).items():
        assert values == pytest.approx(expected[name], abs=1e-9, nan_ok=True), name


def test_draws_are_of_as_many_subjects_and_repeat() -> None:
    drawn = draw_subjects(7, 50, seed=3)
    assert (drawn.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(drawn, draw_subjects(7, 50, seed=3))
    assert (drawn != draw_subjects(7, 50, seed=4)).any()
    with pytest.raises(InputError, match="0 subjects"):
        draw_subjects(0, 10)


def test_intervals_hold_the_value_and_shrink_with_subjects() -> None:
    widths = []
    for count in (6, 60):
        each = score_cases("toy", [record(index, True) for index in range(count)])
        drawn = metrics_of(each, draw_subjects(count, 200))["pixel_ap"]
        low, high = interval(drawn)
        assert low <= metrics_of(each)["pixel_ap"][0] <= high
        widths.append(high - low)
    assert widths[1] < 0.75 * widths[0]
    assert all(math.isnan(each) for each in interval(np.array([np.nan])))


def test_indices_are_means_over_the_cases(records: list[CaseRecord], scores: Scores) -> None:
    found = {name: float(values[0]) for name, values in metrics_of(scores).items()}
    assert found["rqi_ssim"] == pytest.approx(np.mean([max(0, row["ssim"]) for row in scores.rows]))
    ill = [row for row in scores.rows if row["lesion_voxels"]]
    pairs = [(max(0, row["ssim"]), 1 - max(0, row["lesion_ssim"])) for row in ill]
    assert found["caci_ssim"] == pytest.approx(np.mean([2 * kept * new / (kept + new) for kept, new in pairs]))
    counts = np.zeros((3, N_INTENSITIES))
    for each in records:
        images = (each.image[:, each.region], each.pseudo_healthy[:, each.region])
        for place, image in ((0, images[0]), (1, images[1])) if each.truth.any() else ((2, images[0]),):
            counts[place] += intensity_counts(image.astype(np.float16))
    assert found["ahi_pixel"] == pytest.approx(float(ahi_pixel(*counts)))
    # Whoever changes nothing keeps everything, and moves nothing.
    half = [each.image.astype(np.float16).astype(np.float32) for each in records]
    same = [dataclasses.replace(each, pseudo_healthy=image) for each, image in zip(records, half, strict=True)]
    kept = score_cases("same", same)
    assert all((before == after).all() for before, after in kept.intensities)
    found = {name: float(values[0]) for name, values in metrics_of(kept).items()}
    assert (found["rqi_ssim"], found["caci_ssim"]) == pytest.approx((1, 0), abs=1e-4)
    assert found["ahi_pixel"] == 0


def test_a_paired_difference_is_on_the_same_draws(records: list[CaseRecord], scores: Scores) -> None:
    drawn = draw_subjects(6, 200)
    same = metrics_of(scores, drawn)["pixel_ap"]
    np.testing.assert_allclose(pixel_ap_of(scores, drawn), same, rtol=1e-12)
    assert paired(same, same) == {"interval": [0, 0], "p": 1.0}
    worse = [dataclasses.replace(each, anomaly_map=each.anomaly_map[::-1].copy()) for each in records]
    other = metrics_of(score_cases("flipped", worse), drawn)["pixel_ap"]
    found = paired(same, other)
    assert found["interval"][0] > 0
    assert found["p"] == 1 / 200


def test_the_baseline_takes_the_better_polarity(records: list[CaseRecord]) -> None:
    assert baseline(lambda: records).name == "intensity (bright)"
    dark = [dataclasses.replace(each, image=1 - each.image) for each in records]
    found = baseline(lambda: dark)
    assert found.name == "intensity (dark)"
    assert found.pool.summary()["pixel_ap"] == pytest.approx(
        score_cases("toy", records).pool.summary()["intensity_ap"], abs=5e-3
    )


def test_lesions_are_told_by_size(scores: Scores) -> None:
    table = scores.size_table()
    # One voxel of 2 x 2 mm is a disc of 2.3 mm; 8 to 16 voxels are 6 to 9 mm.
    assert [row["lesions"] for row in table] == [8, 8, 0, 0]
    assert 0 <= table[0]["found"] <= 1
    assert table[1]["pixel_ap"] > table[1]["prevalence"]
    assert math.isnan(table[2]["pixel_ap"])
    positives = sum(row["lesion_voxels"] for row in scores.rows)
    assert sum(size["counts"].sum() for size in scores.sizes) == positives


def test_cost_leaves_out_the_first_case() -> None:
    warm_up = dataclasses.replace(COST, seconds=9.0, warm_up=True)
    found = cost_summary([warm_up, COST, dataclasses.replace(COST, slices=3, evaluations=12, seconds=1.5)])
    assert found["seconds_per_slice"] == pytest.approx(0.5)
    assert found["network_evaluations_per_slice"] == 4
    assert found["gflop_per_slice"] == pytest.approx(8)
    assert cost_summary([warm_up])["seconds_per_slice"] == 9.0


def entry(name: str, label: int, subject: str, **more: Any) -> dict[str, Any]:
    return {"case": name, "image": name, "label": label, "subject": subject, **more}


def statuses(findings: list[Any]) -> dict[str, str]:
    return {finding.check: finding.status for finding in findings}


def test_a_subject_in_two_splits_is_a_leak() -> None:
    used = [entry("a", 1, "anna", split="validation"), entry("b", 0, "bert", split="validation")]
    good = statuses(check_data([*used, entry("c", 0, "cleo", split="training")], used))
    assert good["no subject is in two splits"] == "ok"
    assert good["cases name their subject"] == "ok"
    assert good["healthy cases are of healthy subjects"] == "ok"
    assert good["nothing was tuned on the test cases"] == "unknown"
    bad = check_data([*used, entry("c", 0, "anna", split="training")], used)
    assert statuses(bad)["no subject is in two splits"] == "leak"
    assert "anna" in bad[0].detail
    halves = [entry("a", 1, "anna", split="training_diseased"), entry("b", 0, "anna", split="training_healthy")]
    assert statuses(check_data(halves, used))["no subject is in two splits"] == "ok"


def test_what_a_reader_must_know_of_the_data(tmp_path: Path) -> None:
    masks = [picture(tmp_path / f"{value}.png", np.full((12, 10), value, np.uint8)) for value in (0, 255)]
    unlabelled: list[dict[str, Any]] = [{"case": m.stem, "image": "a", "mask": str(m)} for m in masks]
    both = {each.check: each.detail for each in check_data([], unlabelled)}
    assert both["healthy cases are scored too"] == "1 of 2 cases"  # the one whose mask is empty
    only_ill = statuses(check_data([], unlabelled[1:]))
    assert only_ill["healthy cases are scored too"] == "warning"
    assert only_ill["cases name their subject"] == "warning"
    assert only_ill["no subject is in two splits"] == "unknown"
    twins = [entry("a", 1, "anna"), entry("b", 0, "anna", brain_mask="m")]
    found = statuses(check_data(twins, twins))
    assert found["healthy cases are of healthy subjects"] == "warning"
    assert found["healthy and other cases are prepared alike"] == "leak"


def threshold(**changes: Any) -> Threshold:
    values: dict[str, Any] = {"value": 0.1, "quantile": 0.99, "calibrated_on": "healthy", "cases": 3, "voxels": 9}
    return Threshold(**{**values, "settings": {"level": 200}, "weights_sha256": "abc", **changes})


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, "ok"),
        (0.3, "unknown"),
        (threshold(), "warning"),
        (threshold(subjects=[subject_hash("cleo")]), "ok"),
        (threshold(subjects=[subject_hash("cleo"), subject_hash("anna")]), "leak"),
    ],
)
def test_where_a_threshold_comes_from(given: Any, status: str) -> None:
    findings = check_threshold("toy", given, [entry("a", 1, "anna")], {"level": 200}, {"weights": "abc"})
    assert findings[0].status == status
    assert findings[0].bundle == "toy"


@pytest.mark.parametrize(
    ("settings", "weights", "words"),
    [
        ({"level": 300}, "abc", "other settings (level)"),
        ({"level": 200}, "xyz", "other weights"),
        ({"level": 200, "mirror": True}, "abc", "other settings (mirror)"),
    ],
)
def test_a_threshold_of_other_settings_or_weights_is_told(settings: dict[str, Any], weights: str, words: str) -> None:
    findings = check_threshold("toy", threshold(), [], settings, {"weights": weights})
    assert findings[1].status == "warning"
    assert words in findings[1].detail


def test_scaling_image_by_image_shows(records: list[CaseRecord], scores: Scores) -> None:
    assert check_scores(scores)[0].status == "ok"
    scaled = [dataclasses.replace(each, raw_maximum=1.0) for each in records]
    assert check_scores(score_cases("scaled", scaled))[0].status == "leak"


def test_a_quantile_has_an_interval_of_subjects() -> None:
    histograms: Mapping[str, ScoreHistogram] = {str(index): ScoreHistogram() for index in range(8)}
    for index, histogram in enumerate(histograms.values()):
        values = np.random.default_rng(index).random(500) * (1 + index / 8)
        histogram.update(values, np.zeros(500))
    pooled = sum(histograms.values(), ScoreHistogram()).quantile(0.95)
    low, high = quantile_interval(histograms, 0.95, draws=200)
    assert low < pooled < high
    assert quantile_interval({"0": histograms["0"]}, 0.95) == []


def test_bundles_are_found_by_name_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    for name in ("beta", "alpha"):
        (tmp_path / name / "configs").mkdir(parents=True)
        for config in ("metadata.json", "inference.json"):
            (tmp_path / name / "configs" / config).write_text('{"noise_level": 1, "weights": "$@root + \'/model.pt\'"}')
    assert [path.name for path in find_bundles(tmp_path)] == ["alpha", "beta"]
    assert [path.name for path in find_bundles(tmp_path, "beta,alpha")] == ["beta", "alpha"]
    assert [path.name for path in find_bundles(tmp_path, ("beta",))] == ["beta"]
    with pytest.raises(InputError, match="gamma"):
        find_bundles(tmp_path, "gamma")
    with pytest.raises(InputError, match="one twice"):
        find_bundles(tmp_path, "beta,beta")
    with pytest.raises(InputError, match="holds no bundle"):
        find_bundles(tmp_path / "beta")

    settings = {"*": {"noise_level": 2, "other": 3}, "beta": {"noise_level": 4}}
    assert overrides_of(tmp_path / "alpha", settings) == {"noise_level": 2}
    assert overrides_of(tmp_path / "beta", settings) == {"noise_level": 4}
    assert overrides_of(tmp_path / "beta", {"*": {"weights#0": 1, "other#0": 1}}) == {"weights#0": 1}
    with pytest.raises(InputError, match="has no nois_level"):
        overrides_of(tmp_path / "beta", {"beta": {"nois_level": 4}})

    (tmp_path / "weights" / "beta").mkdir(parents=True)
    (tmp_path / "weights" / "beta" / "model.pt").touch()
    assert overrides_of(tmp_path / "alpha", {}, tmp_path / "weights") == {}
    found = overrides_of(tmp_path / "beta", {}, tmp_path / "weights")
    assert found == {"threshold": None, "weights": str((tmp_path / "weights" / "beta" / "model.pt").resolve())}
    with pytest.raises(InputError, match="is no folder"):
        overrides_of(tmp_path / "beta", {}, tmp_path / "nowhere")
    model = tmp_path / "weights" / "beta" / "model.pt"
    assert overrides_of(tmp_path / "alpha", {}, model) == {"threshold": None, "weights": str(model.resolve())}
    one_set_each(str(model), find_bundles(tmp_path, "beta"))
    with pytest.raises(InputError, match="one file for 2 bundles"):
        one_set_each(str(model), find_bundles(tmp_path))


def test_settings_are_for_bundles_and_keys_that_are_there(tmp_path: Path) -> None:
    for name, config in (("one", '{"a": 1, "b": {"c": 1}}'), ("two", '{"a": 1, "d": 1}')):
        (tmp_path / "zoo" / name / "configs").mkdir(parents=True)
        (tmp_path / "zoo" / name / "configs" / "inference.json").write_text(config)
    one, two = tmp_path / "zoo" / "one", tmp_path / "zoo" / "two"
    file = tmp_path / "settings.json"
    for text, bundles in (
        ('{"*": {"a": 2, "d": 2}}', [one, two]),
        ('{"*": {"b#c": 2, "b::c": 2}}', [one]),
        ('{"*": {"d": 2}}', [one]),  # one file for several runs
        ('{"one": {"a": 2}, "two": {"other": 2}}', [one]),  # that of others is not looked at
    ):
        file.write_text(text)
        assert settings_for(bundles, file) == read_settings(file)
    assert settings_for([one], None) == {}
    for text, words in (
        ('{"*": {"a": 2, "d": 2, "e#c": 3}}', r"settings\.json: sets e#c under '\*', which no bundle has"),
        ('{"three": {"a": 2}}', r"settings\.json: names bundles that are not there: three"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=words):
            settings_for([one], file)


def test_settings_are_read_with_their_paths(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"a": {"weights": "w/model.pt", "noise": "simplex", "threshold": 0.1}}')
    expected = {"a": {"weights": str((tmp_path / "w/model.pt").resolve()), "noise": "simplex", "threshold": 0.1}}
    assert read_settings(file) == expected
    assert read_settings(None) == {}
    file.write_text("[1]")
    with pytest.raises(InputError, match="no mapping"):
        read_settings(file)
    file.write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_settings(file)
