from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from common.evaluation import bundle_table, results_table, update_tables


def write(folder: Path, name: str, **results: dict[str, Any]) -> Path:
    file = folder / name / "docs" / "results.json"
    file.parent.mkdir(parents=True)
    file.write_text(
        json.dumps({"results": [{"id": key, "name": f"on {key}", **value} for key, value in results.items()]})
    )
    return file.parents[1]


def figures(ap: float, **more: float) -> dict[str, Any]:
    return {"metrics": {"pixel_ap": ap, "prevalence": 0.01, "intensity_ap": 0.02, "healthy_fpr": 0.0123, **more}}


def test_best_first_with_baselines_and_random_weights(tmp_path: Path) -> None:
    worse = write(tmp_path, "worse", planted={**figures(0.2), "seconds_per_slice": 0.5}, planted_random=figures(0.005))
    better = write(tmp_path, "better", planted={**figures(0.3, dice=0.4), "network_evaluations_per_slice": 15})
    other = write(tmp_path, "other", else_where=figures(0.9))
    lines = results_table([worse, better, other], "planted").splitlines()
    assert len({line.count("|") for line in lines}) == 1
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[0] for row in cells[2:]] == [
        "[`better`](bundles/better/docs/README.md)",
        "[`worse`](bundles/worse/docs/README.md)",
        "intensity alone",
        "chance",
    ]
    assert dict(zip(cells[0], cells[2], strict=True)) == {
        "": "[`better`](bundles/better/docs/README.md)",
        "pixel AP": "0.300",
        "Dice at threshold": "0.400",
        "healthy FPR": "1.23 %",
        "AP, random weights": "",
        "evaluations": "15",
        "seconds a slice": "",
    }
    assert cells[3][3:] == ["1.23 %", "0.005", "", "0.50"]
    assert [row[1] for row in cells[4:]] == ["0.020", "0.010"]


def test_unknown_experiment_and_damaged_file_are_refused(tmp_path: Path) -> None:
    good = write(tmp_path, "good", planted=figures(0.2))
    with pytest.raises(InputError, match="in no bundle"):
        results_table([good], "nothing")
    (good / "docs" / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results\.json"):
        results_table([good], "planted")


def test_a_bundle_shows_every_experiment(tmp_path: Path) -> None:
    bundle = write(tmp_path, "one", planted=figures(0.2), scans=figures(0.4, dice=0.3))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in bundle_table(bundle).splitlines()]
    assert [row[:2] for row in rows[2:]] == [["on planted", "0.200"], ["on scans", "0.400"]]
    assert rows[0] == ["", "pixel AP", "Dice at threshold", "healthy FPR", "AP, intensity", "AP, chance"]
    assert rows[3][4:] == ["0.020", "0.010"]


def test_pages_get_fresh_tables_and_keep_the_rest(tmp_path: Path) -> None:
    bundle = write(tmp_path / "zoo", "one", planted=figures(0.2))
    page, own = tmp_path / "docs" / "results.md", bundle / "docs" / "README.md"
    page.parent.mkdir()
    page.write_text("# Zoo\n<!-- results: planted -->\nold\n<!-- /results -->\nAfter.\n")
    own.write_text("<!-- results: bundle -->\n<!-- /results -->\n")
    text = update_tables(page, [bundle])
    table = results_table([bundle], "planted", "../zoo")
    assert text == page.read_text() == f"# Zoo\n<!-- results: planted -->\n{table}\n<!-- /results -->\nAfter.\n"
    assert "[`one`](../zoo/one/docs/README.md)" in text
    assert update_tables(page, [bundle]) == text
    assert bundle_table(bundle) in update_tables(own, [bundle])
    own.write_text("nothing")
    with pytest.raises(InputError, match="no place for results"):
        update_tables(own, [bundle])
