"""The tables of keys in the pages of the bundles are those of the configs."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import zoo

ROW = re.compile(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \| (.*?) \| .* \|$", re.MULTILINE)
WORDS = {True: ["on"], False: ["off"]}
OTHERWISE = {"reverse_noise": "the same"}  # None, in words


def said(value: Any) -> list[str]:
    """The words that a page has for a value."""
    if isinstance(value, list):
        return [word for each in value for word in said(each)]
    if isinstance(value, bool):
        return WORDS[value]
    if isinstance(value, str) and value.startswith("$@bundle_root"):
        return [re.findall(r"'/(.*)'", value)[0]]
    return [str(value)]


@pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)
def test_defaults_in_the_page_are_those_of_the_configs(bundle: Path) -> None:
    known = zoo.read(bundle, "train.json") | zoo.read(bundle, "inference.json")
    rows = ROW.findall((bundle / "docs" / "README.md").read_text())
    assert len(rows) >= 5
    for cell, default in rows:
        keys = re.findall(r"`([a-z_]+)`", cell)
        if any(OTHERWISE.get(key) == default for key in keys):
            continue
        expected = [word for key in keys for word in said(known[key])]
        found = re.findall(r"[\w./-]+", default.replace(" to ", " ").replace("true", "on"))
        if "…" in default:
            expected = [*expected[: len(found) - 1], expected[-1]]
        assert found == expected, cell
