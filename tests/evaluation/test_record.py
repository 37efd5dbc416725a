from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from common.evaluation import bundle_table, results_table, update_tables
from common.evaluation.card_tables import card_table, middle, summary_table
from common.evaluation.curve_tables import curve_summary
from common.evaluation.record import record, record_measured
from common.files import write_json

METRICS = {"pixel_ap": 0.4184, "prevalence": 0.01, "intensity_ap": 0.02, "lesion_f1": 0.31, "hd95_mm": math.nan}


def comparison(folder: Path, *names: str, **more: Any) -> Path:
    """What a comparison of bundles leaves, as far as it is recorded."""
    entries = [
        {
            "bundle": name,
            "metrics": METRICS,
            "intervals": {"pixel_ap": [0.2604321, 0.5561234], "hd95_mm": [math.nan, math.nan]},
            "sizes": [],
            "cost": {
                "network_evaluations_per_slice": 15.0,
                "gflop_per_slice": 12.3,
                "seconds_per_slice": 0.5,
                "peak_mib": 800.0,
                "hardware": "CPU (x86_64), 1 thread(s), float32",
            },
            "protocol": {
                "name": name,
                "key": "abc",
                "test_set": "patients of mine",
                "settings": {"noise_level": 200},
                "overrides": {"spatial_size": [64, 64], "extra": "/home/me/extra.txt"},
                "weights_sha256": {"weights": "f" * 64, "classifier_weights": "e" * 64},
            },
        }
        for name in names
    ]
    results = {
        "command": "anomaly-zoo compare --data TEST_SET --weights WEIGHTS",
        "bundles": entries,
        "baselines": [{"name": "intensity (bright)", "intervals": {"pixel_ap": [0.012, 0.031]}}, {"name": "chance"}],
        "bootstrap": {"unit": "subject", "draws": 1000},
        "data": {"name": "patients of mine", "split": None, "cases": 9, "subjects": 5, "lesion_cases": 4},
        "versions": {"anomaly-zoo": "0.1.0"},
        "leaks": [
            {"bundle": "", "check": "no subject is in two splits", "status": "leak", "detail": "Jane Doe"},
            {"bundle": names[0], "check": "maps are not scaled", "status": "ok", "detail": ""},
        ],
        "failures": [{"bundle": "broken", "error": "no weights"}],
        **more,
    }
    write_json(folder / "results.json", results)
    return folder


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Two bundles, one of which has results."""
    folder = tmp_path / "bundles"
    for name in ("one", "two"):
        for config in ("inference.json", "metadata.json"):
            write_json(folder / name / "configs" / config, {})
    old = {"id": "planted", "name": "planted lesions", "metrics": {"pixel_ap": 0.5, "prevalence": 0.01}}
    results = [old, {**old, "id": "planted_random"}, {"name": "not in tables", "metrics": {}}]
    write_json(folder / "one" / "docs" / "results.json", {"version": "3", "results": results, "training": {"steps": 7}})
    return folder


def content(bundles: Path, name: str) -> dict[str, Any]:
    return json.loads((bundles / name / "docs" / "results.json").read_text())


def test_a_comparison_becomes_an_entry_of_each_bundle(bundles: Path, tmp_path: Path) -> None:
    folder = comparison(tmp_path / "out", "one", "two")
    options: dict[str, Any] = {"bundles_dir": bundles, "name": "scans"}
    written = record(folder, title="Scans", **options)
    assert written == [bundles / name / "docs" / "results.json" for name in ("one", "two")]
    one = content(bundles, "one")
    assert [each.get("id") for each in one["results"]] == ["planted", "planted_random", "scans", None]
    assert (one["version"], one["training"]) == ("3", {"steps": 7})
    (entry,) = content(bundles, "two")["results"]
    assert entry == one["results"][2]
    assert entry["name"] == "Scans"
    assert entry["data"] == "9 cases of 5 subjects, 4 with lesion"
    assert entry["command"] == "anomaly-zoo compare --data TEST_SET --weights WEIGHTS"
    assert entry["metrics"] == {**METRICS, "hd95_mm": None}
    assert entry["intervals"] == {"pixel_ap": [0.260432, 0.556123], "intensity_ap": [0.012, 0.031]}
    assert (entry["gflop_per_slice"], entry["hardware"]) == (12.3, "CPU (x86_64), 1 thread(s), float32")
    protocol = entry["protocol"]
    assert (protocol["test_set"], protocol["weights_sha256"]) == ("TEST_SET", "f" * 64)
    assert protocol["other_files_sha256"] == {"classifier_weights": "e" * 64}
    assert protocol["overrides"] == {"spatial_size": [64, 64], "extra": "extra.txt"}
    assert protocol["leaks"] == {"no subject is in two splits": "leak"}
    for private in ("patients of mine", "Jane Doe", "/home/me", str(tmp_path)):
        assert private not in (bundles / "two" / "docs" / "results.json").read_text()
    assert record(folder, **options) == written  # the name stays
    assert content(bundles, "one") == one


def test_tables_show_intervals_beside_entries_without(bundles: Path, tmp_path: Path) -> None:
    record(comparison(tmp_path / "out", "two"), bundles_dir=bundles, name="planted", title="planted lesions")
    folders = [bundles / "one", bundles / "two"]
    table = results_table(folders, "planted")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    shown = {row[0].split("]")[0].strip("[`"): dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    assert list(shown) == ["one", "two", "intensity alone", "chance"]
    assert shown["one"]["pixel AP"] == "0.500"
    assert shown["one"]["AP, random weights"] == "0.500"
    assert shown["two"]["pixel AP"] == "0.418 [0.26, 0.56]"
    assert shown["two"]["lesion F1"] == "0.310"
    assert shown["two"]["GFLOP a slice"] == "12.3"
    assert "0.418 [0.26, 0.56]" in bundle_table(bundles / "two")
    alone = results_table([bundles / "two"], "planted")
    assert "| intensity alone | 0.020 [0.01, 0.03] |" in alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "are new in two"),
        ({"title": "T", "bundles": "one,broken"}, "it failed: no weights"),
        ({"title": "T", "bundles": "other"}, "was not compared"),
        ({"title": "T", "data": "scans in /home/me/scans"}, "a path of this machine"),
        ({"title": "T", "command": "compare --data=C:\\scans"}, "a path of this machine"),
    ],
)
def test_slips_change_no_file(bundles: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    before = content(bundles, "one")
    options: dict[str, Any] = {"bundles_dir": bundles, "name": "planted", **changes}
    with pytest.raises(InputError, match=message):
        record(comparison(tmp_path / "out", "one", "two"), **options)
    assert content(bundles, "one") == before
    assert not (bundles / "two" / "docs").exists()
    with pytest.raises(InputError, match=r"results\.json: cannot be read"):
        record(tmp_path, **options)


def card(bundle: str, ap: float) -> dict[str, Any]:
    """A robustness card as it is written."""

    def row(change: float) -> dict[str, Any]:
        return {"pixel_ap": ap + change, "change": change, "change_interval": [change - 0.1, change + 0.1]}

    def about(kind: str, strength: float, change: float) -> dict[str, Any]:
        return {"kind": kind, "strength": strength, "unit": "σ", **row(change)}

    return {
        "bundle": bundle,
        "data": "patients of mine",
        "command": f"anomaly-zoo robustness --data TEST_SET --bundle {bundle}",
        "cases": 9,
        "subjects": 5,
        "clean": {"pixel_ap": ap, "interval": [0.1, 0.6]},
        "perturbations": [
            *(about("noise", strength, change) for strength, change in ((0.02, -0.01), (0.05, -0.02), (0.1, -0.3))),
            *(about("gamma", strength, change) for strength, change in ((0.7, -0.4), (0.85, 0.01), (1.2, -0.05))),
            about("gamma", 1.5, -0.5),
        ],
        "attack": {
            "method": "gradient",
            "cases": 9,
            "clean": {"pixel_ap": ap},
            "rows": [{"epsilon": 0.01, "attack": row(-0.25), "noise": row(0.0)}],
        },
        "protocol": {
            "test_set": "patients of mine",
            "split": None,
            "overrides": {"extra": "/home/me/extra.txt"},
            "weights_sha256": {"weights": "f" * 64},
        },
        "identity": "abc",
    }


def test_the_middle_of_the_strengths() -> None:
    assert [list(middle(range(count))) for count in (1, 2, 3, 4)] == [[0], [0, 1], [1], [1, 2]]


def test_cards_in_tables() -> None:
    lines = card_table(card("one", 0.4)).splitlines()
    assert lines[2:] == [
        "| noise | 0.05 σ | 0.380 | -0.020 | -0.120 to +0.080 |",
        "| gamma | 1.2 σ | 0.350 | -0.050 | -0.150 to +0.050 |",  # the worse of two in the middle
        "| attack | ε 0.01 | 0.150 | -0.250 | -0.350 to -0.150 |",
        "| noise as large | ε 0.01 | 0.400 | +0.000 | -0.100 to +0.100 |",
    ]
    bare = {**card("two", 0.5), "attack": None}
    lines = summary_table({"one": card("one", 0.4), "two": bare}).splitlines()
    assert lines == [
        "|  | pixel AP | noise 0.05 | gamma 0.85, 1.2 | attack 0.01 | noise as large |",
        "|---|---|---|---|---|---|",
        "| `two` | 0.500 [0.10, 0.60] | -0.020 | -0.050 |  |  |",
        "| `one` | 0.400 [0.10, 0.60] | -0.020 | -0.050 | -0.250 | +0.000 |",
    ]


def test_an_attack_on_fewer_cases_names_them() -> None:
    few = card("few", 0.4)
    few["attack"] |= {"cases": 4, "clean": {"pixel_ap": 0.45}}
    rows = [line.split(" | ")[0] for line in card_table(few).splitlines()[-2:]]
    assert rows == ["| attack (4 cases, 0.450 as they are)", "| noise as large (4 cases, 0.450 as they are)"]
    *table, empty, last = summary_table({"few": few, "all": card("all", 0.5)}).splitlines()
    assert len(table) == 4
    assert empty == ""
    assert last.endswith("of fewer cases. Pixel AP of these as they are: `few` 0.450 (4 cases).")


def test_cards_are_recorded_and_shown(bundles: Path, tmp_path: Path) -> None:
    page, own = tmp_path / "comparison.md", bundles / "two" / "docs" / "README.md"
    for file, name in ((page, "all"), (own, "bundle")):
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"<!-- robustness: {name} -->\n<!-- /robustness -->\n")
    folders = [bundles / "one", bundles / "two"]
    for name in ("one", "two"):
        write_json(tmp_path / "cards" / name / "robustness.json", card(name, 0.4))
    before = content(bundles, "one")
    record_measured(tmp_path / "cards", bundles_dir=bundles, data="nine cases")
    after = content(bundles, "one")
    recorded = after.pop("robustness")
    assert after == before
    assert recorded["data"] == "nine cases"
    assert recorded["protocol"]["weights_sha256"] == "f" * 64
    for private in ("patients of mine", "/home/me"):
        assert private not in json.dumps(recorded)
    assert summary_table({name: card(name, 0.4) for name in ("one", "two")}) in update_tables(page, folders)
    text = update_tables(own, folders)
    assert text.startswith("<!-- robustness: bundle -->\n**Robustness** (nine cases): pixel AP 0.400 [0.10, 0.60]")
    assert card_table(card("two", 0.4)) in text
    # One card, of one bundle.
    write_json(tmp_path / "card" / "robustness.json", card("two", 0.3))
    assert len(record_measured(tmp_path / "card", bundles_dir=bundles)) == 1
    assert content(bundles, "two")["robustness"]["data"] == "9 cases of 5 subjects"
    with pytest.raises(InputError, match="no comparison, robustness card or curve"):
        record_measured(tmp_path / "bundles", bundles_dir=bundles)


def curve(name: str) -> dict[str, Any]:
    def row(name: str, evaluations: float, ap: float) -> dict[str, Any]:
        numbers = {"pixel_ap": ap, "interval": [0.1, 0.6], "change": ap - 0.4, "change_interval": [-0.1, 0.1]}
        cost = {"network_evaluations_per_slice": evaluations, "seconds_per_slice": 0.5, "hardware": "CPU"}
        return {"name": name, "oracle_dice": 0.5, **numbers, **cost, "settings": {}, "drawn": [0.1], "identity": "x"}

    points = [row("one step", 1, 0.2), row("fast", 20, 0.395), row("default", 30, 0.45), row("published", 300, 0.4)]
    about = {"command": "anomaly-zoo curve --data TEST_SET", "cases": 9, "subjects": 5}
    return {"bundle": name, **about, "reference": "published", "fast": "fast", "points": points}


def test_curves_are_recorded_and_shown(bundles: Path, tmp_path: Path) -> None:
    page, own = tmp_path / "README.md", bundles / "two" / "docs" / "README.md"
    for file, name in ((page, "all"), (own, "bundle")):
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"<!-- curve: {name} -->\n<!-- /curve -->\n")
    folders = [bundles / "one", bundles / "two"]
    assert update_tables(page, folders[:1]) == page.read_text() == "<!-- curve: all -->\n<!-- /curve -->\n"
    write_json(tmp_path / "curves" / "two" / "curve.json", curve("two"))
    record_measured(tmp_path / "curves", bundles_dir=bundles)
    recorded = content(bundles, "two")["curve"]
    assert recorded["data"] == "9 cases of 5 subjects"
    assert "drawn" not in recorded["points"][0]
    lines = update_tables(own, folders).splitlines()
    assert "| one step | 1 | 0.50 | 0.200 [0.10, 0.60] | -0.200 [-0.10, +0.10] | 0.500 |" in lines
    assert "| **fast** | 20 | 0.50 | 0.395 [0.10, 0.60] | -0.005 [-0.10, +0.10] | 0.500 |" in lines
    assert "| published | 300 | 0.50 | 0.400 [0.10, 0.60] |  | 0.500 |" in lines
    summary = update_tables(page, folders).splitlines()[3]
    assert summary.startswith("| `two` | published | 300 |")
    assert summary.endswith("| 0.400 [0.10, 0.60] | 20 | 30 | 0.50 | 0.450 [0.10, 0.60] | 10 × |")
    bare = {**curve("two"), "points": [each for each in curve("two")["points"] if each["name"] != "default"]}
    assert curve_summary({"two": bare}).endswith("| 0.400 [0.10, 0.60] | 20 |  |  |  |  |")


def test_without_a_card_nothing_is_shown(bundles: Path, tmp_path: Path) -> None:
    page, empty = tmp_path / "comparison.md", "<!-- robustness: all -->\n<!-- /robustness -->\n"
    page.write_text(empty)
    assert update_tables(page, [bundles / "one"]) == empty
