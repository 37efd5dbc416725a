"""What a paper has, as an overlay beside the defaults of its bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles import zoo

PUBLISHED = [bundle for bundle in zoo.BUNDLES if (bundle / "configs" / "published.json").is_file()]

matrix = pytest.mark.parametrize("bundle", PUBLISHED, ids=zoo.by_name)


def evaluations(bundle: Path, *overlays: str) -> int:
    made = zoo.workflow(bundle, ["inference.json", *overlays], "infer", threshold=0.1)
    inferer = made.parser.get_parsed_content("inferer")
    return inferer.evaluations_per_slice * inferer.num_restorations * (1 + inferer.mirror)


@matrix
def test_published_settings_are_settings_of_the_bundle(bundle: Path) -> None:
    defaults, published = (zoo.read(bundle, name) for name in ("inference.json", "published.json"))
    assert set(published) <= set(defaults)
    assert published != {key: defaults[key] for key in published}
    assert all(key in defaults["settings"] for key in published)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ddpm", 301),
        ("thor", 351),
        ("anoddpm", 251),
        ("andi", 125),
        ("autoddpm", 452),
        ("classifier_guided_ddim", 1002),
    ],
)
def test_published_settings_visit_every_level(name: str, expected: int) -> None:
    bundle = zoo.named(name)
    assert evaluations(bundle, "published.json") == expected
    assert 5 * evaluations(bundle) <= expected


def test_there_is_a_published_setting_wherever_a_default_differs_from_the_paper() -> None:
    own = {"ensemble"}  # of no paper
    assert {bundle.name for bundle in zoo.BUNDLES} - {bundle.name for bundle in PUBLISHED} == own
    for bundle in PUBLISHED:
        assert "published.json" in (bundle / "docs" / "README.md").read_text(), bundle.name
