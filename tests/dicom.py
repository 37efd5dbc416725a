"""DICOM series as a scanner writes them, with a patient whose name must not be found elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

PATIENT = {"PatientName": "Rosenbaum^Ottilie", "PatientID": "HX-48291", "PatientBirthDate": "19310417"}
PRIVATE = ("rosenbaum", "ottilie", "48291", "19310417")


def write_series(folder: Path, volume: np.ndarray, affine: np.ndarray, uid: str = "1.2.826.0.1.7", **tags: Any) -> Path:
    """Write (x, y, z) as MR slices, whose files are in no order.

    Args:
        folder: of the series.
        volume: not negative.
        affine: voxel to world in mm (RAS), without shear.
        uid: of the series.
        **tags: further attributes; None leaves one out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    depth = volume.shape[2]
    for k in range(depth):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = f"{uid}.{k + 1}"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.826.0.1", uid, "1.2.826.0.2"
        image.Modality, image.Manufacturer, image.SeriesNumber, image.InstanceNumber = "MR", "Scanners", 3, k + 1
        image.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
        image.StudyDate = image.SeriesDate = image.ContentDate = "20240102"
        image.StudyTime = image.SeriesTime = image.ContentTime = "101112"
        image.StudyID, image.AccessionNumber, image.ReferringPhysicianName = "7", "A-99017", "Kraus^Emil"
        image.PatientSex = "F"
        image.ScanningSequence, image.SequenceVariant, image.ScanOptions, image.MRAcquisitionType = (
            "SE",
            "NONE",
            "",
            "2D",
        )
        image.EchoTime, image.RepetitionTime, image.EchoTrainLength = "10", "500", "1"
        image.PatientPosition, image.PositionReferenceIndicator = "HFS", ""
        image.ImagePositionPatient = [round(float(value), 6) for value in (lps @ [0, 0, k, 1])[:3]]
        image.ImageOrientationPatient = [round(float(value), 8) for value in (*axes[:, 0], *axes[:, 1])]
        image.PixelSpacing, image.SliceThickness = (
            [round(float(spacing[axis]), 6) for axis in (1, 0)],
            round(float(spacing[2]), 6),
        )
        image.Columns, image.Rows = volume.shape[:2]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.PixelData = np.ascontiguousarray(np.rint(10 * volume[:, :, k].T), dtype="<u2").tobytes()
        for name, value in {**PATIENT, **tags}.items():
            if value is not None:
                setattr(image, name, value)
            elif name in image:
                delattr(image, name)
        image.save_as(folder / f"IM{(k * 7) % depth:04d}_{k}.dcm", enforce_file_format=True)
    return folder


def at_the_same_place(volume: Any, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A DICOM volume on the voxels of ``affine`` (RAS), found by where they lie in the patient."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    world = np.c_[index, np.ones(len(index))] @ (np.diag([-1.0, -1, 1, 1]) @ affine).T
    there = world @ np.linalg.inv(volume.affine).T
    assert np.abs(there - there.round()).max() < 1e-3
    return volume.array[tuple(there.round().astype(int)[:, :3].T)].reshape(shape)
