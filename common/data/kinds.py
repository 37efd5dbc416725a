"""Which kind of image a file is: by its name, and by its first bytes."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["content", "dicom_series", "dicom_tags", "is_dicom", "is_report", "kind", "size", "stem", "unlisted"]

_BY_SUFFIX = {".nii.gz": "NIfTI", ".nii": "NIfTI", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".dcm": "DICOM"}
_NOT_IMAGES = {".json", ".csv", ".tsv", ".txt", ".md", ".xml", ".html", ".pdf", ".bval", ".bvec", ".npy", ".npz"}

_CLASS = re.compile(rb"\x02\x00\x02\x00UI..([\d.]+)", re.DOTALL)
_STORAGE = b"1.2.840.10008.5.1.4.1.1."
_NO_IMAGES = tuple(
    _STORAGE + each for each in (b"88.", b"11.", b"9.", b"104.", b"66", b"67", b"481.3", b"481.5", b"481.8")
)


def _suffix(name: str) -> str | None:
    return next((suffix for suffix in _BY_SUFFIX if name.lower().endswith(suffix)), None)


def stem(path: str | Path) -> str:
    """Give the file name without the suffix of its image kind (``a.b.nii.gz`` gives ``a.b``)."""
    name = Path(path).name
    suffix = _suffix(name)
    return name[: -len(suffix)] if suffix else name


def is_dicom(path: str | Path) -> bool:
    """Tell whether a file carries the DICOM mark behind its preamble; False also where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_report(path: str | Path) -> bool:
    """Tell whether a file is DICOM of a class that is no image (reports, plans, presentations …), by its first bytes.

    False also where the class cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(2048)
    except OSError:
        return False
    # Media Storage SOP Class UID of the file's meta information, which is always explicit and little-endian.
    found = _CLASS.search(head) if head[128:132] == b"DICM" else None
    return found is not None and found[1].rstrip(b"\0 ").startswith(_NO_IMAGES)


def kind(path: str | Path) -> str | None:
    """Give the kind that a file claims to be: ``NIfTI``, ``PNG``, ``JPEG``, ``DICOM``, or None for no image.

    The suffix decides; a file with an unknown suffix, or none, is opened to look for the DICOM mark.
    """
    path = Path(path)
    suffix = _suffix(path.name)
    if suffix:
        return _BY_SUFFIX[suffix]
    # A DICOMDIR is a table of contents in DICOM form, not an image.
    if path.suffix.lower() in _NOT_IMAGES or path.name.upper() == "DICOMDIR":
        return None
    return "DICOM" if is_dicom(path) else None


def content(path: str | Path) -> str | None:
    """Give the kind that the first bytes of a file prove, or None where they prove none.

    Args:
        path: a file that can be read.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        head = file.read(352)
    if head.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as unpacked:
                head = unpacked.read(352)
        except (EOFError, zlib.error):
            return "damaged gzip"
        return "gzipped NIfTI" if _is_nifti(head) else "gzip of something else"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[128:132] == b"DICM":
        return "DICOM"
    return "NIfTI" if _is_nifti(head) else None


def size(path: str | Path) -> tuple[int, ...] | None:
    """Give the shape of a NIfTI file or picture from its header alone; None for DICOM."""
    found = kind(path)
    if found == "NIfTI":
        import nibabel

        shape: tuple[int, ...] = nibabel.load(path).shape
        return shape
    if found in ("PNG", "JPEG"):
        from PIL import Image

        with Image.open(path) as picture:
            return picture.size
    return None


def _is_nifti(head: bytes) -> bool:
    # The magic word stands at byte 344 in NIfTI-1 and at byte 4 in NIfTI-2.
    return head[344:347] == b"n+1" or head[4:7] == b"n+2"


def dicom_series(folder: str | Path) -> dict[str, list[str]]:
    """List the DICOM series of one folder (not of those below it) with their files in slice order.

    The split into series is the one that ``monai.data.ITKReader`` makes: files that share a series UID but differ in
    size, slice thickness or date are different series to it, and it would read only the first of them.

    Args:
        folder: a folder that exists.

    Returns:
        series identifier to list of files; empty where the folder holds no DICOM image.
    """
    import itk

    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    loud = names.GetGlobalWarningDisplay()
    names.SetGlobalWarningDisplay(False)  # that a folder holds no series is said where it matters, and of which folder
    try:
        names.SetDirectory(str(folder))
        return {str(uid): [str(file) for file in names.GetFileNames(uid)] for uid in names.GetSeriesUIDs()}
    finally:
        names.SetGlobalWarningDisplay(loud)


def unlisted(folder: str | Path, series: Mapping[str, list[str]]) -> list[Path]:
    """The files of a folder that claim to be DICOM images and are in none of its series: they cannot be read.

    Args:
        folder: a folder that exists.
        series: of it, as ``dicom_series`` gives them.
    """
    known = {Path(file).name for files in series.values() for file in files}
    files = [file for file in sorted(Path(folder).iterdir()) if file.is_file() and not file.name.startswith(".")]
    return [file for file in files if file.name not in known and kind(file) == "DICOM" and not is_report(file)]


def dicom_tags(file: str) -> dict[str, str]:
    """Read the header of a DICOM file: tags such as ``0010|0020`` to their values as text.

    Args:
        file: a DICOM image.

    Raises:
        RuntimeError: it cannot be read as one.
    """
    import itk

    io = itk.GDCMImageIO.New()
    io.SetFileName(file)
    io.ReadImageInformation()
    tags = io.GetMetaDataDictionary()
    return {str(key): str(tags[key]).strip() for key in tags.GetKeys() if "|" in str(key)}
