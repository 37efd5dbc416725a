from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from common.evaluation import results_table


def write(folder: Path, name: str, **results: dict[str, Any]) -> Path:
    file = folder / name / "docs" / "results.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"results": [{"id": key, **value} for key, value in results.items()]}))
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
    assert [row[0] for row in cells[2:]] == ["`better`", "`worse`", "intensity alone", "chance"]
    assert dict(zip(cells[0], cells[2], strict=True)) == {
        "": "`better`",
        "pixel AP": "0.300",
        "AP per case": "",
        "best Dice": "",
        "Dice at threshold": "0.400",
        "healthy FPR": "1.23 %",
        "image AUROC": "",
        "AP, random weights": "",
        "evaluations": "15",
        "seconds a slice": "",
    }
    assert cells[3][7:] == ["0.005", "", "0.50"]
    assert [row[1] for row in cells[4:]] == ["0.020", "0.010"]


def test_unknown_experiment_and_damaged_file_are_refused(tmp_path: Path) -> None:
    good = write(tmp_path, "good", planted=figures(0.2))
    with pytest.raises(InputError, match="in no bundle"):
        results_table([good], "nothing")
    (good / "docs" / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results\.json"):
        results_table([good], "planted")
