from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import monai.bundle
import pytest

from common.networks import sha256
from tests.bundles import zoo

FILES = [
    "LICENSE",
    *(f"configs/{name}.json" for name in ("metadata", "train", "inference", "evaluate", "calibrate")),
    "configs/multi_gpu_train.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
    "docs/results.json",
    "models/model.pt",
    "models/SHA256SUMS",
    "models/threshold.json",
]
LARGEST = 16 * 2**20

matrix = pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)


def test_there_are_bundles() -> None:
    methods = "ddpm autoddpm thor anoddpm andi pddpm mddpm cddpm mahalanobis dae synomaly disyre"
    assert set(methods.split()) <= {bundle.name for bundle in zoo.BUNDLES}


@matrix
def test_metadata_fits_the_schema(bundle: Path, tmp_path: Path) -> None:
    metadata = zoo.read(bundle, "metadata.json")
    jsonschema.validate(metadata, json.loads(zoo.SCHEMA.read_text()))
    assert metadata["version"] in metadata["changelog"]
    assert next(iter(metadata["network_data_format"]["inputs"])) == "image"
    assert next(iter(metadata["network_data_format"]["outputs"])) == "pred"
    # MONAI downloads the schema only where no file lies.
    schema = shutil.copy(zoo.SCHEMA, tmp_path / "schema.json")
    monai.bundle.verify_metadata(meta_file=str(bundle / "configs/metadata.json"), filepath=str(schema))


@pytest.mark.parametrize(
    ("missing", "wrong"), [("changelog", None), ("network_data_format", None), (None, {"version": "1"})]
)
def test_schema_refuses(missing: str | None, wrong: dict[str, str] | None) -> None:
    metadata = {**zoo.read(zoo.BUNDLES[0], "metadata.json"), **(wrong or {})}
    metadata.pop(missing or "", None)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(metadata, json.loads(zoo.SCHEMA.read_text()))


@matrix
@pytest.mark.parametrize("config", ["inference.json", "train.json"])
def test_network_does_what_the_metadata_say(bundle: Path, config: str) -> None:
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs/metadata.json"),
        config_file=str(bundle / "configs" / config),
        device="cpu",
        n=2,
        bundle_root=str(bundle),
    )


@matrix
def test_training_and_inference_mean_one_network(bundle: Path) -> None:
    train, inference = (zoo.read(bundle, name) for name in ("train.json", "inference.json"))
    shared = {name for name, _ in zoo.networks(train)} & {name for name, _ in zoo.networks(inference)}
    for key in {"network_def", "schedule", "spatial_size", *shared}:
        assert train.get(key) == inference.get(key)


@matrix
def test_bundle_is_whole(bundle: Path) -> None:
    assert [name for name in FILES if not (bundle / name).is_file()] == []


@matrix
def test_weights_are_those_of_the_hashes(bundle: Path) -> None:
    models = bundle / "models"
    lines = [line.split() for line in (models / "SHA256SUMS").read_text().splitlines()]
    hashes = {name: digest for digest, name in lines}
    assert "model.pt" in hashes
    for file in models.glob("*.pt"):
        assert file.stat().st_size <= LARGEST
        assert hashes[file.name] == sha256(file)
    assert json.loads((models / "threshold.json").read_text())["weights_sha256"] == hashes["model.pt"]
