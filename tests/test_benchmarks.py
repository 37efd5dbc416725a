"""The benchmarks run, at sizes that say nothing about speed."""

import json
import math

import pytest

from benchmarks.__main__ import main, table
from benchmarks.measure import Row


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("benchmarks") / "found.json"
    sections = ["denoiser", "training", "sampler", "slices", "volume", "metrics"]
    found = main(["--quick", "--device", "cpu", "--out", str(file), "--only", *sections])
    written = json.loads(file.read_text())
    assert len(written["rows"]) == len(found)
    assert written["machine"]["threads"] >= 1
    return found


def test_every_section_has_lines_with_numbers(rows):
    assert {row.section for row in rows} == {"denoiser", "sampler", "inference", "metrics"}
    assert all(math.isfinite(row.value) and row.value > 0 for row in rows)
    assert {row.ratio for row in rows if row.name == "MONAI default, fp32"} == {1.0}
    assert any(row.name == "diffusers, fp32" for row in rows)


def test_the_same_weights_say_the_same(rows):
    remarks = [row.remark for row in rows if row.name == "zoo, same weights, fp32" and row.remark]
    assert remarks
    assert all(float(remark.split()[2].rstrip(";")) < 1e-5 for remark in remarks)


def test_metrics_agree(rows):
    (remark,) = (row.remark for row in rows if row.name == "zoo, histogram")
    assert float(remark.split()[2]) < 0.01


def test_a_ratio_that_was_not_measured_is_left_blank():
    line = table([Row("inference", "volume", "dae", 12.34, "s")]).splitlines()[-1]
    assert line == "| inference | volume | dae | 12.34 s |  |  |"
