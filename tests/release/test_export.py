"""Networks as files. A network whose noise level was frozen by the trace would differ from itself at another level."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import common.release.export as module
from common import InputError
from common.cli import main
from common.networks import save_weights
from common.release.examples import example, inputs_of, load_network, network_names
from common.release.export import export, exported_program
from tests.bundles import zoo
from tests.bundles.conftest import _as_before  # noqa: F401 (fixture)

matrix = pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)


def definitions() -> list[tuple[Path, str]]:
    """Bundle and name of each network that has other layers or inputs than those before it."""
    found: dict[str, tuple[Path, str]] = {}
    for bundle in zoo.BUNDLES:
        config, metadata = zoo.read(bundle, "inference.json"), zoo.read(bundle, "metadata.json")
        for name in network_names(config):
            inputs = metadata.get(name.removesuffix("def") + "data_format", {}).get("inputs", {})
            parts = [dict(zoo.networks(config))[name]["_target_"], [*inputs]]
            found.setdefault(json.dumps(parts), (bundle, name))
    return list(found.values())


def small(bundle: Path, folder: Path) -> Path:
    """The bundle with networks as narrow as can be, and random weights."""
    config = zoo.read(bundle, "inference.json")
    overrides = zoo.inference_overrides(bundle, folder / "weights")
    for key, value in overrides.items():
        parts = key.split("#")
        place: Any = config
        for part in parts[:-1]:
            place = place[part]
        place[parts[-1]] = value
    made = folder / bundle.name
    (made / "configs").mkdir(parents=True)
    (made / "configs" / "inference.json").write_text(json.dumps(config))
    (made / "configs" / "metadata.json").write_text((bundle / "configs" / "metadata.json").read_text())
    return made


@matrix
def test_metadata_describe_the_inputs(bundle: Path) -> None:
    """Of every network that has weights, so that it can be called by one who reads nothing else."""
    for name in network_names(zoo.read(bundle, "inference.json")):
        network = load_network(bundle, name)
        inputs = inputs_of(bundle, network, name)
        assert inputs[0].name == "image"
        drawn = example(inputs, batch=2, multiple=4)
        with torch.no_grad():
            output = network(**drawn)
        pred = zoo.read(bundle, "metadata.json")[name.removesuffix("def") + "data_format"]["outputs"]["pred"]
        assert output.shape[:2] == (2, pred["num_channels"])
        assert torch.isfinite(output).all()


@pytest.mark.parametrize(("bundle", "name"), definitions(), ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_file_does_what_the_network_does(bundle: Path, name: str, format: str, tmp_path: Path) -> None:
    made = small(bundle, tmp_path)
    file = tmp_path / f"network.{format}"
    report = export(made, file, network=name)
    assert report["largest_difference"] < 1e-4
    network = load_network(made, name)
    inputs = inputs_of(made, network, name)
    assert report["inputs"] == [each.name for each in inputs]
    loaded = module._load(file, format)
    drawn = example(inputs, batch=3, multiple=4 if not report["free"] else 6, seed=5)
    levels = (0, 1, 357, 999) if "timesteps" in drawn else (0,)
    outputs = []
    for level in levels:
        if "timesteps" in drawn:
            drawn["timesteps"] = torch.full((3,), level)
        with torch.no_grad():
            expected = network(**drawn)
        outputs.append(loaded([*drawn.values()]))
        torch.testing.assert_close(outputs[-1], expected, atol=1e-4, rtol=1e-4)
    assert [path.name for path in tmp_path.glob(".*")] == []


class Levels(nn.Module):
    """Adds the noise level and the class to the image."""

    def forward(self, x: Tensor, timesteps: Tensor | None = None, **kwargs: Tensor) -> Tensor:
        for each in (timesteps, *kwargs.values()):
            x = x if each is None else x + each[:, None, None, None]
        return x


def write(folder: Path, **inputs: str) -> Path:
    """A bundle with that network and these inputs besides the image."""
    target = {"_target_": "tests.release.test_export.Levels"}
    config = {"weights": str(folder / "model.pt"), "network_def": target}
    image = {"num_channels": 1, "spatial_shape": ["8*n", "*"]}
    metadata = {"network_data_format": {"inputs": {"image": image, **inputs}, "outputs": {"pred": {}}}}
    (folder / "configs").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    save_weights(Levels(), folder / "model.pt")
    return folder


def test_levels_that_are_not_described_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not say what 'timesteps'"):
        export(write(tmp_path), tmp_path / "a.pt2")
    assert not list(tmp_path.glob("*.pt2"))


def test_a_frozen_level_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose network has forgotten its level never gets its name."""
    bundle = write(tmp_path, timesteps="noise levels (B,), integers from 0 to 999")

    class Frozen(Levels):
        def forward(self, x: Tensor, timesteps: Tensor | None = None, **kwargs: Tensor) -> Tensor:
            return x + 300

    monkeypatch.setattr(module, "exported_program", lambda _, inputs: exported_program(Frozen(), inputs))
    with pytest.raises(InputError, match="differs from the network"):
        export(bundle, tmp_path / "a.pt2")
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".pt2"]


def _refuse(path: Path) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write(tmp_path, timesteps="noise levels (B,), integers from 0 to 999")
    for options, problem in (
        ({"output": tmp_path / "a.txt"}, "format 'txt'"),
        ({"output": tmp_path / "a.pt2", "network": "no_def"}, "has no network 'no_def'"),
        ({"output": tmp_path / "no" / "a.pt2"}, "cannot be written"),
    ):
        with pytest.raises(InputError, match=problem):
            export(bundle, **options)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", _refuse)
        patch.setattr(module, "load_network", None)
        with pytest.raises(InputError, match="cannot be written → give another folder"):
            export(bundle, tmp_path / "a.pt2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install onnx onnxscript onnxruntime"):
        export(bundle, tmp_path / "a.onnx")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = "noise levels (B,), integers from 0 to 999"
    bundle = write(tmp_path, timesteps=levels, class_labels="classes (B,), integers from 0 to 1")
    main(["export", str(bundle), "--format", "pt2", "--output", str(tmp_path / "a.pt2")])
    assert capsys.readouterr().out.startswith(
        f"{tmp_path / 'a.pt2'}: image, timesteps, class_labels; any size and batch"
    )
    program = torch.export.load(tmp_path / "a.pt2").module()
    assert float(program(torch.zeros(1, 1, 16, 24), torch.tensor([7]), torch.tensor([1])).max()) == 8
