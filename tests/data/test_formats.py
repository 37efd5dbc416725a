from __future__ import annotations

import gzip
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from common.data.integrity import check_case
from tests.data.files import AFFINE, RANDOM, REPORT, SHAPE, dicom, dicom_folder, finds, nifti, picture

# Files


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finds(tmp_path / "no.nii.gz", "does not exist", "correct the path")
    (tmp_path / "empty.nii.gz").touch()
    finds(tmp_path / "empty.nii.gz", "is empty", "copy or export")
    (tmp_path / "dir.nii.gz").mkdir()
    finds(tmp_path / "dir.nii.gz", "is a folder", "give a file")
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    finds(tmp_path / "loop.nii", "cannot be read", "check the link")
    locked = nifti(tmp_path / "locked.nii")
    real_open = Path.open

    def closed(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == locked:
            raise PermissionError(13, "Permission denied")
        return real_open(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", closed)  # file modes do not stop root
    finds(locked, "cannot be read (Permission denied)", "access rights")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.nii", b"<html>not found</html>" * 30, "holds something else"),
        ("a.nii.gz", b"version https://git-lfs" * 30, "holds something else"),
        ("a.nii.gz", gzip.compress(b"text" * 200, mtime=0), "holds gzip of something else"),
        ("a.png", b"\xff\xd8\xff" + b"0" * 500, "holds JPEG"),
        ("a.jpg", b"GIF89a" + b"0" * 500, "holds something else"),
        ("a.dcm", b"0" * 500, "holds something else"),
        ("a.xyz", b"0" * 500, "named like no image"),
    ],
    ids=["html", "git-lfs", "gzip", "jpeg", "gif", "not dicom", "no image"],
)
def test_files_that_are_not_what_their_name_says(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    finds(tmp_path / name, "is named like", says, "ending of what it is")


def test_plain_nifti_called_gz(tmp_path: Path) -> None:
    shutil.move(nifti(tmp_path / "a.nii"), tmp_path / "a.nii.gz")
    finds(tmp_path / "a.nii.gz", "is named like gzipped NIfTI, but holds NIfTI", "ending")


def test_names_with_spaces_and_other_letters_are_read(tmp_path: Path) -> None:
    assert check_case({"image": str(nifti(tmp_path / "ä b" / "脑\n1.nii.gz"))}) == []


# NIfTI


@pytest.mark.parametrize("dtype", [">f4", "<i2", ">i2", "f8", "u1", "u2"])
def test_every_real_number_type_is_read(tmp_path: Path, dtype: str) -> None:
    assert check_case({"image": str(nifti(tmp_path / "a.nii.gz", (RANDOM * 99).astype(dtype)))}) == []


def test_damaged_gzip_is_found_wherever_it_is(tmp_path: Path) -> None:
    whole = nifti(tmp_path / "a.nii.gz").read_bytes()
    path = tmp_path / "b.nii.gz"
    for cut in (len(whole) // 2, len(whole) - 1, len(whole) - 8):
        path.write_bytes(whole[:cut])
        finds(path, "cut off", "copy or export")
    for place in (len(whole) // 3, len(whole) // 2, len(whole) - 6):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        finds(path, "damaged", "copy or export")
    path.write_bytes(whole[:20])
    finds(path, "damaged", "copy or export")


def patched(path: Path, layout: str, offset: int, *values: float) -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, offset, *values)
    path.write_bytes(data)
    return path


def test_headers_that_lie(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-40])
    finds(path, "cut off", "promises", "copy or export")
    finds(patched(nifti(tmp_path / "bomb.nii"), "<3h", 42, 30000, 30000, 30000), "promises", "copy or export")
    finds(patched(nifti(tmp_path / "type.nii"), "<h", 70, 999), "header that cannot be read", "copy or export")
    finds(patched(nifti(tmp_path / "zero.nii"), "<h", 42, 0), "impossible shape", "copy or export")


def test_values_that_are_no_real_numbers(tmp_path: Path) -> None:
    finds(nifti(tmp_path / "c.nii", RANDOM.astype(np.complex64)), "complex", "magnitude")
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    finds(nifti(tmp_path / "r.nii", colour), "RGB", "one file of real numbers for each channel")


def test_four_axes(tmp_path: Path) -> None:
    finds(nifti(tmp_path / "a.nii.gz", np.stack([RANDOM] * 5, -1)), "holds 5 volumes", "extract the one volume")


@pytest.mark.parametrize(
    ("affine", "says"),
    [
        (np.diag([1.0, 1.0, 0.0, 1.0]), "spacing 1 x 1 x 0 mm"),
        (np.diag([1.0, 1e-6, 1.0, 1.0]), "spacing 1 x 1e-06 x 1 mm"),
        (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
    ],
)
def test_unusable_affines(tmp_path: Path, affine: np.ndarray, says: str) -> None:
    path = nifti(tmp_path / "a.nii")
    rows = affine.astype("<f4")[:3].ravel()
    finds(patched(path, "<12f", 280, *rows), says, "repair the header")


def test_unusable_spacing(tmp_path: Path) -> None:
    finds(patched(nifti(tmp_path / "n.nii"), "<f", 280, float("nan")), "NaN", "repair the header")
    finds(patched(nifti(tmp_path / "p.nii"), "<f", 80, float("nan")), "NaN", "repair the header")
    finds(patched(nifti(tmp_path / "m.nii"), "<f", 80, -1.0), "spacing -1 x 1 x 2", "repair the header")


def test_two_geometries_in_one_header(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(RANDOM, AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(np.diag([-1.0, 1.0, 2.0, 1.0]), 1)
    nibabel.save(image, tmp_path / "a.nii")
    finds(tmp_path / "a.nii", "sform and qform, up to 2 apart", "the one used", severity="warning")


# Pictures


def test_damaged_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        path = picture(tmp_path / name, np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        finds(path, "damaged", "copy or export")
    path = picture(tmp_path / "b.png")
    whole = path.read_bytes()
    place = whole.index(b"IDAT") + 20
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    finds(path, "damaged", "copy or export")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_other_colours_are_refused(tmp_path: Path, mode: str) -> None:
    finds(picture(tmp_path / "a.png", mode=mode), f"colour mode {mode}", "greyscale or RGB")


def test_sixteen_bit_pictures_are_read(tmp_path: Path) -> None:
    assert check_case({"image": str(picture(tmp_path / "a.png", (RANDOM[..., 0] * 60000).astype(np.uint16)))}) == []


# DICOM


def test_good_dicom(tmp_path: Path) -> None:
    folder = dicom_folder(tmp_path / "s", depths=tuple(range(0, 20, 2)))
    mask = np.zeros((10, 12, 10), np.uint8)
    mask[3:5, 3:5, 3:5] = 1
    path = nifti(tmp_path / "m.nii.gz", mask, np.diag([-1.0, -1.0, 2.0, 1.0]))
    assert check_case({"image": str(folder), "mask": str(path)}, channels=1, spatial_dims=(3,)) == []
    assert check_case({"image": str(next(folder.iterdir()))}) == []
    assert check_case({"image": str(dicom(tmp_path / "x.dcm", modality="CR"))}) == []


def skip_a_slice(folder: Path) -> None:
    dicom_folder(folder, depths=(0, 2, 6, 8))


def repeat_a_position(folder: Path) -> None:
    dicom_folder(folder, depths=(0, 2, 2, 4))


def turn_a_slice(folder: Path) -> None:
    dicom_folder(folder)
    dicom(folder / "x.dcm", position=(0, 0, 8), number=9, direction=(1, 0, 0, 0, 0, 1))


def tilt(folder: Path) -> None:
    for number in range(4):
        dicom(folder / f"{number}.dcm", position=(0, number * 0.5, number * 2), number=number)


def leave_out_the_geometry(folder: Path) -> None:
    for file in dicom_folder(folder).iterdir():
        content = file.read_bytes()
        position = struct.pack("<2HI", 0x20, 0x32, 6)  # tag and length of the image position
        assert content.count(position) == 1
        file.write_bytes(content.replace(position, struct.pack("<2HI", 0x20, 0x33, 6)))


def two_series(folder: Path) -> None:
    dicom_folder(folder)
    dicom_folder(folder, "1.2.3.9")


def one_slice_of_another_size(folder: Path) -> None:
    dicom_folder(folder)
    dicom(folder / "scout.dcm", position=(0, 0, 8), number=9, rows=14)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (skip_a_slice, ("1.2.3.4 has a gap: slices lie 2 to 4 mm apart", "all its slices")),
        (repeat_a_position, ("1.2.3.4 has several slices at one position", "one series a volume")),
        (turn_a_slice, ("1.2.3.4 mixes slices of different orientation", "split it")),
        (tilt, ("1.2.3.4 has slices that shift sideways by 0.5 mm", "gantry tilt", "resample")),
        (leave_out_the_geometry, ("1.2.3.4 has no geometry", "export the original series")),
        (one_slice_of_another_size, ("2 DICOM series", "folder of its own")),
        (two_series, ("2 DICOM series", "1.2.3.4", "1.2.3.9", "folder of its own")),
    ],
)
def test_bad_dicom(tmp_path: Path, spoil: Callable[[Path], None], words: tuple[str, ...]) -> None:
    spoil(tmp_path / "s")
    finds(tmp_path / "s", *words)


def test_damaged_dicom(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    finds(path, "decoded", "copy or export")
    path.write_bytes(path.read_bytes()[:200])
    finds(path, "decoded", "copy or export")


@pytest.mark.parametrize("left", [0, 400])
def test_a_slice_that_cannot_be_read_is_not_left_out_of_its_series(tmp_path: Path, left: int) -> None:
    folder = dicom_folder(tmp_path / "s", depths=tuple(range(0, 20, 2)))
    (folder / "report.dcm").write_bytes(REPORT)
    (folder / "._1.dcm").write_bytes(b"of a Macintosh")
    assert check_case({"image": str(folder)}) == []
    last = sorted(file for file in folder.iterdir() if file.name[0] != "." and file.name != "report.dcm")[-1]
    last.write_bytes(last.read_bytes()[:left])
    (found,) = check_case({"image": str(folder)})
    assert found.file == str(last)
    assert "cannot be read as one of them" in found.problem
