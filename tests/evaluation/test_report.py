from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import InputError
from common.evaluation import case_figure, write_report
from common.files import write_atomic, write_json

RNG = np.random.default_rng(0)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_write_json_takes_what_metrics_are_made_of(tmp_path: Path) -> None:
    path = tmp_path / "new" / "numbers.json"
    write_json(path, {"a": np.float32(0.5), "b": float("nan"), "c": [torch.tensor([1, 2]), np.inf], "d": tmp_path})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": None, "c": [[1, 2], None], "d": str(tmp_path)}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full_disk(self: Path, data: bytes) -> int:
        self.open("wb").close()
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_figure_has_a_panel_for_what_is_given() -> None:
    image, healthy, score = RNG.random((3, 20, 24))
    mask = score > 0.8
    three = pixels(case_figure(image, healthy, score))
    five = pixels(case_figure(image[None], torch.from_numpy(healthy), score[None], truth=mask, mask=255 * mask))
    assert five.shape[1] > 1.4 * three.shape[1]
    empty = pixels(case_figure(image, healthy, score, truth=0 * mask, mask=0 * mask, title="nothing found"))
    assert empty.shape[1] == five.shape[1]


def test_the_first_axis_points_right_and_the_second_down() -> None:
    image = np.zeros((30, 30))
    image[20:, :10] = 1  # right, top
    figure = pixels(case_figure(image, 0 * image, 0 * image)).min(axis=-1)
    left_panel = figure[figure.shape[0] // 6 :, : figure.shape[1] // 4]
    rows, columns = np.nonzero(left_panel == 255)
    assert rows.mean() < left_panel.shape[0] / 2
    assert columns.mean() > left_panel.shape[1] / 2


def test_a_volume_shows_its_most_telling_slice() -> None:
    image, score, truth = np.zeros((12, 14, 5)), np.zeros((12, 14, 5)), np.zeros((12, 14, 5))
    image[..., 1], image[..., 3] = 0.2, 0.6
    score[4:6, 4:6, 1], truth[8:10, 8:10, 3] = 1, 1
    by_map, by_truth = case_figure(image, image, score, vmax=1), case_figure(image, image, score, truth, vmax=1)
    assert (pixels(by_map) == 51).all(-1).mean() > 0.05
    assert (pixels(by_truth) == 153).all(-1).mean() > 0.05


def test_the_colours_follow_vmax_not_the_image() -> None:
    image, score = np.zeros((16, 16)), np.zeros((16, 16))
    score[4:12, 4:12] = 0.2
    faint, strong = (pixels(case_figure(image, image, score, vmax=vmax)) for vmax in (2.0, 0.2))
    assert strong[:, : 2 * strong.shape[1] // 3].max() > 2 * 60
    panel = slice(2 * faint.shape[1] // 3, int(0.88 * faint.shape[1]))
    assert faint[faint.shape[0] // 3 : -10, panel].mean() < strong[faint.shape[0] // 3 : -10, panel].mean() / 4


def test_figure_refuses_unequal_shapes() -> None:
    with pytest.raises(InputError, match="pseudo-healthy: shape"):
        case_figure(np.zeros((4, 4)), np.zeros((5, 4)), np.zeros((4, 4)))


class Page(HTMLParser):
    """Collects the tags, text and references of a page, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(tmp_path: Path) -> Page:
    figure = case_figure(*RNG.random((3, 10, 10)))
    rows: list[dict[str, Any]] = [
        {
            "case": "sub-1 <b>",
            "figure": figure,
            "caption": "a & b",
            "average_precision": 0.51234,
            "lesion_voxels": 1234,
        },
        {"case": "sub-2", "average_precision": float("nan")},
    ]
    summary = {"pixel_ap": np.float32(0.25), "dice": None, "cases": 2, "own number": 7}
    write_report(tmp_path / "report.html", "Title <script>", rows, summary, ["Data: none <x>."])
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_report_is_one_self_contained_well_formed_file(page: Page) -> None:
    assert page.open == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert len(page.references) == 1
    assert page.references[0].startswith("data:image/png;base64,")
    assert "prefers-color-scheme: dark" in page.text


def test_report_says_numbers_meaning_and_limits(page: Page) -> None:
    for text in ("Title <script>", "sub-1 <b>", "a & b", "Data: none <x>.", "0.25", "0.5123", "1,234", "own number"):
        assert text in page.text
    assert "Average precision over the pixels" in page.text
    assert "not a medical device" in page.text
    assert page.text.count("–") == 3  # no Dice, no AP of the second case, no lesion count of it


def test_report_without_cases_or_notes(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", "Empty", [], {})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "table" not in page.tags
    assert "What this is not" in page.text
