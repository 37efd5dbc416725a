from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties

from tests.bundles import zoo

matrix = pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)


def missing(parser: ConfigParser, properties: dict[str, dict[str, Any]]) -> list[str]:
    """All required ids that a config lacks; MONAI's own check stops at the first."""
    required = [each["id"] for each in {**properties, **MetaProperties}.values() if each["required"]]
    return [name for name in required if name not in parser]


def test_missing_ids_are_listed_all_at_once() -> None:
    parser = ConfigParser({"device": "cpu", "train": {"trainer": {"max_epochs": 3}}, "_meta_": {"version": "1.0.0"}})
    assert missing(parser, TrainProperties) == [
        "bundle_root",
        "dataset_dir",
        "train::dataset",
        "train::inferer",
        *(f"_meta_::{name}_version" for name in ("monai", "pytorch", "numpy")),
    ]


@matrix
def test_inference_has_the_ids_that_monai_asks_for(
    bundle: Path, overrides: Any, volumes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = zoo.workflow(
        bundle, ["inference.json"], "infer", dataset_dir=str(volumes), **overrides(bundle), **{"output_dir": "nowhere"}
    )
    assert missing(made.parser, InferProperties) == []
    made.initialize()
    with caplog.at_level(logging.WARNING):
        assert made.check_properties() == []
    assert "wrong ID" not in caplog.text


@matrix
def test_training_has_the_ids_that_monai_asks_for(
    bundle: Path, lessons: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**zoo.training_overrides(bundle), "dataset_dir": str(lessons(bundle)), "output_dir": str(tmp_path)}
    made = zoo.workflow(bundle, ["train.json"], "train", **options)
    assert missing(made.parser, TrainProperties) == []
    made.initialize()
    with caplog.at_level(logging.WARNING):
        assert made.check_properties() == []
    assert "wrong ID" not in caplog.text
