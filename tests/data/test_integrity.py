from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.data.integrity import Problem, check_case, check_cases, table, verify
from common.errors import InputError
from tests.data.files import AFFINE, RANDOM, SHAPE, finds, nifti, picture


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


def test_the_axis_that_counts_slices_is_the_one_upwards(tmp_path: Path) -> None:
    turned = AFFINE[:, [2, 0, 1, 3]]  # slices along the first axis
    assert check_case({"image": str(nifti(tmp_path / "a.nii", RANDOM[:4], turned))}) == []
    finds(nifti(tmp_path / "b.nii", RANDOM[:, :1]), "too small (12 x 1 x 9): axial slices of it have 12 x 1", "whole")
    finds(nifti(tmp_path / "c.nii", RANDOM[..., :4], turned), "(12 x 10 x 4): axial slices of it have 10 x 4", "whole")
    # One slice that is not axial, and one without a third axis.
    finds(nifti(tmp_path / "d.nii", RANDOM[..., :1], turned), "(12 x 10): axial slices of it have 10 x 1", "whole")
    assert check_case({"image": str(nifti(tmp_path / "e.nii", RANDOM[..., 0]))}) == []


def test_a_nifti_file_that_does_not_say_how_it_lies(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(RANDOM, None)
    nibabel.save(image, tmp_path / "a.nii")
    finds(tmp_path / "a.nii", "does not say how it lies", "codes are 0", "convert it again", severity="warning")


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


# Many cases


def test_a_subject_in_two_splits_is_a_warning(tmp_path: Path) -> None:
    cases = [
        {"image": str(nifti(tmp_path / f"{index}.nii", RANDOM + index)), "subject": subject, "split": split}
        for index, (subject, split) in enumerate(
            (
                ("7", "training_healthy"),
                ("7", "training_diseased"),
                ("8", "training_healthy"),
                ("8", "validation"),
            )
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


# The parts of a case, and cases, against each other


def test_a_mask_that_contradicts_its_label(tmp_path: Path) -> None:
    image = nifti(tmp_path / "a.nii")
    marked = str(nifti(tmp_path / "m.nii", (RANDOM > 0.5).astype(np.uint8)))
    marks = f"marks {int((RANDOM > 0.5).sum())} voxels of a case whose label says healthy"
    found = check_case({"image": str(image), "mask": marked, "label": 0})
    assert [(problem.file, problem.severity) for problem in found] == [(marked, "error")]
    assert marks in found[0].problem
    empty = str(nifti(tmp_path / "e.nii", np.zeros(SHAPE, np.uint8)))
    (_, found_empty) = check_case({"image": str(image), "mask": empty, "label": 1})
    assert (found_empty.severity, found_empty.problem) == ("warning", "marks nothing in a case of label 1")
    assert check_case({"image": str(image), "mask": marked, "label": 1}) == []


def test_a_lesion_outside_the_brain(tmp_path: Path) -> None:
    half = np.zeros(SHAPE, np.uint8)
    half[:6] = 1
    mask, brain = np.zeros(SHAPE, np.uint8), str(nifti(tmp_path / "b.nii", half))
    mask[4:8] = 1
    case = {"image": str(nifti(tmp_path / "a.nii")), "mask": str(nifti(tmp_path / "m.nii", mask)), "brain_mask": brain}
    (found,) = check_case(case)
    assert "lies outside its brain mask by 50%" in found.problem


def test_an_image_that_comes_twice(tmp_path: Path) -> None:
    first, second = (str(nifti(tmp_path / name, RANDOM)) for name in ("a.nii", "b.nii.gz"))
    (found,) = check_cases([{"image": first, "split": "training"}, {"image": second, "split": "validation"}])
    assert (found.file, found.severity) == (second, "warning")
    assert found.problem == f"has the very voxels of {first}, in another split (training and validation)"
    (found,) = check_cases([{"image": first}, {"image": second}])
    assert found.problem == f"has the very voxels of {first}"


def test_cases_unlike_the_others(tmp_path: Path) -> None:
    spots = (RANDOM > 0.5).astype(np.uint8)
    cases = [
        {"image": str(nifti(tmp_path / f"{index}.nii", RANDOM + index)), "mask": str(nifti(tmp_path / "m.nii", spots))}
        for index in range(5)
    ]
    assert check_cases(cases) == []
    thick = str(nifti(tmp_path / "thick.nii", RANDOM + 7, AFFINE @ np.diag([1.0, 1, 4, 1])))
    coloured = str(picture(tmp_path / "c.png", mode="RGB"))
    found = check_cases([*cases, {"image": thick, "label": 0}, {"image": coloured}])
    assert [(problem.file, problem.severity) for problem in found] == [
        (coloured, "warning"),
        (thick, "warning"),
        (coloured, "warning"),
        (coloured, "warning"),
    ]
    assert found[0].problem == "has 3 channel(s), most images have 1"
    assert found[1].problem == "has voxels of 1 x 1 x 8 mm, usual are 1 x 1 x 2 mm"
    assert found[2].problem == "has 12 x 10 pixels, which count as 1 mm each: no size of a head"
    assert "neither a mask nor the label 0" in found[3].problem


@pytest.mark.parametrize(("side", "off"), [(64, True), (128, False), (256, False), (512, True)])
def test_pictures_of_no_size_of_a_head(tmp_path: Path, side: int, off: bool) -> None:
    draw = np.random.default_rng(side)
    shape = (side, side)
    cases = [
        {"image": str(picture(tmp_path / f"{index}.png", draw.integers(0, 255, shape, dtype=np.uint8)))}
        for index in range(3)
    ]
    found = [(problem.file, problem.problem) for problem in check_cases(cases)]
    said = f"has {side} x {side} pixels, which count as 1 mm each: no size of a head (2 more likewise)"
    assert found == ([(cases[0]["image"], said)] if off else [])
