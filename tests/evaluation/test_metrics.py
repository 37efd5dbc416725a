from __future__ import annotations

import csv
import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from sklearn.metrics import average_precision_score, roc_auc_score

from common.errors import InputError
from common.evaluation import AnomalyMetrics, PooledScores, evaluate_map
from common.evaluation.histogram import BIN_EDGES
from common.evaluation.report import EXPLANATIONS

SHAPE = (24, 20)
THRESHOLD = 0.35


def on_edges(values: np.ndarray) -> np.ndarray:
    """Values lowered to the histogram's bin edges, so that its numbers are exact."""
    return BIN_EDGES[np.searchsorted(BIN_EDGES, values, side="right") - 1].astype(np.float32)


def make_case(index: int, lesion: bool) -> dict[str, Any]:
    """Case with a bright square lesion, a brain mask, and a map that finds it mostly."""
    rng = np.random.default_rng(index)
    brain, mask = np.zeros((1, *SHAPE), np.uint8), np.zeros((1, *SHAPE), np.uint8)
    brain[:, 3:-3, 3:-3] = 1
    if lesion:
        mask[:, 6 : 9 + index, 7:11] = 1
    image = on_edges(np.clip(rng.uniform(0.2, 0.7, mask.shape) + 0.2 * mask, 0, 1))
    score = on_edges(np.abs(rng.normal(0, 0.15, mask.shape)) + 0.3 * mask * rng.uniform(0.5, 1.5, mask.shape))
    score[brain == 0] = 5.0  # must not count
    return {"case": f"case-{index}", "image": image, "mask": mask, "brain_mask": brain, "anomaly_map": score}


@pytest.fixture
def cases() -> list[dict[str, Any]]:
    return [make_case(index, lesion=index % 3 != 2) for index in range(6)]


def pixels(cases: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    return np.concatenate([case[key][case["brain_mask"] > 0] for case in cases])


def run(cases: list[Any], handler: AnomalyMetrics) -> Engine:
    """Evaluate prepared outputs, two cases a batch."""
    engine = Engine(lambda _engine, batch: batch)
    handler.attach(engine)
    engine.run([cases[start : start + 2] for start in range(0, len(cases), 2)])
    return engine


def test_every_number_agrees_with_its_definition(cases: list[dict[str, Any]]) -> None:
    metrics = run(cases, AnomalyMetrics(threshold=THRESHOLD)).state.metrics
    truth, score, image = (pixels(cases, key) for key in ("mask", "anomaly_map", "image"))
    found = score >= THRESHOLD
    per_case = [
        average_precision_score(pixels([case], "mask"), pixels([case], "anomaly_map"))
        for case in cases
        if case["mask"].any()
    ]
    healthy = [case for case in cases if not case["mask"].any()]
    means = [pixels([case], "anomaly_map").mean() for case in cases]
    tops = [np.sort(pixels([case], "anomaly_map"))[-3:].mean() for case in cases]  # 1 % of 252 pixels, rounded up
    has_lesion = [case["mask"].any() for case in cases]

    def sensitivity(rate: float) -> float:
        return max(truth[score >= t].sum() / truth.sum() for t in score if (score[truth == 0] >= t).mean() <= rate)

    expected = {
        "cases": 6,
        "lesion_cases": 4,
        "healthy_cases": 2,
        "prevalence": truth.mean(),
        "lesion_outside_region": 0.0,
        "pixel_ap": average_precision_score(truth, score),
        "oracle_dice": max(2 * truth[score >= t].sum() / (truth.sum() + (score >= t).sum()) for t in np.unique(score)),
        "threshold": THRESHOLD,
        "dice": 2 * truth[found].sum() / (truth.sum() + found.sum()),
        "healthy_fpr": (pixels(healthy, "anomaly_map") >= THRESHOLD).mean(),
        "case_ap_mean": np.mean(per_case),
        "case_ap_cases": 4,
        "image_auroc_top1": roc_auc_score(has_lesion, tops),
        "image_auroc_mean": roc_auc_score(has_lesion, means),
        "image_ap_top1": average_precision_score(has_lesion, tops),
        "image_ap_mean": average_precision_score(has_lesion, means),
        "sensitivity_fpr1": sensitivity(0.01),
        "sensitivity_fpr5": sensitivity(0.05),
        "intensity_ap": average_precision_score(truth, image),
        "intensity_polarity": 1.0,
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6), name
    best = metrics["oracle_threshold"]
    assert 2 * truth[score >= best].sum() / (truth.sum() + (score >= best).sum()) == metrics["oracle_dice"]
    assert 0 < metrics["intensity_oracle_dice"] < 1
    assert set(metrics) <= set(EXPLANATIONS)


def test_dark_lesions_use_the_inverted_image_as_baseline(cases: list[dict[str, Any]]) -> None:
    bright = run(cases, AnomalyMetrics()).state.metrics
    for case in cases:
        case["image"] = 1 - case["image"]
    dark = run(cases, AnomalyMetrics()).state.metrics
    assert dark["intensity_polarity"] == -1.0
    assert dark["intensity_ap"] == pytest.approx(bright["intensity_ap"], abs=5e-3)


def test_files_and_table(cases: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protocol = {"data": "synthetic", "threshold_from": "healthy cases"}
    folder = tmp_path / "new" / "eval"
    metrics = run(cases, AnomalyMetrics(folder, threshold=THRESHOLD, protocol=protocol, name="toy")).state.metrics
    written = json.loads((folder / "metrics.json").read_text())
    assert written["protocol"] == protocol
    assert written["metrics"] == metrics
    rows = list(csv.DictReader((folder / "cases.csv").open()))
    assert [row["case"] for row in rows] == [case["case"] for case in cases]
    assert (
        float(rows[0]["average_precision"])
        == evaluate_map(cases[0]["anomaly_map"], cases[0]["mask"], cases[0]["brain_mask"])["pixel_ap"]
    )
    assert (rows[2]["average_precision"], rows[2]["dice"], rows[2]["lesion_voxels"]) == ("", "", "0")
    assert sorted(path.name for path in folder.iterdir()) == ["cases.csv", "metrics.json"]
    head, titles, method, baseline = capsys.readouterr().out.splitlines()
    assert head.startswith("6 cases, 4 with lesion, prevalence 0.")
    assert len(titles) == len(method) == len(baseline)
    assert method.startswith("toy ")
    assert f"{metrics['pixel_ap']:.4f}" in method
    assert f"{metrics['intensity_ap']:.4f}" in baseline


def test_undefined_numbers_are_nan_and_null(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    metrics = run([case for case in cases if not case["mask"].any()], AnomalyMetrics(tmp_path)).state.metrics
    written = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    for name in ("pixel_ap", "oracle_dice", "dice", "threshold", "healthy_fpr", "image_auroc_mean", "intensity_ap"):
        assert np.isnan(metrics[name])
        assert written[name] is None
    assert metrics["prevalence"] == 0.0


def test_a_second_run_starts_afresh(cases: list[dict[str, Any]]) -> None:
    handler = AnomalyMetrics(threshold=THRESHOLD)
    engine = Engine(lambda _engine, batch: batch)
    handler.attach(engine)
    engine.run([cases])
    first = dict(engine.state.metrics)
    engine.run([cases])
    assert engine.state.metrics == first


def test_works_in_monai_evaluator_with_keys_left_in_the_batch(cases: list[dict[str, Any]]) -> None:
    def iteration(engine: Engine, batch: dict[str, Any]) -> dict[str, Any]:
        return {"image": batch["image"], "anomaly_map": batch["scores"]}

    data = [{**case, "scores": case["anomaly_map"]} for case in cases]
    for entry in data:
        del entry["anomaly_map"]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=4),
        network=torch.nn.Identity(),
        iteration_update=iteration,
        val_handlers=[AnomalyMetrics(threshold=THRESHOLD)],
    )
    evaluator.run()
    reference = run(cases, AnomalyMetrics(threshold=THRESHOLD)).state.metrics
    assert evaluator.state.metrics == reference


@pytest.mark.parametrize("missing", ["anomaly_map", "mask", "image", "brain_mask", "case"])
def test_a_missing_key_is_named_at_the_first_batch(cases: list[dict[str, Any]], missing: str) -> None:
    for case in cases:
        del case[missing]
    with pytest.raises(InputError, match=f"key '{missing}' is missing") as caught:
        run(cases, AnomalyMetrics())
    assert ("to null" in caught.value.remedy) == (missing in ("image", "brain_mask", "case"))


def test_optional_keys_may_be_switched_off(cases: list[dict[str, Any]]) -> None:
    slim = [{"map": case["anomaly_map"], "mask": case["mask"]} for case in cases]
    handler = AnomalyMetrics(map_key="map", image_key=None, region_key=None, case_key=None)
    metrics = run(slim, handler).state.metrics
    assert metrics["cases"] == 6
    assert np.isnan(metrics["intensity_ap"])
    assert metrics["prevalence"] == pytest.approx(np.mean([case["mask"].mean() for case in cases]))


def test_a_case_may_not_come_twice(cases: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="case case-0: evaluated twice"):
        run([*cases, cases[0]], AnomalyMetrics())


def test_evaluate_map_takes_arrays_with_and_without_channel(cases: list[dict[str, Any]]) -> None:
    case = cases[0]
    keys = {"map": "anomaly_map", "truth": "mask", "region": "brain_mask", "image": "image"}
    arrays = {name: case[key] for name, key in keys.items()}
    reference = evaluate_map(**arrays, threshold=THRESHOLD)
    score, mask, brain, image = (array[0] for array in arrays.values())
    two_channels = torch.from_numpy(np.stack([image, image]))
    volume = {name: array[..., None] for name, array in arrays.items()}
    for other in (
        evaluate_map(score, mask, brain, image, THRESHOLD),
        evaluate_map(torch.from_numpy(score), 255 * mask, 0.8 * brain, two_channels, THRESHOLD),
        evaluate_map(**volume, threshold=THRESHOLD),
    ):
        assert other == pytest.approx(reference, nan_ok=True)
    assert reference["pixel_ap"] == reference["case_ap_mean"]


def test_an_image_is_scored_by_its_mean_and_its_highest_hundredth() -> None:
    found = evaluate_map(np.arange(150.0).reshape(10, 15), np.zeros((10, 15)))
    assert found["score_mean"] == 74.5
    assert found["score_top1"] == 148.5  # two of 150, rounded up


def test_lesion_outside_the_region_is_reported_and_the_case_not_healthy() -> None:
    truth, region = np.zeros(SHAPE), np.ones(SHAPE)
    truth[:2], region[:2] = 1, 0
    numbers = evaluate_map(np.full(SHAPE, 0.5), truth, region, threshold=0.1)
    assert numbers["lesion_outside_region"] == 1.0
    assert numbers["healthy_cases"] == numbers["case_ap_cases"] == 0
    assert np.isnan(numbers["healthy_fpr"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.full(SHAPE, 4)}, "truth has values from 4 to 4"),
        ({"truth": np.full(SHAPE, np.nan)}, "truth has values"),
        ({"truth": np.zeros((3, *SHAPE))}, r"truth has shape \(3, 24, 20\)"),
        ({"region": np.zeros(SHAPE)}, "region is empty"),
        ({"region": np.ones((5, 5))}, "region has shape"),
        ({"image": np.full(SHAPE, -1.0)}, "image values from -1 to -1"),
        ({"image": np.zeros((7, 7))}, "image has shape"),
        ({"map": np.full(SHAPE, np.nan)}, "case map: negative, infinite or NaN"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
    ],
)
def test_unusable_input_is_refused(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "map": np.ones(SHAPE),
        "truth": np.eye(*SHAPE),
        "region": np.ones(SHAPE),
        "image": np.ones(SHAPE),
    }
    evaluate_map(**good)
    with pytest.raises(InputError, match=message):
        evaluate_map(**{**good, **change})


def worker(rank: int, folder: Path, shares: list[list[dict[str, Any]]]) -> None:
    """Evaluate one share in one of two processes; the exit code tells how it went."""
    os.environ["LOCAL_RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(shares)
    )
    idist.sync()
    run(shares[rank], AnomalyMetrics(folder / "eval", threshold=THRESHOLD))
    torch.distributed.destroy_process_group()


def in_processes(folder: Path, shares: list[list[dict[str, Any]]]) -> list[int | None]:
    # Forked, not spawned: a fresh interpreter would import everything again, for seconds.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=worker, args=(rank, folder, shares)) for rank in range(len(shares))]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        process.kill()
    return [process.exitcode for process in processes]


def test_two_processes_give_the_numbers_of_one(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    run(cases, AnomalyMetrics(alone, threshold=THRESHOLD))
    assert in_processes(tmp_path, [cases[1::2], cases[::2]]) == [0, 0]
    for name in ("metrics.json", "cases.csv"):
        assert (tmp_path / "eval" / name).read_text() == (alone / name).read_text()


def test_a_case_in_two_processes_is_refused(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    assert in_processes(tmp_path, [cases[:4], cases[3:]]) == [1, 1]
    assert not list((tmp_path / "eval").iterdir())


def test_pool_in_any_order_gives_the_same_numbers(cases: list[dict[str, Any]]) -> None:
    summaries = []
    for order in (cases, cases[::-1]):
        pool = PooledScores(THRESHOLD)
        for case in order:
            pool.add(case["case"], case["anomaly_map"], case["mask"], case["brain_mask"], case["image"])
        summaries.append(pool.summary())
    assert summaries[0] == pytest.approx(summaries[1], abs=1e-12)
