"""The command of robustness on the real configs: small, with networks of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common import InputError
from common.cli import main
from common.evaluation.robustness import card as robustness_card
from common.evaluation.robustness import robustness, robustness_of
from common.evaluation.robustness.perturbations import PERTURBATIONS
from tests.bundles import zoo

NAMES = ("dae", "ddpm")


@pytest.mark.parametrize("name", NAMES)
def test_robustness_card(
    name: str, pictures: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tuple(each for each in PERTURBATIONS if each.name == "noise")
    monkeypatch.setattr(robustness_card, "PERTURBATIONS", chosen)
    monkeypatch.setattr(robustness_card, "EPSILONS", (0.02,))
    options: dict[str, Any] = {"bundles_dir": zoo.ROOT / "bundles", "split": "validation", "settings": str(settings)}
    card = robustness(name, str(pictures), tmp_path, attack_cases=2, draws=20, **options)
    assert [row["kind"] for row in card["perturbations"]] == ["noise"] * 3
    if name == "dae":  # what a denoiser of noise makes of random weights does not depend on the image
        assert all(row["change"] != 0 for row in card["perturbations"])
    for row in card["perturbations"]:
        assert row["change"] == pytest.approx(row["pixel_ap"] - card["clean"]["pixel_ap"])
        assert row["change_interval"][0] <= row["change_interval"][1]
    (row,) = card["attack"]["rows"]
    assert "gradient descent" in card["attack"]["method"]
    assert row["l2_mean"] > 0
    assert json.loads((tmp_path / "robustness.json").read_text())["cases"] == 4
    monkeypatch.setattr(robustness_card, "_measure", None)  # what is there is not made again
    again = robustness(name, str(pictures), tmp_path, attack_cases=2, draws=20, **options)
    assert again["identity"] == card["identity"]
    text = (tmp_path / "robustness.md").read_text()
    assert text.count("\n| noise |") == 4  # three strengths, and beside the attack
    assert "<svg" in (tmp_path / "robustness.html").read_text()
    (tmp_path / "robustness.html").unlink()
    with pytest.raises(TypeError, match="not callable"):  # it begins anew
        robustness(name, str(pictures), tmp_path, attack_cases=2, draws=20, **options)


def test_cards_of_several_bundles(
    pictures: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = tuple(each for each in PERTURBATIONS if each.name in ("noise", "gamma"))
    monkeypatch.setattr(robustness_card, "PERTURBATIONS", chosen)
    content = json.loads(settings.read_text())
    (tmp_path / "not.pt").write_bytes(b"no weights")
    content["ddpm"]["weights"] = str(tmp_path / "not.pt")
    settings.write_text(json.dumps(content))
    words = ["robustness", "dae,ddpm", pictures, "--split", "validation", "--settings", settings, "--out", tmp_path]
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--strengths", "middle", "--attack_cases", "0"])
    assert stop.value.code == 1
    told = capsys.readouterr().out
    assert "failed: ddpm" in told
    assert "| `dae` |" in told
    assert (tmp_path / "summary.md").read_text() in told
    card = json.loads((tmp_path / "dae" / "robustness.json").read_text())
    assert [(row["kind"], row["strength"]) for row in card["perturbations"]] == [
        ("noise", 0.05),
        ("gamma", 0.85),
        ("gamma", 1.2),
    ]
    assert card["attack"] is None
    assert card["command"].startswith("anomaly-zoo robustness --data TEST_SET --bundle dae --split validation")
    assert card["command"].endswith("--settings SETTINGS")


def test_a_key_of_all_is_for_the_bundles_that_have_it(
    pictures: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card is made under settings of which the bundle has none, where another one has them."""
    assert "num_inference_steps" not in zoo.read(zoo.named("dae"), "inference.json")
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({**content, "*": {"num_inference_steps": 1}}))

    def run(*args: Any, **options: Any) -> None:
        raise ArithmeticError("it runs")

    monkeypatch.setattr(robustness_card, "BundleRun", run)
    _, failures = robustness_of(NAMES, str(pictures), tmp_path, split="validation", settings=str(settings))
    assert failures == dict.fromkeys(NAMES, "ArithmeticError: it runs")
    with pytest.raises(ArithmeticError, match="it runs"):
        robustness("dae", str(pictures), tmp_path, split="validation", settings=str(settings))
    settings.write_text(json.dumps({**content, "*": {"number_of_steps": 1}}))
    with pytest.raises(InputError, match="number_of_steps under '\\*'"):
        robustness("dae", str(pictures), tmp_path, split="validation", settings=str(settings))
