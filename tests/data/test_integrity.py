from __future__ import annotations

import gzip
import os
import pickle
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from common.data.integrity import Problem, check_case, check_cases, table, verify
from common.errors import InputError
from tests.data.files import SHAPE, dicom, dicom_folder, nifti, picture

RANDOM = np.random.default_rng(1).random(SHAPE).astype(np.float32)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


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


def test_good_cases_have_no_problem(tmp_path: Path) -> None:
    volume = str(nifti(tmp_path / "a.nii.gz"))
    mask = str(nifti(tmp_path / "m.nii.gz", (RANDOM > 0.5).astype(np.uint8)))
    four = str(nifti(tmp_path / "b.nii", RANDOM[..., None]))
    flat = str(nifti(tmp_path / "c.nii", RANDOM[..., :1]))
    rgb = str(picture(tmp_path / "a.png", mode="RGB"))
    grey = str(picture(tmp_path / "g.JPG"))
    spots = str(picture(tmp_path / "m.png", (RANDOM[..., 0] > 0.5).astype(np.uint8) * 255))
    assert check_case({"image": volume, "mask": mask, "brain_mask": mask}, channels=1) == []
    assert check_case({"image": [volume, four], "mask": mask}, channels=2, spatial_dims=(3,)) == []
    assert check_case({"image": flat, "mask": spots}, spatial_dims=(2,)) == []
    assert check_case({"image": rgb, "mask": spots}, channels=3) == []
    assert check_case({"image": grey}, channels=1) == []
    verify([{"image": volume}, {"image": rgb}])


@pytest.mark.parametrize("dtype", [">f4", "<i2", ">i2", "f8", "u1", "u2"])
def test_every_real_number_type_is_read(tmp_path: Path, dtype: str) -> None:
    assert check_case({"image": str(nifti(tmp_path / "a.nii.gz", (RANDOM * 99).astype(dtype)))}) == []


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


# Values and sizes


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    array = RANDOM.copy()
    array[3, 2, 1] = array[4, 0, 0] = value
    finds(nifti(tmp_path / "a.nii.gz", array), "2 value(s)", "(3, 2, 1)", "background")
    finds(nifti(tmp_path / "b.nii.gz", np.full(SHAPE, value)), f"{RANDOM.size} value(s)", "(0, 0, 0)", "background")


@pytest.mark.parametrize("value", [0, 7, -3])
def test_constant_images(tmp_path: Path, value: int) -> None:
    path = nifti(tmp_path / "a.nii.gz", np.full(SHAPE, value, np.int16))
    finds(path, f"same value everywhere ({value})", "export the image again")


def test_an_empty_channel_of_a_picture(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    array[..., 1] = 0
    path = picture(tmp_path / "a.png", array, "RGB")
    finds(path, "nothing in channel 1", "missing sequence", severity="warning")


def test_sizes(tmp_path: Path) -> None:
    thin = nifti(tmp_path / "thin.nii", RANDOM[..., :4])
    assert check_case({"image": str(thin)}) == []  # slice by slice, four slices are four slices
    finds(thin, "too small (12 x 10 x 4)", "whole image", spatial_dims=(3,))
    finds(nifti(tmp_path / "small.nii", RANDOM[:7, :, :7]), "too small (7 x 10 x 7)", "whole image")
    finds(picture(tmp_path / "a.png", np.eye(7, 12, dtype=np.uint8)), "too small (7 x 12)", "whole image")
    voxel = check_case({"image": str(nifti(tmp_path / "one.nii", RANDOM[:1, :1, :1]))})
    assert any("too small" in problem.problem for problem in voxel)


def test_number_of_axes(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    finds(path, "2 spatial axes (12 x 10), 3 expected", "the model takes", spatial_dims=(3,))


def test_number_of_channels(tmp_path: Path) -> None:
    finds(picture(tmp_path / "a.png", mode="RGB"), "3 channel(s), 1 expected", "channels", channels=1)
    finds(nifti(tmp_path / "a.nii"), "1 channel(s), 4 expected", "channels", channels=4)


def test_channels_must_lie_on_each_other(tmp_path: Path) -> None:
    first = str(nifti(tmp_path / "a.nii"))
    for name, other, says in (
        ("s.nii", nifti(tmp_path / "s.nii", RANDOM[:, :, :8]), "has the shape (12, 10, 8)"),
        ("p.nii", nifti(tmp_path / "p.nii", affine=AFFINE + 0.01), "lies elsewhere in space"),
    ):
        found = check_case({"image": [first, str(other)]})
        assert [Path(problem.file).name for problem in found] == [name]
        assert found[0].remedy == "resample one onto the other"
        assert says in found[0].problem
        assert first in found[0].problem
    assert check_case({"image": [first, str(nifti(tmp_path / "n.nii", affine=AFFINE + 5e-4))]}) == []
    found = check_case({"image": [first, str(tmp_path / "no.nii")]}, channels=2)
    assert [problem.problem for problem in found] == ["does not exist"]


# Masks


def test_masks(tmp_path: Path) -> None:
    image = nifti(tmp_path / "a.nii.gz")

    def mask(name: str, array: np.ndarray, affine: np.ndarray | None = None) -> str:
        return str(nifti(tmp_path / name, array, affine))

    ones = (RANDOM > 0.5).astype(np.uint8)
    finds(image, "has the shape (12, 10, 8)", "resample", mask=mask("s.nii", ones[..., :8]))
    finds(image, "elsewhere in space", "apart", "resample", brain_mask=mask("g.nii", ones, AFFINE + 0.01))
    finds(image, "empty mask", "leave the mask out", mask=mask("e.nii", ones * 0), severity="warning")
    finds(image, "empty brain mask", "compute it again", brain_mask=mask("e.nii", ones * 0))
    labels = mask("l.nii", ones + ones * 3 * (RANDOM > 0.8))
    finds(image, "holds 3 values (0, 1, 4", "use 0 and 1", mask=labels, severity="warning")
    finds(image, "NaN", "background", mask=mask("n.nii", np.where(ones, np.nan, 0)))
    finds(image, "does not exist", "correct the path", mask=str(tmp_path / "no.nii"))


def test_a_mask_in_colour(tmp_path: Path) -> None:
    colour = np.repeat(np.uint8(RANDOM[..., :1] > 0.5) * 255, 3, axis=2)
    path = picture(tmp_path / "m.png", colour, "RGB")
    finds(picture(tmp_path / "a.png"), "3 channels, one is expected", "greyscale", mask=str(path))


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


# Many cases


def test_a_subject_in_two_splits_is_a_warning(tmp_path: Path) -> None:
    image = str(nifti(tmp_path / "a.nii"))
    cases = [
        {"image": image, "subject": subject, "split": split}
        for subject, split in (
            ("7", "training_healthy"),
            ("7", "training_diseased"),
            ("8", "training_healthy"),
            ("8", "validation"),
        )
    ]
    found = check_cases(cases)
    assert [(problem.file, problem.severity) for problem in found] == [("subject 8", "warning")]
    assert "several splits: training, validation" in found[0].problem
    assert "one split" in found[0].remedy
    verify(cases)


def test_verify_lists_twenty_and_counts_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    empty = str(nifti(tmp_path / "e.nii", np.zeros(SHAPE, np.uint8)))
    cases: list[dict[str, str]] = [{"image": str(tmp_path / f"no{index:02}.nii")} for index in range(23)]
    with pytest.raises(InputError) as caught:
        verify([*cases, {"image": str(nifti(tmp_path / "a.nii")), "mask": empty}])
    message = str(caught.value)
    assert "23 problems in 23 files" in message
    assert "no19.nii" in message
    assert "no20.nii" not in message
    assert "… and 3 more" in message
    assert "mend or remove" in message
    assert "e.nii" not in message  # only a warning, which is in the log
    assert "empty mask" in caplog.text


def test_table_is_aligned() -> None:
    rows = [Problem("a", "is bad", "mend it"), Problem("long\nname", "odd", "look at it", "warning")]
    lines = table(rows).splitlines()
    assert len(lines) == 3
    assert lines[0].index("problem") == lines[1].index("is bad") == lines[2].index("warning: odd")
    assert lines[0].index("what to do") == lines[1].index("mend it") == lines[2].index("look at it")
    assert table([]) == ""
    assert pickle.loads(pickle.dumps(rows[0])) == rows[0]


def test_checking_leaves_the_files_alone(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz")
    before = (path.read_bytes(), os.stat(path).st_mtime_ns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_case({"image": str(path)})
    assert (path.read_bytes(), os.stat(path).st_mtime_ns) == before
    assert [child.name for child in tmp_path.iterdir()] == ["a.nii.gz"]
