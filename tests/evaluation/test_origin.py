"""What an evaluation says of its weights and its threshold is true of those in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InputError
from common.evaluation import threshold_origin, training_set
from tests.bundles import zoo


@pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)
def test_the_weights_that_ship_are_of_the_training_set(bundle: Path) -> None:
    stated = zoo.read(bundle, "metadata.json")["data_source"]
    assert training_set(stated, bundle / "models" / "model.pt", bundle) == stated
    assert training_set(stated, bundle / "finetuned" / "model.pt", bundle) == "that of the weights that were given"
    quantile = 0.999 if bundle.name == "segmentation_ensemble" else 0.998
    origin = threshold_origin(str(bundle / "models" / "threshold.json"))
    assert origin == f"IXI T1, 60 slices of validation subjects (quantile {quantile} of 60 cases)"


def test_thresholds_without_a_file(tmp_path: Path) -> None:
    assert threshold_origin(0.1) == "a number that was given"
    assert threshold_origin(None) == "none"
    with pytest.raises(InputError, match="no such threshold"):
        threshold_origin(str(tmp_path / "threshold.json"))
