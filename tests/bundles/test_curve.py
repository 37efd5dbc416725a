"""The command of the curve on the real configs: small, with networks of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from common import InputError
from common.cli import main
from common.evaluation import curve as curve_module
from common.evaluation.bundle import overrides_of
from common.evaluation.comparison.compare import compare
from tests.bundles import zoo


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ({"dea": {"two": {"median": 3}}}, "names bundles that are not there: dea"),
        ({"dae": {"median": 3}}, "has no points of 'dae', or one that is no mapping of overrides"),
        ({"dae": {}}, "has no points of 'dae'"),
        ({"ddpm": {"slip": {"nosie_level": 100}}}, "settings of 'ddpm': has no nosie_level"),
    ],
)
def test_slips_in_points_stop_a_curve_before_a_network_runs(
    points: dict[str, Any], words: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "__call__", None)
    file = tmp_path / "points.json"
    file.write_text(json.dumps(points))
    with pytest.raises(InputError, match=words):
        curve_module.curves("dae,ddpm", str(pictures), tmp_path / "out", points=str(file))
    assert not (tmp_path / "out").exists()


def test_curve(
    pictures: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = tmp_path / "points.json"
    ten = {"noise_level": 100, "num_inference_steps": 10, "num_restorations": 1, "mirror": False}
    # Paths are relative to the file that names them.
    tiny = json.loads(settings.read_text())["ddpm"]["weights"]
    (tmp_path / "copy.pt").write_bytes(Path(tiny).read_bytes())
    two = {**ten, "num_inference_steps": 2, "weights": "copy.pt"}
    points.write_text(json.dumps({"ddpm": {"ten": ten, "two": two}}))
    words = ["curve", "ddpm", pictures, "--split", "validation", "--settings", settings, "--points", points]
    words += ["--out", tmp_path, "--cases_at_once", 3]
    main(list(map(str, words)))
    assert (tmp_path / "summary.md").read_text() in capsys.readouterr().out
    curve = json.loads((tmp_path / "ddpm" / "curve.json").read_text())
    rows = {row["name"]: row for row in curve["points"]}
    assert [row["network_evaluations_per_slice"] for row in curve["points"]] == [2, 10]
    assert rows["two"]["settings"]["num_inference_steps"] == 2
    assert rows["two"]["change"] == pytest.approx(rows["two"]["pixel_ap"] - rows["ten"]["pixel_ap"])
    assert rows["ten"]["change_interval"] == [0, 0]
    assert curve["fast"] == ("two" if rows["two"]["change"] >= -0.01 else "ten")
    assert curve["cases"] == 4

    # Cases in one batch give what each gives alone.
    content = json.loads(settings.read_text())
    content["ddpm"] |= two
    settings.write_text(json.dumps(content))
    options: dict[str, Any] = {"split": "validation", "settings": str(settings), "draws": 50}
    compared = compare(
        str(pictures), tmp_path / "alone", bundles_dir=zoo.ROOT / "bundles", bundles=("ddpm",), **options
    )
    alone = compared["bundles"][0]
    assert rows["two"]["pixel_ap"] == pytest.approx(alone["metrics"]["pixel_ap"], abs=1e-4)

    assert curve["command"].endswith("--settings SETTINGS --points POINTS")
    monkeypatch.setattr(curve_module, "_point", None)  # what is there is not measured again
    main(list(map(str, words)))


@pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=lambda each: each.name)
def test_default_points_are_settings_of_the_bundle(bundle: Path) -> None:
    points = curve_module.default_points(bundle)
    assert len({json.dumps(point, sort_keys=True) for point in points.values()}) == len(points)
    for point in points.values():
        overrides_of(bundle, {bundle.name: point})
