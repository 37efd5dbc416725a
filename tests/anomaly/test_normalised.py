"""Residuals in units of their spread: by the formula, with what healthy images show, and files that are checked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common.anomaly import HealthyStatistics, StatisticsBuilder, normalised_residual, resolve_statistics
from common.errors import InputError
from common.files import sha256

BINS = 16
GENERATOR = torch.Generator().manual_seed(0)
IMAGE = torch.rand(2, 2, 8, 8, generator=GENERATOR)
ESTIMATES = (IMAGE + 0.1 * torch.randn(6, 2, 2, 8, 8, generator=GENERATOR)).clamp(0, 1)


def statistics(bias: float | list[float] = 0.0, spread: float = 0.0) -> HealthyStatistics:
    known: dict[str, Any] = {"calibrated_on": "HEALTHY", "cases": 3, "settings": {}, "weights_sha256": "0"}
    return HealthyStatistics(bias if isinstance(bias, list) else [bias] * BINS, [spread] * BINS, **known)


def test_is_the_residual_over_the_spread() -> None:
    mean, spread = ESTIMATES.mean(dim=0), ESTIMATES.std(dim=0, correction=0)
    expected = ((IMAGE - mean).abs() / (spread**2 + 0.05**2).sqrt()).mean(dim=1, keepdim=True)
    torch.testing.assert_close(normalised_residual(IMAGE, ESTIMATES, offset=0.05), expected)


def test_a_large_offset_makes_it_a_residual() -> None:
    expected = (IMAGE - ESTIMATES.mean(dim=0)).abs().mean(dim=1, keepdim=True)
    torch.testing.assert_close(1e3 * normalised_residual(IMAGE, ESTIMATES, offset=1e3), expected, atol=1e-5, rtol=1e-3)


def test_polarities_add_up_to_both() -> None:
    one = IMAGE[:, :1], ESTIMATES[:, :, :1]
    bright, dark, both = (normalised_residual(*one, polarity=each) for each in ("bright", "dark", "both"))
    torch.testing.assert_close(bright + dark, both)
    assert (bright[one[0] < one[1].mean(dim=0)] == 0).all()


def test_what_healthy_images_show_is_taken_off() -> None:
    mean, variance = ESTIMATES.mean(dim=0), ESTIMATES.var(dim=0, correction=0)
    found = normalised_residual(IMAGE, ESTIMATES, offset=0.05, statistics=statistics(0.02, 0.3))
    expected = ((IMAGE - mean - 0.02).abs() / (variance + 0.3**2 + 0.05**2).sqrt()).mean(dim=1, keepdim=True)
    torch.testing.assert_close(found, expected)


def test_figures_by_brightness_are_those_of_the_residuals() -> None:
    builder = StatisticsBuilder()
    expected = torch.full((1, 40, 40), 0.1)
    expected[:, 20:] = 0.9
    region = torch.ones_like(expected)
    region[:, :, :10] = 0
    noise = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    image = expected + torch.where(expected > 0.5, 0.05 + 0.02 * noise, -0.03 + 0.01 * noise)
    image[:, :, :10] = 9
    for rows in (slice(0, 25), slice(25, 40)):
        builder.update(image[:, rows], expected[:, rows], region[:, rows])
    bias, spread = builder.figures()
    assert bias[1] == pytest.approx(-0.03, abs=0.002)
    assert bias[14] == pytest.approx(0.05, abs=0.004)
    assert spread[1] == pytest.approx(0.01, rel=0.1)
    assert spread[14] == pytest.approx(0.02, rel=0.1)
    assert bias[0] == bias[1]  # an empty bin has the figures of the nearest
    assert bias[10] == bias[14]
    few = torch.full((1, 10, 10), 0.6)
    builder.update(few + 0.3, few, torch.ones_like(few))
    assert builder.figures()[0][9] == bias[10]  # as has one of few pixels


def test_figures_are_read_between_the_centres_of_bins() -> None:
    made = statistics(bias=[float(index) for index in range(BINS)])
    bias, _ = made.at(torch.tensor([0.0, 0.5 / BINS, 1.0 / BINS, 1.0]))
    assert bias.tolist() == pytest.approx([0, 0, 0.5, BINS - 1])


def test_a_file_returns_as_it_was(tmp_path: Path) -> None:
    made = statistics(0.1, 0.2)
    made.save(tmp_path / "statistics.json")
    assert HealthyStatistics.load(tmp_path / "statistics.json") == made


def test_other_settings_and_weights_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of the settings those that shape the estimates, and not those of the map made from them."""
    file, weights, others = (tmp_path / name for name in ("statistics.json", "model.pt", "others.pt"))
    weights.write_bytes(b"weights")
    others.write_bytes(b"others")
    known = {"settings": {"noise_levels": [100], "tv_weight": 1.0}, "weights_sha256": sha256(weights)}
    made = replace(statistics(), **known)  # type: ignore[arg-type]
    made.save(file)
    assert resolve_statistics(file, {"noise_levels": [100], "tv_weight": 2.0}, weights) == made
    assert not caplog.records
    resolve_statistics(file, {"noise_levels": [200]}, others)
    assert "noise_levels: [100] → [200]" in caplog.text
    assert "with other weights than" in caplog.text
    assert resolve_statistics("none") is None
    assert resolve_statistics(made) is made


@pytest.mark.parametrize("content", ["{", "[]", '{"bias": []}'])
def test_what_is_no_file_of_statistics_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        HealthyStatistics.load(tmp_path / "statistics.json")
    (tmp_path / "statistics.json").write_text(content)
    with pytest.raises(InputError, match="is no file of statistics"):
        HealthyStatistics.load(tmp_path / "statistics.json")


def test_statistics_of_other_bins_are_refused(tmp_path: Path) -> None:
    statistics(bias=0.0).save(tmp_path / "s.json")
    content = json.loads((tmp_path / "s.json").read_text())
    (tmp_path / "s.json").write_text(json.dumps({**content, "bias": [0.0] * 5}))
    with pytest.raises(InputError, match="5 and 16 bins"):
        HealthyStatistics.load(tmp_path / "s.json")


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="offset 0"):
        normalised_residual(IMAGE, ESTIMATES, offset=0)
    with pytest.raises(InputError, match="polarity"):
        normalised_residual(IMAGE, ESTIMATES, polarity="grey")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fewer than"):
        StatisticsBuilder().figures()
