"""Encoders that are pre-trained: by an overlay on ``train.json``, before the training that takes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from common.networks import check_weights
from tests.bundles import zoo

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
ENCODERS = [bundle for bundle in zoo.BUNDLES if (bundle / "configs" / "pretrain_encoder.json").is_file()]


@pytest.mark.parametrize("bundle", ENCODERS, ids=zoo.by_name)
def test_training_begins_with_the_pretrained_encoder(bundle: Path, healthy_pictures: Path, tmp_path: Path) -> None:
    options = {**zoo.training_overrides(bundle), "dataset_dir": str(healthy_pictures)}
    before = _encoder(zoo.workflow(bundle, ["train.json"], "train", **options))
    zoo.run(bundle, "train.json", "pretrain_encoder.json", **options, output_dir=str(tmp_path))
    file = tmp_path / "encoder.pt"
    check_weights(file)
    learnt = torch.load(file, weights_only=True)

    def difference(weights: dict[str, torch.Tensor]) -> float:
        assert weights.keys() == learnt.keys()
        return max(float((weights[name].half() - value).abs().max()) for name, value in learnt.items())

    assert difference(before) > 0
    taken = zoo.workflow(bundle, ["train.json"], "train", **options, pretrained_encoder=str(file))
    assert difference(_encoder(taken)) == 0
    averaged = taken.parser.get_parsed_content("ema").ema_model.encoder.state_dict()
    assert difference(averaged) == 0
    given = {**options, "finetune": str(tmp_path / "model.pt")}
    assert difference(_encoder(zoo.workflow(bundle, ["train.json", "pretrain_encoder.json"], "train", **given))) == 0


def test_there_are_encoders() -> None:
    assert "cddpm" in {bundle.name for bundle in ENCODERS}


def _encoder(made: ConfigWorkflow) -> dict[str, torch.Tensor]:
    made.initialize()
    return made.parser.get_parsed_content("network").encoder.state_dict()
