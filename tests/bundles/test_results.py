from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from common.evaluation import bundle_table, results_table
from common.networks import sha256
from tests.bundles import zoo

ROOT = Path(__file__).resolve().parents[2]

matrix = pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)


@matrix
def test_figures_are_of_the_weights_that_ship(bundle: Path) -> None:
    file = json.loads((bundle / "docs" / "results.json").read_text())
    results = {result.get("id"): result for result in file["results"]}
    planted, random = results["ixi_planted"], results["ixi_planted_random"]
    shipped = sha256(bundle / "models" / "model.pt")
    assert planted["protocol"]["weights_sha256"] == file["training"]["weights_sha256"] == shipped
    assert planted["metrics"]["pixel_ap"] > 2 * random["metrics"]["pixel_ap"]
    assert planted["metrics"]["pixel_ap"] > 2 * planted["metrics"]["intensity_ap"]


@matrix
def test_page_shows_the_figures(bundle: Path) -> None:
    assert bundle_table(bundle) in (bundle / "docs" / "README.md").read_text()


@pytest.mark.parametrize(
    ("page", "place", "first"),
    [("README.md", "bundles", "ixi_planted"), ("docs/results.md", "../bundles", "lgg_flair")],
)
def test_pages_of_all_bundles_show_the_figures(page: str, place: str, first: str) -> None:
    text = (ROOT / page).read_text()
    experiments = re.findall(r"<!-- results: (\w+) -->", text)
    assert experiments[0] == first
    for experiment in experiments:
        assert results_table(zoo.BUNDLES, experiment, place) in text
