from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

from common.data import (
    check_sources,
    dataset_name,
    discover,
    require_highdicom,
    write_parametric_map,
    write_segmentation,
)
from common.data.privacy import names_patient
from common.errors import InputError
from tests.bundles.synthetic import oblique
from tests.data.files import dicom, finds, nifti, picture
from tests.dicom import PATIENT, PRIVATE, at_the_same_place, write_series

SHAPE = (9, 14, 5)
VALUES = np.random.default_rng(3).random(SHAPE).astype(np.float32)


def series(folder: Path, **options: Any) -> Path:
    return write_series(folder, 90 * VALUES, oblique(), **options)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (0, 2, 1)], ids=["axial", "sagittal", "coronal"])
@pytest.mark.parametrize("flip", [1, -1])
def test_what_is_written_is_read_at_the_same_place(tmp_path: Path, axes: tuple[int, int, int], flip: int) -> None:
    from monai.transforms import LoadImage

    affine = oblique((1.1, 1.7, 3.0), axes) @ np.diag([1.0, 1, flip, 1])
    source = write_series(tmp_path / "s", 90 * VALUES, affine)
    image = LoadImage(ensure_channel_first=True, image_only=True)(str(source))
    np.testing.assert_allclose(np.asarray(image).sum(), np.rint(900 * VALUES).sum())
    # The reader may count slices from the other end.
    scores = np.asarray(image)[0] / 900
    write_segmentation(tmp_path / "mask.dcm", scores > 0.6, image.affine, str(source), "Some")
    write_parametric_map(tmp_path / "map.dcm", scores, image.affine, str(source), "Some")
    mask = highdicom.imread(tmp_path / "mask.dcm").get_volume(dtype=np.uint8)
    np.testing.assert_array_equal(at_the_same_place(mask, affine, SHAPE), np.rint(900 * VALUES) > 540)
    found = highdicom.imread(tmp_path / "map.dcm").get_volume()
    np.testing.assert_allclose(at_the_same_place(found, affine, SHAPE), np.rint(900 * VALUES) / 900, rtol=1e-6)


def test_results_say_whose_they_are_and_what_they_came_from(tmp_path: Path) -> None:
    source = series(tmp_path / "s")
    affine = oblique()
    write_segmentation(tmp_path / "mask.dcm", VALUES > 2, affine, str(source), "Some")  # healthy: an empty mask
    write_parametric_map(tmp_path / "map.dcm", 0 * VALUES, affine, str(source), "Some")
    given = {pydicom.dcmread(file).SOPInstanceUID for file in source.iterdir()}
    results = [pydicom.dcmread(tmp_path / name) for name in ("mask.dcm", "map.dcm")]
    for result in results:
        for name, value in PATIENT.items():
            assert str(result[name].value) == value
        assert (result.StudyInstanceUID, result.AccessionNumber) == ("1.2.826.0.1", "A-99017")
        assert result.FrameOfReferenceUID == "1.2.826.0.2"
        assert result.SeriesInstanceUID != "1.2.826.0.1.7"
        (referred,) = result.ReferencedSeriesSequence
        assert referred.SeriesInstanceUID == "1.2.826.0.1.7"
        assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} == given
        assert int(result.NumberOfFrames) == SHAPE[2]
    assert results[0].SeriesInstanceUID != results[1].SeriesInstanceUID
    (segment,) = results[0].SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "Some"


def test_headers_that_were_emptied_are_taken(tmp_path: Path) -> None:
    source = series(tmp_path / "s", PatientName=None, PatientID=None, AccessionNumber=None, StudyID=None)
    write_segmentation(tmp_path / "mask.dcm", VALUES > 0.6, oblique(), str(source), "Some")
    assert str(pydicom.dcmread(tmp_path / "mask.dcm").PatientName) == ""


@pytest.mark.parametrize("name", ["FrameOfReferenceUID", "ImageOrientationPatient", "PixelSpacing"])
def test_sources_that_nothing_can_refer_to(tmp_path: Path, name: str) -> None:
    source = series(tmp_path / "s", **{name: None})
    with pytest.raises(InputError, match=rf"lacks {name}.*output_format nifti"):
        check_sources([{"image": str(source)}])


def test_sources_that_are_no_dicom(tmp_path: Path) -> None:
    check_sources([{"image": str(series(tmp_path / "s"))}])
    for path in (nifti(tmp_path / "a.nii.gz"), picture(tmp_path / "a.png")):
        with pytest.raises(InputError, match=r"is no DICOM series.*output_format nifti"):
            check_sources([{"image": str(path)}])


def test_results_on_another_grid(tmp_path: Path) -> None:
    source = str(series(tmp_path / "s"))
    moved = oblique()
    moved[:3, 3] += 4
    for values, affine in ((VALUES[:, 1:], oblique()), (VALUES, moved), (VALUES, oblique((2, 2, 3), (1, 0, 2)))):
        with pytest.raises(InputError, match="lies elsewhere"):
            write_segmentation(tmp_path / "mask.dcm", values > 0.5, affine, source, "Some")
    assert not (tmp_path / "mask.dcm").exists()


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_highdicom()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "highdicom" else found(name))
    with pytest.raises(InputError, match=r"needs the package highdicom.*pip install"):
        require_highdicom()


def test_an_enhanced_file_is_refused(tmp_path: Path) -> None:
    """One file with all slices: readers disagree about where these lie."""
    source = series(tmp_path / "s")
    slices = [pydicom.dcmread(file) for file in sorted(source.iterdir())]
    uid = highdicom.UID
    enhanced = highdicom.legacy.LegacyConvertedEnhancedMRImage(slices, uid(), 1, uid(), 1)
    enhanced.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    finds(tmp_path / "enhanced.dcm", "is a multi-frame object", "one file a slice")


# Names


@pytest.mark.parametrize(
    "folder",
    [
        "ROSENBAUM_OTTILIE",
        "Ottilie",
        "rosenbaumottilie",
        "HX-48291",
        "hx48291_t1",
        "born 1931-04-17",
        "Ottílie",
        "A99017",
    ],
)
def test_a_name_does_not_tell_whose_it_is(tmp_path: Path, folder: str) -> None:
    series(tmp_path / "all" / folder / "T1")
    series(tmp_path / "all" / "other" / "T1", uid="1.2.826.0.1.8")
    (first, second) = sorted(discover(tmp_path / "all"), key=lambda case: Path(case["image"]).parent.name == "other")
    assert first["case"].startswith("series_")
    assert not any(part in first["case"] for part in PRIVATE)
    assert second["case"] == "other_T1"
    # The same wherever the series lies, and when it is given by itself.
    assert discover(tmp_path / "all" / folder)[0]["case"] in (first["case"], "T1")
    (tmp_path / "all" / folder / "T1").rename(tmp_path / "Rosenbaum")
    assert discover(tmp_path / "Rosenbaum")[0]["case"] == first["case"]


def test_a_file_does_not_tell_either(tmp_path: Path) -> None:
    source = series(tmp_path / "s")
    file = next(source.iterdir()).rename(tmp_path / "Rosenbaum, O.dcm")
    assert discover(file)[0]["case"].startswith("series_")


def test_a_data_set_is_not_called_after_a_patient(tmp_path: Path) -> None:
    series(tmp_path / "Rosenbaum" / "T1")
    assert dataset_name(tmp_path / "Rosenbaum").startswith("series_")
    (tmp_path / "Rosenbaum").rename(tmp_path / "healthy_2024")
    assert dataset_name(tmp_path / "healthy_2024") == "healthy_2024"
    nifti(tmp_path / "volumes" / "a.nii.gz")
    assert dataset_name(tmp_path / "volumes") == "volumes"


def test_words_that_are_only_alike() -> None:
    tags = {"0010|0010": "Li^Ann", "0010|0020": "7", "0010|0030": ""}
    assert names_patient("Li_1", tags)
    assert names_patient("7", tags)
    assert not names_patient("clinical_17_annual", tags)
    assert not names_patient("sub-01", {"0010|0010": "", "0010|0020": ""})


def test_a_bad_folder_is_left_for_later(tmp_path: Path) -> None:
    series(tmp_path / "good")
    for uid in ("1.2.3.4", "1.2.3.9"):
        for number in range(3):
            dicom(tmp_path / "mixed" / f"{uid}_{number}.dcm", uid, (0, 0, 2 * number), number)
    with pytest.raises(InputError, match="holds 2 DICOM series"):
        discover(tmp_path)
    assert [case["case"] for case in discover(tmp_path, strict=False)] == ["good", "mixed"]
