"""Results as DICOM: a Segmentation of the mask and a Parametric Map of the anomaly map, placed as the source series.

Both carry the patient and study of the source, as the standard asks, and refer to every image of it; they are the
only results that say whose they are. They need ``pydicom`` and ``highdicom`` (the extra ``dicom``).
"""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.data.kinds import dicom_series, is_dicom
from common.errors import InputError
from common.files import write_atomic
from common.version import __version__

__all__ = ["check_sources", "require_highdicom", "write_parametric_map", "write_segmentation"]

_NEEDED = (
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
)
# Attributes that the standard wants to be there, though they may be empty; de-identified files often lack them.
_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def require_highdicom() -> None:
    """Stop unless the packages that write DICOM are installed.

    Raises:
        InputError: they are not.
    """
    logging.getLogger("highdicom").setLevel(logging.WARNING)  # it tells of every attribute that it copies
    for package in ("pydicom", "highdicom"):
        if importlib.util.find_spec(package) is None:
            remedy = "pip install pydicom highdicom, or use --output_format nifti"
            raise InputError("output_format 'dicom'", f"needs the package {package}, which is not installed", remedy)


def check_sources(cases: Sequence[Mapping[str, Any]]) -> None:
    """Stop unless results of every case can be written as DICOM.

    Args:
        cases: as ``discover`` gives them.

    Raises:
        InputError: a case that is no DICOM series, or whose header lacks what a reference to it needs.
    """
    for case in cases:
        _header(_first(case["image"]))


def write_segmentation(path: str | Path, mask: Any, affine: Any, source: str, algorithm: str) -> None:
    """Write a mask as DICOM Segmentation (binary, one segment "Anomaly"); whole or not at all.

    Args:
        path: the file.
        mask: (x, y, z) on the grid of the source; above 0 is anomalous.
        affine: voxel to world in mm (RAS), (4, 4).
        source: folder of the DICOM series, or its one file.
        algorithm: name of the method.

    Raises:
        InputError: the source is no usable series, or the mask does not lie on its grid.
    """
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    images, frames = _frames(mask, affine, source)
    segment = SegmentDescription(
        segment_number=1,
        segment_label="Anomaly",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=_algorithm(algorithm),
    )
    result = Segmentation(
        source_images=images,
        pixel_array=(frames > 0).astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        omit_empty_frames=False,  # so that a reader finds every slice, and a healthy scan has a mask too
        content_description="Unlike the healthy scans of the training. Research only",
        **_identity(images[0], algorithm, 1),
    )
    _save(path, result, "Anomaly mask (research only)")


def write_parametric_map(path: str | Path, anomaly_map: Any, affine: Any, source: str, algorithm: str) -> None:
    """Write an anomaly map as DICOM Parametric Map of 32-bit floats; whole or not at all.

    Args:
        path: the file.
        anomaly_map: (x, y, z) on the grid of the source, not negative.
        affine: see ``write_segmentation``.
        source: see ``write_segmentation``.
        algorithm: see ``write_segmentation``.

    Raises:
        InputError: as ``write_segmentation``.
    """
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    images, frames = _frames(anomaly_map, affine, source)
    top = max(float(frames.max()), 1e-6)
    mapping = RealWorldValueMapping(
        lut_label="anomaly",
        lut_explanation="Anomaly score in units of the method",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, top),
        slope=1,
        intercept=0,
        quantity_definition=Code("anomaly_score", "99ANOMALYZOO", "Anomaly score"),
    )
    result = ParametricMap(
        source_images=images,
        pixel_array=frames.astype(np.float32),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            VOILUTTransformation(window_center=top / 2, window_width=top, voi_lut_function="LINEAR_EXACT")
        ],
        content_description="Unlikeness to the healthy scans of the training",
        **_identity(images[0], algorithm, 2),
    )
    result.Laterality = images[0].get("Laterality", "")
    _save(path, result, "Anomaly map (research only)")


def _first(image: str | Sequence[str]) -> str:
    return image if isinstance(image, str) else image[0]


def _files(source: str) -> list[str]:
    """The files of a case: of the series in a folder, or the one file."""
    if Path(source).is_dir():
        return next(iter(dicom_series(source).values()), [])
    return [source] if is_dicom(source) else []


def _header(source: str) -> Any:
    """The header of the first image of a series, with everything in it that a result has to refer to."""
    import pydicom

    files = _files(source)
    if not files:
        raise InputError(source, "is no DICOM series, so no DICOM can refer to it", "use --output_format nifti")
    header = pydicom.dcmread(files[0], stop_before_pixels=True)
    missing = [name for name in _NEEDED if not header.get(name)]
    if missing:
        problem = f"lacks {', '.join(missing)}, to which DICOM results refer"
        raise InputError(source, problem, "export the original series, or use --output_format nifti")
    return header


def _frames(volume: Any, affine: Any, source: str) -> tuple[list[Any], np.ndarray]:
    """The images of a series in the order of the volume's slices, and the volume as (slices, rows, columns)."""
    import pydicom

    _header(source)
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in _files(source)]
    values, lps = np.asarray(volume), _LPS @ np.asarray(affine, dtype=np.float64)
    row, column = np.reshape(np.asarray(images[0].ImageOrientationPatient, dtype=np.float64), (2, 3))
    steps = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
    images.sort(key=lambda image: float(np.dot(image.ImagePositionPatient, steps[:, 2])))
    shape = (int(images[0].Columns), int(images[0].Rows), len(images))
    off = np.abs(np.asarray(images[0].ImagePositionPatient, dtype=np.float64) - lps[:3, 3]).max()
    if values.shape != shape or off > 0.1 or min(row @ steps[:, 0], column @ steps[:, 1]) < 0.999:
        problem = f"has the grid {shape}, the result {values.shape} lies elsewhere"
        raise InputError(source, problem, "let the bundle invert its preprocessing")
    for image in images:
        for name in _MAY_BE_EMPTY:
            if name not in image:
                setattr(image, name, "")
    return images, values.transpose(2, 1, 0)


def _algorithm(name: str) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    return AlgorithmIdentificationSequence(
        name=name, family=codes.cid7162.ArtificialIntelligence, version=__version__, source="anomaly-zoo"
    )


def _identity(source: Any, algorithm: str, number: int) -> dict[str, Any]:
    """What tells a result from others: new identifiers, and who made it."""
    from highdicom import UID

    return {
        "series_instance_uid": UID(),
        "series_number": 100 * min(int(source.get("SeriesNumber") or 90), 10**6) + number,
        "sop_instance_uid": UID(),
        "instance_number": 1,
        "manufacturer": "anomaly-zoo",
        "manufacturer_model_name": algorithm,
        "software_versions": __version__,
        "device_serial_number": "0",
        "content_label": "ANOMALY",
    }


def _save(path: str | Path, result: Any, description: str) -> None:
    result.SeriesDescription = description
    content = io.BytesIO()
    result.save_as(content, enforce_file_format=True)
    write_atomic(path, content.getvalue())
