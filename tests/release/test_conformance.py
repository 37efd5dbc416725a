"""What MONAI and its model zoo ask of a bundle, on releases as they are unpacked."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow
from monai.data import MetaTensor, decollate_batch
from monai.transforms import Compose, LoadImaged, SaveImaged

from common.release.examples import example, inputs_of, load_network
from common.release.versions import archive_name
from tests.bundles import zoo
from tests.bundles.conftest import _as_before, overrides, volumes  # noqa: F401 (fixtures)
from tests.release.test_export import small

matrix = pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)
LARGEST = 25 * 2**20  # that the zoo takes into git
# Preferred keys of the zoo's contributing guide, besides those that MONAI's properties require.
INFERENCE_KEYS = ("bundle_root", "device", "network_def", "inferer", "output_dir", "preprocessing", "postprocessing")
TRAINING_KEYS = ("bundle_root", "device", "dataset_dir", "output_dir", "train", "validate")
PERSONAL = re.compile(r'"/(?!/)[A-Za-z]|[A-Z]:\\\\|~/')


@pytest.fixture(scope="module")
def unpacked(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Unpack the release of a bundle, once."""
    folder = tmp_path_factory.mktemp("unpacked")

    def get(bundle: Path) -> Path:
        if not (folder / bundle.name).exists():
            name = archive_name(bundle.name, zoo.read(bundle, "metadata.json")["version"])
            with zipfile.ZipFile(dist / name) as file:
                file.extractall(folder)
        return folder / bundle.name

    return get


@matrix
def test_checks_of_the_model_zoo(bundle: Path, unpacked: Any, tmp_path: Path) -> None:
    release = unpacked(bundle)
    for name in ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md"):
        assert (release / name).is_file()
    metadata, inference, train = (zoo.read(release, f"{name}.json") for name in ("metadata", "inference", "train"))
    assert metadata["version"] in metadata["changelog"]
    assert [key for key in INFERENCE_KEYS if key not in inference] == []
    assert [key for key in TRAINING_KEYS if key not in train] == []
    assert inference["bundle_root"] == train["bundle_root"] == "."
    for file in (release / "configs").iterdir():
        assert not PERSONAL.search(file.read_text()), file
    assert max(file.stat().st_size for file in release.rglob("*") if file.is_file()) <= LARGEST
    assert not list(release.rglob("*.y*ml"))  # `load` and MONAI Label look for JSON alone
    for file in (release / "models").glob("*.pt"):
        state = torch.load(file, weights_only=True)
        assert all(isinstance(value, torch.Tensor) for value in state.values())
    schema = tmp_path / "schema.json"
    schema.write_bytes(zoo.SCHEMA.read_bytes())  # MONAI downloads it only where no file lies
    monai.bundle.verify_metadata(meta_file=str(release / "configs/metadata.json"), filepath=str(schema))


def test_personal_paths_are_seen() -> None:
    assert all(PERSONAL.search(text) for text in ('"a": "/home/me"', '"C:\\\\x"', '"~/x"'))
    assert not PERSONAL.search('"$@bundle_root + \'/models/model.pt\'", "https://arxiv.org"')


@matrix
def test_load(bundle: Path, unpacked: Any) -> None:
    """The network with the weights of the release; MONAI's own loader of weights is used."""
    release = unpacked(bundle)
    network = monai.bundle.load(
        release.name, bundle_dir=str(release.parent), workflow_type="inference", source="github"
    )
    ours = load_network(release)
    assert type(network) is type(ours)
    expected = ours.state_dict()
    assert {
        name for name, value in network.state_dict().items() if not torch.equal(value.cpu(), expected[name])
    } == set()


@pytest.mark.parametrize("bundle", zoo.BUNDLES[-1:], ids=zoo.by_name)
def test_workflows_with_overrides(bundle: Path, unpacked: Any, overrides: Any, volumes: Path, tmp_path: Path) -> None:  # noqa: F811
    release = unpacked(bundle)
    file = str(release / "configs" / "inference.json")
    options = {**overrides(bundle), "bundle_root": str(release), "dataset_dir": str(volumes / "well.nii.gz")}
    written = []
    for name, maker in (("class", ConfigWorkflow), ("function", create_workflow)):
        made = maker(config_file=file, workflow_type="infer", output_dir=str(tmp_path / name), **options)
        made.initialize()
        made.run()
        made.finalize()
        assert made.parser["threshold"] == options["threshold"]
        written.append(np.asarray(nibabel.load(tmp_path / name / "well_anomaly_map.nii.gz").dataobj))
    np.testing.assert_array_equal(written[0], written[1])


@pytest.mark.parametrize("bundle", zoo.distinct("inference.json"), ids=zoo.by_name)
@pytest.mark.parametrize("trace", [False, True], ids=["script", "trace"])
def test_ckpt_export_is_right_or_refused(bundle: Path, trace: bool, tmp_path: Path) -> None:
    """TorchScript by MONAI's command knows one input: networks that need their level refuse (docs/releases.md)."""
    made = small(bundle, tmp_path)
    network = load_network(made)
    inputs = inputs_of(made, network)
    drawn = example(inputs[:1], batch=1, multiple=4)
    image = next(iter(drawn.values()))
    file = tmp_path / "model.ts"
    config = json.loads((made / "configs" / "inference.json").read_text())
    refusal = ""
    try:
        monai.bundle.ckpt_export(
            net_id="network_def",
            filepath=str(file),
            ckpt_file=config["weights"],
            meta_file=str(made / "configs" / "metadata.json"),
            config_file=str(made / "configs" / "inference.json"),
            use_trace=trace,
            input_shape=list(image.shape),
            bundle_root=str(made),
        )
    except (RuntimeError, TypeError, torch.jit.frontend.FrontendError) as error:
        refusal = str(error)
    if refusal:
        assert "timesteps" in refusal or not trace  # scripting fails in MONAI's own network
        assert not file.exists()
        return
    exported = torch.jit.load(file)
    for level in (0, 500, 999):
        with torch.no_grad():
            expected = network(image, timesteps=torch.tensor([level]))
            torch.testing.assert_close(exported(image), expected, atol=1e-4, rtol=1e-4)


@matrix
def test_monai_label(bundle: Path, overrides: Any, volumes: Path) -> None:  # noqa: F811
    """What its BundleInferTask does with a bundle, step by step."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    for key, value in {**overrides(bundle), "bundle_root": str(bundle)}.items():
        parser[key] = value
    metadata = zoo.read(bundle, "metadata.json")
    (image_key, image), (pred_key, pred) = (
        next(iter(metadata["network_data_format"][part].items())) for part in ("inputs", "outputs")
    )
    assert (image_key, pred_key) == ("image", "pred")
    assert all(key.isdigit() for key in pred["channel_def"])
    assert len(image["spatial_shape"]) == 2
    network = parser.get_parsed_content("network_def").eval()

    before = parser.get_parsed_content("preprocessing")
    data: Any = {image_key: str(volumes / "bright.nii.gz"), "image_path": str(volumes / "bright.nii.gz")}
    steps = before.transforms if isinstance(before, Compose) else before
    assert sum(isinstance(step, LoadImaged) for step in steps) == 1  # which it replaces
    for step in steps:
        data = step(data)
    inferer = parser.get_parsed_content("inferer")
    with torch.no_grad():
        outputs = inferer(data[image_key][None], network)
    data[pred_key] = decollate_batch(outputs)[0] if isinstance(outputs, dict) else outputs[0]
    after = parser.get_parsed_content("postprocessing")
    assert not any(isinstance(step, SaveImaged) for step in after.transforms)
    for step in after.transforms:
        data = step(data)
    result, given = data[pred_key], nibabel.load(volumes / "bright.nii.gz")
    assert isinstance(result, MetaTensor)
    assert result.shape == (1, *given.shape)
    assert set(np.unique(result)) <= {0, 1}
    np.testing.assert_allclose(result.affine, given.affine, atol=1e-4)

    inferer.output = "anomaly_map"
    with torch.no_grad():
        size = parser.get_parsed_content("spatial_size")
        assert isinstance(inferer(torch.rand(1, 1, *size), network), torch.Tensor)
