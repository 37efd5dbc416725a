"""Small files to find and to check, and what a check must say of a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
from PIL import Image

from common.data.integrity import check_case, verify
from common.errors import InputError

SHAPE = (12, 10, 9)
RANDOM = np.random.default_rng(1).random(SHAPE).astype(np.float32)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
REPORT = b"\0" * 128 + b"DICM\x02\x00\x02\x00UI\x1e\x001.2.840.10008.5.1.4.1.1.88.11\0"
"""The beginning of a structured report in DICOM."""


def nifti(path: Path, array: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    """Write a NIfTI file of random values, or of those given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        array = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(array, AFFINE if affine is None else affine), path)
    return path


def picture(path: Path, array: np.ndarray | None = None, mode: str = "L") -> Path:
    """Write a picture of random values, or of those given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        array = np.random.default_rng(0).integers(0, 255, (12, 10, len(mode)), dtype=np.uint8).squeeze()
    Image.fromarray(array, mode if array.dtype == np.uint8 else None).save(path)
    return path


def dicom(
    path: Path,
    series: str = "1.2.3.4",
    position: tuple[float, float, float] = (0, 0, 0),
    number: int = 0,
    modality: str = "MR",
    direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    rows: int = 12,
) -> Path:
    """Write one DICOM slice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 99, (1, rows, 10), dtype=np.int16)
    image = itk.image_from_array(values)
    image.SetOrigin([float(value) for value in position])
    image.SetSpacing([1.0, 1.0, 2.0])
    row, column = np.reshape(direction, (2, 3)).astype(float)
    image.SetDirection(itk.matrix_from_array(np.stack([row, column, np.cross(row, column)], axis=1)))
    tags = image.GetMetaDataDictionary()
    tags["0008|0060"], tags["0020|000e"], tags["0020|000d"] = modality, series, "1.2.3"
    tags["0008|0018"], tags["0020|0013"], tags["0008|0021"] = f"{series}.{number + 1}", str(number), "20200101"
    image.SetMetaDataDictionary(tags)
    io = itk.GDCMImageIO.New()
    io.SetKeepOriginalUID(True)
    # The library picks the writer by the ending; the file may be renamed afterwards.
    written = path.with_name(path.name + ".dcm")
    writer = itk.ImageFileWriter.New(Input=image, FileName=str(written), ImageIO=io)
    writer.UseInputMetaDataDictionaryOn()
    writer.Update()
    return written.rename(path)


def dicom_folder(folder: Path, series: str = "1.2.3.4", depths: tuple[float, ...] = (0, 2, 4, 6)) -> Path:
    """Write one series of slices at these depths."""
    for number, depth in enumerate(depths):
        dicom(folder / f"{series}_{number}.dcm", series, (0, 0, depth), number)
    return folder


def finds(path: Path, *words: str, severity: str = "error", **case: Any) -> None:
    """Check a case: exactly one problem, which names the file and has these words in its reason and remedy."""
    options = {key: case.pop(key) for key in ("channels", "spatial_dims") if key in case}
    problems = check_case({"image": str(path), **case}, **options)
    assert len(problems) == 1, problems
    found = problems[0]
    assert found.severity == severity
    for word in words[:-1]:
        assert word in found.problem
    assert words[-1] in found.remedy
    if severity == "error":
        with pytest.raises(InputError) as caught:
            verify([{"image": str(path), **case}], **options)
        assert str(caught.value) == f"{found.file}: {found.problem} → {found.remedy}"
    assert found.file in [str(path), *(str(value) for value in case.values())]
