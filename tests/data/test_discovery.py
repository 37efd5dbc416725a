from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pydicom
import pytest

from common.data.discovery import discover
from common.errors import InputError
from tests.data.files import REPORT, dicom, dicom_folder, nifti, picture


def refused(source: Path, *words: str, split: str | None = None) -> str:
    """Give the message of the refusal, which must name the source and hold the words."""
    with pytest.raises(InputError) as caught:
        discover(source, split=split)
    message = str(caught.value)
    for word in (str(source), *words):
        assert word in message
    assert caught.value.remedy
    return message


def datalist(folder: Path, content: object, name: str = "datalist.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# Folders and files


def test_nifti_folder_is_searched_at_every_depth_and_sorted(tmp_path: Path) -> None:
    paths = [nifti(tmp_path / name) for name in ("b/t1.nii", "a.x.nii.gz", "a/b/t1.nii.gz", "T2.NII.GZ")]
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "._a.nii.gz").write_text("resource fork")
    cases = discover(tmp_path)
    assert [case["case"] for case in cases] == ["T2", "a.x", "a_b_t1", "b_t1"]
    assert {case["image"] for case in cases} == {str(path) for path in paths}
    assert all(set(case) == {"image", "case"} for case in cases)
    assert discover(str(tmp_path)) == cases


def test_names_that_collide_become_unique(tmp_path: Path) -> None:
    for name in ("a/b.png", "a_b.png", "a b.png", "A_B.jpg"):
        picture(tmp_path / name)
    names = [case["case"] for case in discover(tmp_path)]
    assert names == ["A_B", "a_b_2", "a_b_3", "a_b_4"]  # alike to a file system that does not tell A from a


def test_a_name_is_fit_for_a_file(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "with space" / "ü: (1)\n.png")
    assert re.fullmatch(r"[\w.-]+", discover(tmp_path)[0]["case"])
    assert discover(tmp_path)[0]["case"] == "with_space_ü_1"


def test_a_long_name_is_short_enough_for_a_file(tmp_path: Path) -> None:
    """Folders of DICOM exports are named after identifiers of up to 64 letters each."""
    for last in "ab":
        picture(tmp_path.joinpath(*["1.2.840." + "9" * 56] * 4, "ü" * 50, f"{last}.png"))
    one, other = (case["case"] for case in discover(tmp_path))
    assert one != other
    assert one[:150] == other[:150] == "_".join(["1.2.840." + "9" * 56] * 4)[:150]
    for name in (one, other):
        (tmp_path / f".partial-{name}_pseudo_healthy.nii.gz").touch()
        assert re.fullmatch(r"[\w.-]+", name)


def test_masks_are_paired_by_name(tmp_path: Path) -> None:
    image = nifti(tmp_path / "s1" / "t1.nii.gz")
    other = nifti(tmp_path / "s1" / "t2.nii.gz")
    mask = nifti(tmp_path / "s1" / "t1_mask.nii.gz")
    brain = nifti(tmp_path / "s1" / "t1_brain_mask.nii.gz")
    segmentation = nifti(tmp_path / "s1" / "t2_seg.nii.gz")
    expected = {"image": str(image), "mask": str(mask), "brain_mask": str(brain), "case": "s1_t1"}
    assert discover(tmp_path) == [expected, {"image": str(other), "mask": str(segmentation), "case": "s1_t2"}]
    assert discover(image) == [{**expected, "case": "t1"}]


def test_masks_are_paired_by_folder(tmp_path: Path) -> None:
    image, mask, brain = (picture(tmp_path / folder / "a.png") for folder in ("images", "masks", "brain"))
    assert discover(tmp_path) == [{"image": str(image), "mask": str(mask), "brain_mask": str(brain), "case": "a"}]


def test_folders_of_nnunet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The number behind the name is that of a channel; masks have none."""
    channels = [nifti(tmp_path / "imagesTr" / f"BR_001_000{number}.nii.gz") for number in (0, 1)]
    single = nifti(tmp_path / "imagesTr" / "BR_002_0000.nii.gz")
    tested = nifti(tmp_path / "imagesTs" / "BR_003_0000.nii.gz")
    other = nifti(tmp_path / "imagesTs" / "BR_1234_5.nii.gz")
    masks = [nifti(tmp_path / name) for name in ("labelsTr/BR_001.nii.gz", "labelsTs/BR_003.nii.gz")]
    (tmp_path / "dataset.json").write_text("{}")
    assert discover(tmp_path) == [
        {"image": list(map(str, channels)), "mask": str(masks[0]), "case": "BR_001"},
        {"image": str(single), "case": "BR_002"},
        {"image": str(tested), "mask": str(masks[1]), "case": "BR_003", "split": "test"},
        {"image": str(other), "case": "BR_1234_5", "split": "test"},
    ]
    assert caplog.text == ""
    assert [case["case"] for case in discover(tmp_path / "imagesTs")] == ["BR_003", "BR_1234_5"]
    assert all("split" not in case for case in discover(tmp_path / "imagesTs"))
    two = [nifti(tmp_path / "plain" / name) for name in ("a.nii", "a.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz")]
    assert [case["image"] for case in discover(tmp_path / "plain")] == list(map(str, two))


def test_masks_that_fit_no_image_or_fit_twice_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nifti(tmp_path / "a.nii.gz")
    for name in ("a_mask.nii.gz", "a_seg.nii.gz", "lesion_mask.nii.gz"):
        nifti(tmp_path / name)
    assert [set(case) for case in discover(tmp_path)] == [{"image", "case"}]
    assert "3 mask(s) without an image" in caplog.text


def test_a_folder_named_like_masks_may_be_the_data_set_itself(tmp_path: Path) -> None:
    picture(tmp_path / "brain" / "a.png")
    assert len(discover(tmp_path / "brain")) == 1
    refused(tmp_path, "holds no image", "1 files taken for masks", "datalist")


def test_links_are_followed_once(tmp_path: Path) -> None:
    nifti(tmp_path / "store" / "a.nii.gz")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    cases = discover(tmp_path / "set")
    assert [case["case"] for case in cases] == ["linked_a"]
    assert cases[0]["image"] == str(tmp_path / "set" / "linked" / "a.nii.gz")


def test_one_file(tmp_path: Path) -> None:
    path = nifti(tmp_path / "scan_mask.nii.gz")  # handed over by name, it is an image
    assert discover(path) == [{"image": str(path), "case": "scan_mask"}]
    text = tmp_path / "notes.txt"
    text.write_text("x")
    refused(text, "neither an image nor a list", "datalist")


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist", "give a folder of NIfTI")
    refused(tmp_path, "holds no image", "give a folder of NIfTI")
    nifti(tmp_path / "a.nii")
    picture(tmp_path / "a.png")
    refused(tmp_path, "several kinds (1 NIfTI, 1 picture)", "keep one kind")
    (tmp_path / "a.png").unlink()
    refused(tmp_path, "has no split 'training'", "leave the split out", split="training")


# DICOM


def test_dicom_tree_gives_one_case_a_series(tmp_path: Path) -> None:
    dicom_folder(tmp_path / "p1" / "t1", "1.2.1")
    dicom_folder(tmp_path / "p2" / "t1", "1.2.2")
    for file in (tmp_path / "p2" / "t1").iterdir():
        file.rename(file.with_suffix(""))  # the mark inside counts, not the name
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert discover(tmp_path) == [
        {"image": str(tmp_path / "p1" / "t1"), "case": "p1_t1"},
        {"image": str(tmp_path / "p2" / "t1"), "case": "p2_t1"},
    ]
    assert discover(tmp_path / "p2" / "t1") == [{"image": str(tmp_path / "p2" / "t1"), "case": "t1"}]


def test_a_folder_of_single_dicom_images_gives_one_case_a_file(tmp_path: Path) -> None:
    paths = [dicom(tmp_path / f"x{index}.dcm", f"1.2.{index}") for index in (2, 1)]
    assert [case["image"] for case in discover(tmp_path)] == sorted(str(path) for path in paths)
    assert discover(paths[0]) == [{"image": str(paths[0]), "case": "x2"}]


def test_a_folder_with_two_series_is_refused_with_their_names(tmp_path: Path) -> None:
    dicom_folder(tmp_path / "mixed", "1.2.7")
    dicom_folder(tmp_path / "mixed", "1.2.8", (0, 2))
    with pytest.raises(InputError) as caught:
        discover(tmp_path)
    for word in (str(tmp_path / "mixed"), "2 DICOM series", "1.2.7", "(4 files)", "1.2.8", "(2 files)", "own"):
        assert word in str(caught.value)


def test_dicom_files_without_an_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "report.dcm").write_text("not DICOM")
    refused(tmp_path, "no image series", "export anew")


@pytest.mark.parametrize("strict", [True, False])
def test_folders_without_an_image_series_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], strict: bool
) -> None:
    series = dicom_folder(tmp_path / "p1" / "t1", "1.2.1")
    for name in ("p1/report", "p2/report"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "sr.dcm").write_bytes(REPORT)
    assert [case["image"] for case in discover(tmp_path, strict=strict)] == [str(series)]
    (record,) = caplog.records
    assert f"2 folder(s) with DICOM files, but no image series among them, are left out, such as {tmp_path}" in str(
        record.getMessage()
    )
    assert "No Series" not in "".join(capfd.readouterr())
    if strict:
        refused(tmp_path / "p2" / "report", "no image series")
        (tmp_path / "p2" / "damaged.dcm").write_text("not DICOM")  # might have been an image
        with pytest.raises(InputError, match=r"p2: holds DICOM files, but no image series"):
            discover(tmp_path)


# Lists


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        picture(tmp_path / "images" / f"{name}.png")
    picture(tmp_path / "masks" / "a.png")
    return tmp_path


def test_json_by_split(listed: Path) -> None:
    entry = {"image": "images/a.png", "mask": "masks/a.png", "label": 1, "subject": 7, "flair_scale": 1.5, "slice": 3}
    tree = {"name": "x", "channels": ["t1"], "training": [entry, {"image": "images/c.png"}], "test": ["images/b.png"]}
    datalist(listed, tree)
    cases = discover(listed)
    assert cases[0] == {
        "image": str(listed / "images/a.png"),
        "mask": str(listed / "masks/a.png"),
        "label": 1,
        "subject": "7",
        "flair_scale": 1.5,
        "slice": 3,
        "split": "training",
        "case": "a",
    }
    assert [case["case"] for case in cases] == ["a", "c", "b"]
    assert discover(listed, split="test") == [cases[2]]
    assert discover(listed / "datalist.json") == cases
    refused(listed, "has no split 'validation'", "test (1), training (2)", split="validation")


def test_json_as_plain_list_with_channels_and_decathlon_labels(listed: Path) -> None:
    entries = [
        {"image": ["images/a.png", "images/b.png"], "label": "masks/a.png", "split": "x", "case": "p/1"},
        {"image": str(listed / "images" / "c.png"), "mask": None, "id": 12},
    ]
    cases = discover(datalist(listed, entries, "other.json"))
    assert cases[0]["image"] == [str(listed / "images/a.png"), str(listed / "images/b.png")]
    assert cases[0]["mask"] == str(listed / "masks/a.png")
    assert "label" not in cases[0]
    assert "mask" not in cases[1]
    assert [case["case"] for case in cases] == ["p_1", "12"]
    assert len(discover(listed / "other.json", split="x")) == 1


def test_one_image_listed_twice_gives_two_cases(listed: Path) -> None:
    datalist(listed, [{"image": "images/a.png", "slice": 1}, {"image": "images/a.png", "slice": 2}])
    assert [(case["case"], case["slice"]) for case in discover(listed)] == [("a", 1), ("a_2", 2)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(listed: Path, delimiter: str) -> None:
    rows = ["image,label,subject,split,age", "images/a.png,1,007,training,4.5", "images/b.png|images/c.png,,,,"]
    cases = discover(datalist(listed, "\ufeff" + "\n".join(rows).replace(",", delimiter) + "\n\n", "list.csv"))
    first = {"label": 1, "subject": "007", "split": "training", "age": 4.5, "case": "a"}
    assert cases[0] == {"image": str(listed / "images/a.png"), **first}
    assert cases[1] == {"image": [str(listed / "images/b.png"), str(listed / "images/c.png")], "case": "b"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"training": [\n{"image": "a"},,\n]}', ("not valid JSON", "line 2", "correct that line")),
        ("3", ("no list of cases", "write a list")),
        ("{}", ("no list of cases", "write a list")),
        ("[]", ("lists no case", "add entries")),
        ('{"training": [{"image": "images/a.png"}, {"label": 1}]}', ("training[1] has no 'image'", "name the image")),
        ('{"training": [3]}', ("training[0] is not an object", "write {")),
        ('[{"image": 3}]', ("entry 0 has image = 3", "give a path")),
        ('[{"image": "images/a.png", "mask": ["x"]}]', ("entry 0 has mask = ['x']", "give one path")),
        ('[{"image": "images/a.png", "label": "tumour"}]', ("entry 0 has the label 'tumour'", "whole numbers")),
        ('[{"image": "images/a.png", "label": 0.5}]', ("entry 0 has the label 0.5", "whole numbers")),
    ],
)
def test_bad_json_is_refused(listed: Path, content: str, words: tuple[str, ...]) -> None:
    refused(datalist(listed, content), *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ("no column 'image'", "add it")),
        ("file,label\na.png,1\n", ("line 1 has no column 'image'", "file, label", "add it")),
        ("image,label\nimages/a.png,1\nimages/b.png,1,2\n", ("line 3 has more cells", "quote")),
        ("image,label\nimages/a.png,1\n,1\n", ("line 3 has no 'image'", "name the image")),
        ('image,label\nimages/a.png,"1\n', ("not valid CSV", "line 2", "correct that line")),
        ("image,label\n", ("lists no case", "add entries")),
    ],
)
def test_bad_csv_is_refused(listed: Path, content: str, words: tuple[str, ...]) -> None:
    refused(datalist(listed, content, "list.csv"), *words)


def test_a_list_that_is_no_text_is_refused(listed: Path) -> None:
    path = listed / "datalist.json"
    path.write_bytes(b"\xff\xfe\x00")
    refused(path, "cannot be read", "UTF-8")


def test_missing_files_are_named_up_to_five(listed: Path) -> None:
    entries = [{"image": f"images/no{index}.png", "mask": "masks/a.png"} for index in range(6)]
    entries += [{"image": "images/a.png", "brain_mask": "brain/no.png"}]
    path = datalist(listed, {"training": entries, "validation": [{"image": "images/b.png"}]})
    message = refused(path, "7 file(s) that do not exist", "images/no4.png and 2 more", "correct the paths")
    assert "no5.png" not in message
    assert len(discover(path, split="validation")) == 1  # the files of other splits may be on another machine


@pytest.mark.parametrize("second", ["P1", "p1", "P1 "])
def test_names_given_twice_are_refused(listed: Path, second: str) -> None:
    entries = [{"image": "images/a.png", "case": "P1"}, {"image": "images/b.png", "case": second}]
    refused(datalist(listed, entries), "entry 1", "entry 0", repr(second), "name of its own")


def test_a_name_given_by_the_user_is_not_taken_away(listed: Path) -> None:
    datalist(listed, [{"image": "images/a.png"}, {"image": "images/b.png", "case": "a"}])
    assert [case["case"] for case in discover(listed)] == ["a_2", "a"]


@pytest.mark.parametrize("name", ["list.csv", "list.json"])
def test_names_of_columns_that_are_nearly_known(listed: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    def found(**columns: object) -> list[dict[str, object]]:
        entry = {"image": "images/a.png", **columns}
        rows = "\n".join(",".join(map(str, row)) for row in (entry, entry.values()))
        return discover(datalist(listed, rows if name.endswith("csv") else [entry], name))

    for written, meant in (("Mask", "mask"), ("brainmask", "brain_mask"), ("Brain-Mask ", "brain_mask"), ("ID", "id")):
        with pytest.raises(InputError) as caught:
            found(**{written: "gone.png"})
        assert f"{name}: has the column '{written.strip() if name.endswith('csv') else written}'" in str(caught.value)
        assert caught.value.remedy == f"call it '{meant}'"
    assert found(lable=1, subjct=2, age=3, slice=4, Case="x", case="y")[0]["case"] == "y"
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 3
    for written, meant in (("lable", "label"), ("subjct", "subject"), ("Case", "case")):
        assert any(f"the column '{written}' is not used → call it '{meant}'" in message for message in warned)


def test_the_level_of_a_slice_is_a_number(listed: Path) -> None:
    (case,) = discover(datalist(listed, "image,slice_mm\nimages/a.png,23\n", "list.csv"))
    assert case["slice_mm"] == 23
    for level in ("abc", "nan"):
        refused(datalist(listed, f"image,slice_mm\nimages/a.png,{level}\n", "list.csv"), "line 2", f"{level}", "in mm")
    refused(datalist(listed, [{"image": "images/a.png", "slice_mm": [23]}]), "entry 0 has the slice_mm [23]")


def test_moving_the_data_set_changes_no_name(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = tmp_path_factory.mktemp("moved") / "x"
    shutil.copytree(listed, moved)
    assert [case["case"] for case in discover(moved)] == [case["case"] for case in discover(listed)]


def test_series_of_one_patient_are_of_one_subject(tmp_path: Path) -> None:
    for name, number in (("p1/t1", "77"), ("p1/t2", "77"), ("p2/t1", "78")):
        folder = dicom_folder(tmp_path / name, f"1.2.{name[1]}{name[4]}")
        for file in folder.iterdir():
            dataset = pydicom.dcmread(file)
            dataset.PatientID = number
            dataset.save_as(file)
    subjects = [case["subject"] for case in discover(tmp_path)]
    assert subjects[0] == subjects[1] != subjects[2]
    assert all(re.fullmatch(r"patient_[0-9a-f]{12}", subject) for subject in subjects)


def test_a_study_of_damaged_images_is_no_folder_of_reports(tmp_path: Path) -> None:
    dicom_folder(tmp_path / "p1", "1.2.1")
    for file in dicom_folder(tmp_path / "p2", "1.2.2").iterdir():
        file.write_bytes(file.read_bytes()[:400])
    refused(tmp_path, "p2: holds DICOM files, but no image series")
    assert len(discover(tmp_path, strict=False)) == 2  # where it is told when its turn comes


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    scan = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused(tmp_path, "b: cannot be read (Permission denied) → check the access rights")


def test_a_damaged_picture_among_single_ones_is_a_case_that_fails(tmp_path: Path) -> None:
    for index in range(3):
        dicom(tmp_path / f"{index}.dcm", series=f"1.2.{index + 3}", modality="CR")
    (tmp_path / "1.dcm").write_bytes((tmp_path / "1.dcm").read_bytes()[:400])
    assert [Path(case["image"]).name for case in discover(tmp_path)] == ["0.dcm", "1.dcm", "2.dcm"]
