"""Which cases a data set gives: to training and validation, to methods that need healthy ones, labels or masks."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data import FAILURE, CaseDataset, failure_reason, healthy_cases, load_cases
from common.errors import InputError


def write_pictures(folder: Path) -> None:
    """``a``, ``b`` and ``c``; as masks they mark something."""
    for name in "abc":
        Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save(folder / f"{name}.png")


def test_cases_without_the_truth_that_training_needs_are_refused(tmp_path):
    write_pictures(tmp_path)

    def load(truth, **entries):
        listed = [{"image": f"{name}.png", **more} for name, more in entries.items()]
        (tmp_path / "list.json").write_text(json.dumps({"training": listed}))
        return load_cases(tmp_path / "list.json", "training", truth=truth)

    assert len(load("label", a={"label": 0}, b={"label": 1})) == 2
    assert len(load("label", a={"label": 0}, b={"mask": "c.png"})) == 2
    assert len(load("mask", a={"label": 0}, b={"mask": "c.png", "label": 1})) == 2
    with pytest.raises(InputError, match=r"1 of 2 cases \(first: .*b\.png\): have no label"):
        load("label", a={"label": 0}, b={})
    with pytest.raises(InputError, match=r"b\.png\): have no mask"):
        load("mask", a={"label": 0}, b={"label": 1})
    with pytest.raises(InputError, match="are healthy by their label → add cases that are diseased"):
        load("label", a={"label": 0}, b={"label": 0})


@pytest.mark.parametrize(
    ("entry", "reason"),
    [({"label": 1}, "label"), ({"mask": "c.png"}, "mask"), ({"mask": "c.png", "label": 2}, "label")],
)
def test_healthy_cases_are_all_that_healthy_training_takes(tmp_path, entry, reason):
    write_pictures(tmp_path)
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "empty.png")
    healthy = [{"image": "a.png"}, {"image": "b.png", "mask": "empty.png"}, {"image": "c.png", "label": 0}]

    def load(*entries):
        (tmp_path / "datalist.json").write_text(json.dumps({"training": entries}))
        return load_cases(tmp_path, "training", truth="healthy")

    assert len(load(*healthy)) == 3
    first = f"2 of 5 cases (first: {tmp_path / 'b.png'})"
    with pytest.raises(InputError) as caught:
        load(*healthy, {"image": "b.png", **entry}, {"image": "a.png", **entry})
    assert str(caught.value).startswith(f"{first}: are not healthy by their {reason} → leave them out of the split")


def test_healthy_cases_of_a_data_set(tmp_path):
    """Those with the label 0 where there are any; else all, and none may be ill."""
    write_pictures(tmp_path)

    def names(*entries):
        (tmp_path / "datalist.json").write_text(json.dumps(entries))
        return [case["case"] for case in healthy_cases(tmp_path)]

    ill, marked = {"image": "b.png", "label": 1}, {"image": "c.png", "mask": "a.png"}
    assert names({"image": "a.png", "label": 0}, ill, marked) == ["a"]
    assert names({"image": "a.png"}, {"image": "b.png"}) == ["a", "b"]
    for other, reason in ((ill, "label"), (marked, "mask")):
        with pytest.raises(InputError, match=f"1 of 2 cases .* not healthy by their {reason} → .* of the data set"):
            names({"image": "a.png"}, other)


def test_a_set_without_splits_is_split_by_subject(tmp_path):
    for i in range(12):
        Image.fromarray((np.random.default_rng(i).random((20, 20)) * 255).astype(np.uint8)).save(
            tmp_path / f"s{i:02}.png"
        )
    parts = {split: {case["case"] for case in load_cases(tmp_path, split)} for split in ("training", "validation")}
    assert len(parts["validation"]) == 3
    assert len(parts["training"]) == 9
    assert not parts["training"] & parts["validation"]
    with pytest.raises(InputError, match="cannot be made"):
        load_cases(tmp_path, "test")


def test_all_images_of_a_subject_are_on_one_side(tmp_path):
    for i in range(12):
        picture = Image.fromarray((np.random.default_rng(i).random((20, 20)) * 255).astype(np.uint8))
        picture.save(tmp_path / f"s{i:02}.png")
    entries = [{"image": f"s{i:02}.png", "subject": f"subject {i // 3}"} for i in range(12)]
    (tmp_path / "datalist.json").write_text(json.dumps(entries))
    parts = {split: load_cases(tmp_path, split) for split in ("training", "validation")}
    assert {split: len(part) for split, part in parts.items()} == {"training": 9, "validation": 3}
    assert len({case["subject"] for case in parts["validation"]}) == 1


def test_cases_of_a_test_set_neither_train_nor_validate(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"images{'Ts' if name == 'c' else 'Tr'}").mkdir(exist_ok=True)
        picture = Image.fromarray((np.random.default_rng(ord(name)).random((20, 20)) * 255).astype(np.uint8))
        picture.save(tmp_path / f"images{'Ts' if name == 'c' else 'Tr'}" / f"{name}_0000.png")
    parts = {each: [case["case"] for case in load_cases(tmp_path, each)] for each in ("training", "validation", "test")}
    assert sorted(parts["training"] + parts["validation"]) == ["a", "b"]
    assert parts["training"]
    assert parts["validation"]
    assert parts["test"] == ["c"]
    assert len(load_cases(tmp_path)) == 3


def test_a_split_may_be_a_number(tmp_path):
    """``--split 0`` comes from MONAI's command line as an integer."""
    write_pictures(tmp_path)
    (tmp_path / "datalist.csv").write_text("image,split\na.png,0\nb.png,1\n")
    assert [case["case"] for case in load_cases(tmp_path / "datalist.csv", 0)] == ["a"]


def test_a_case_that_cannot_be_used_says_why(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no picture")
    Image.fromarray(np.full((20, 20), 7, np.uint8)).save(tmp_path / "c.png")  # can be read
    cases = [{"case": name, "image": str(tmp_path / f"{name}.png")} for name in "abc"]
    dataset = CaseDataset(cases, lambda case: {**case, "prepared": True}, keep_going=True)
    assert dataset[0]["prepared"]
    for index, words in ((1, "b"), (2, "the same value everywhere")):
        assert set(dataset[index]) == {"case", FAILURE}
        assert words in dataset[index][FAILURE]
        assert str(tmp_path) not in dataset[index][FAILURE]


def test_a_failure_is_told_without_the_names_of_files():
    case = {"case": "series_1", "image": ["jane/a.nii", "jane/a.nii.gz"], "mask": "jane/a_mask.nii"}
    wrapped = RuntimeError("of a transform")
    wrapped.__cause__ = InputError("jane/a.nii", "does not fit jane/a_mask.nii\n or jane/a.nii.gz", "resample it")
    assert failure_reason(wrapped, case) == "does not fit series_1 or series_1 → resample it"
    assert failure_reason(ValueError("jane/a.nii\nis odd"), case) == "ValueError: series_1"


def test_no_data_set_given():
    with pytest.raises(InputError, match="--dataset_dir"):
        load_cases("")


def test_twins_come_with_their_cases_and_not_beside_them(tmp_path):
    for name in "abcd":
        Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save(tmp_path / f"{name}.png")
    ill = {"image": "a.png", "twin": "b.png", "label": 1}
    entries = [ill, {"image": "b.png", "label": 0}, {"image": "c.png", "label": 0}]
    listed = tmp_path / "datalist.json"
    listed.write_text(json.dumps(entries))
    cases = load_cases(tmp_path, truth="label")
    names = [(Path(case["image"]).stem, Path(case["twin"]).stem) for case in cases]
    assert names == [("a", "b"), ("c", "c")]
    alone = load_cases(tmp_path, truth="label", twins=False)
    assert [Path(case["image"]).stem for case in alone] == ["a", "b", "c"]
    assert all("twin" not in case for case in [*alone, *load_cases(tmp_path)])
    listed.write_text(json.dumps([*entries, {"image": "d.png", "label": 1}]))
    with pytest.raises(InputError, match="no twin"):
        load_cases(tmp_path, truth="label")
    listed.write_text(json.dumps([{**ill, "twin": "gone.png"}]))
    with pytest.raises(InputError, match="do not exist"):
        load_cases(tmp_path)
