"""Networks beside the denoiser: an overlay ``train_<name>.json`` trains each, and inference takes the result."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from common import InputError
from common.networks import check_weights
from tests.bundles import zoo

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
OVERLAYS = [(bundle, file) for bundle in zoo.BUNDLES for file in sorted((bundle / "configs").glob("train_*.json"))]
CLASSIFIERS = [(bundle, file) for bundle, file in OVERLAYS if file.stem == "train_classifier"]
TWICE = zoo.named("classifier_guided_ddim"), "train_classifier.json"


def name_of(file: Path) -> str:
    return file.stem.removeprefix("train_")


def options(bundle: Path, file: Path) -> dict[str, Any]:
    """Tiny networks, and as few epochs as for the denoiser."""
    return {**zoo.training_overrides(bundle), **zoo.tiny_networks(zoo.read(bundle, file.name))}


def test_every_other_network_can_be_trained() -> None:
    for bundle in zoo.BUNDLES:
        config = zoo.read(bundle, "inference.json")
        weights = {key.removesuffix("_weights") for key in config if key.endswith("_weights")}
        assert weights == {name_of(file) for other, file in OVERLAYS if other == bundle}
        assert {f"{name}_data_format" for name in weights} <= set(zoo.read(bundle, "metadata.json"))
        for name in weights:
            check_weights(bundle / "models" / f"{name}.pt")
    assert OVERLAYS


@pytest.mark.parametrize(("bundle", "file"), OVERLAYS, ids=[f"{b.name}-{name_of(f)}" for b, f in OVERLAYS])
def test_training_makes_weights_that_inference_takes(
    bundle: Path, file: Path, pictures: Path, overrides: Any, tmp_path: Path
) -> None:
    name = name_of(file)
    given = {**options(bundle, file), "dataset_dir": str(pictures), "output_dir": str(tmp_path / "run")}
    made = zoo.run(bundle, "train.json", file.name, **given)
    weights = tmp_path / "run" / f"{name}.pt"
    check_weights(weights)
    metrics = made.parser.get_parsed_content("validate#evaluator").state.metrics
    assert math.isfinite(metrics["val_loss"])
    images = pictures / "validation_8.png"
    known = {**overrides(bundle), f"{name}_weights": str(weights)}
    taken = zoo.infer(bundle, images, tmp_path / "found", **known)
    inside = taken.parser.get_parsed_content(name).state_dict()
    learnt = torch.load(weights, weights_only=True)
    assert inside.keys() == learnt.keys()
    assert all(torch.equal(inside[key].half(), value) for key, value in learnt.items() if value.is_floating_point())
    assert (tmp_path / "found" / "validation_8_anomaly_map.nii.gz").is_file()


@pytest.mark.parametrize(
    ("option", "problem"),
    [({"finetune": "/no/model.pt"}, "/no/model.pt: no such file"), ({"train_levels": [0, 2000]}, "level")],
)
@pytest.mark.parametrize(("bundle", "file"), CLASSIFIERS, ids=[bundle.name for bundle, _ in CLASSIFIERS])
def test_options_of_the_denoiser_are_those_of_a_classifier(
    bundle: Path, file: Path, option: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    given = {**options(bundle, file), "dataset_dir": str(tmp_path / "no scans"), "output_dir": str(tmp_path / "run")}
    with pytest.raises((RuntimeError, InputError)) as caught:
        zoo.run(bundle, "train.json", file.name, **given, **option)
    assert problem in str(zoo.input_error(caught.value))


def test_labels_that_are_all_one_are_refused(pictures: Path, tmp_path: Path) -> None:
    """Label 0 is healthy, and a classifier needs both."""
    bundle, config = TWICE
    cases = json.loads((pictures / "datalist.json").read_text())
    cases["training"] = [{**case, "image": str(pictures / case["image"])} for case in cases["training"]]
    cases["training"] = [{key: case[key] for key in ("image", "label")} for case in cases["training"] if case["label"]]
    cases["validation"] = []
    listed = tmp_path / "datalist.json"
    listed.write_text(json.dumps(cases))
    given = {**options(bundle, Path(config)), "dataset_dir": str(listed), "output_dir": str(tmp_path / "run")}
    with pytest.raises((RuntimeError, InputError)) as caught:
        zoo.run(bundle, "train.json", config, **given)
    error = zoo.input_error(caught.value)
    assert "are diseased by their label" in error.problem
    assert "healthy (0)" in error.remedy
