from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from common.cli import main
from common.data import discover, load_cases
from common.data.brain_mask import MNI_SHAPE
from common.data.lesions import _tumour, blob, plant, plant_dataset, tissue
from common.errors import InputError
from tests.data.files import nifti, picture

# open_ms-like grid: voxel (0, 0, 0) is right, back, low.
SHAPE_AFFINE = np.array([[-1, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1.0]])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def disc(shape: tuple[int, ...], radius: float) -> np.ndarray:
    grid = np.indices(shape).astype(float)
    centre = np.reshape([side // 2 for side in shape], (-1, *[1] * len(shape)))
    return np.asarray(((grid - centre) ** 2).sum(axis=0) <= radius**2)


def head() -> np.ndarray:
    """A picture (x, y) of 8 bit with skull, grey rim, white matter and two dark ventricles, on the template's grid."""
    x, y = np.meshgrid(np.arange(197) - 98, 98 - np.arange(233), indexing="ij")
    ellipse = np.hypot(x / 70, (y + 16) / 87)
    image = np.select([ellipse < 0.8, ellipse < 1.0, ellipse < 1.08, ellipse < 1.2], [200, 140, 20, 255], 0.0)
    image[np.hypot((np.abs(x) - 14) / 7, (y + 10) / 22) < 1] = 40
    noisy = image + rng().normal(0, 4, image.shape) * (image > 0)
    return np.clip(ndimage.gaussian_filter(noisy, 0.7), 0, 255).astype(np.uint8)


def healthy_pictures(folder: Path, count: int = 2) -> Path:
    for index in range(count):
        picture(folder / f"s{index}.png", np.ascontiguousarray(np.roll(head(), index, axis=1).T))
    entries = [{"image": f"s{index}.png", "subject": f"p{index}"} for index in range(count)]
    (folder / "datalist.json").write_text(json.dumps({"validation": entries}))
    return folder


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path)).T.astype(float)


@pytest.mark.parametrize(("shape", "centre"), [((60, 70), (30, 30)), ((40, 44, 36), (20, 21, 18))])
def test_blob_is_one_irregular_piece_near_its_centre(shape: tuple[int, ...], centre: tuple[int, ...]) -> None:
    made = blob(shape, centre, 8, rng())
    assert made.shape == shape
    assert made.dtype == bool
    assert ndimage.label(made)[1] == 1
    distance = np.sqrt(((np.argwhere(made) - centre) ** 2).sum(axis=1))
    assert 8 < distance.max() <= 1.5 * 8
    ball = disc((25,) * len(shape), 8).sum()
    assert 0.6 * ball < made.sum() < 1.6 * ball
    border = made & ~ndimage.binary_erosion(made)
    assert np.sqrt(((np.argwhere(border) - centre) ** 2).sum(axis=1)).std() > 0.5  # no ball
    assert np.array_equal(made, blob(shape, centre, 8, rng()))
    assert not np.array_equal(made, blob(shape, centre, 8, rng(1)))


def test_blob_at_the_corner_is_the_cut_of_the_whole_blob() -> None:
    whole = blob((40, 40), (20, 20), 6, rng())
    assert np.array_equal(blob((22, 20), (2, 0), 6, rng()), whole[18:, 20:])


@pytest.mark.parametrize(("centre", "radius"), [((50, 5), 3), ((5, 5, 5), 3), ((5, 5), 0.5), ((-1, 5), 3)])
def test_blob_refuses(centre: tuple[float, ...], radius: float) -> None:
    with pytest.raises(InputError):
        blob((20, 20), centre, radius, rng())


def scene(ndim: int = 2, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    shape = (64, 60, 24)[:ndim]
    brain, lesion = disc(shape, 26), disc(shape, 9)
    image = np.where(brain, 0.5 + 0.15 * rng(3).standard_normal(shape).clip(-2.5, 2.5), 7.0)
    planted = plant(image, lesion, brain_mask=brain, generator=rng(), **{"contrast": -0.3, **options})
    return image, lesion, brain, planted


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("contrast", [-0.4, 0.4])
def test_plant_changes_the_lesion_by_the_sign_of_the_contrast(ndim: int, contrast: float) -> None:
    image, lesion, brain, planted = scene(ndim, contrast=contrast)
    change = (planted - image) * np.sign(contrast)
    assert change.min() >= 0
    low, high = np.percentile(image[brain], [1, 99])
    assert 0.15 < change[lesion].mean() / (high - low) < 0.4
    assert np.array_equal(planted[~brain], image[~brain])
    far = ndimage.distance_transform_edt(~lesion) > 8
    assert np.array_equal(planted[far], image[far])


def test_a_small_contrast_is_met_exactly() -> None:
    image, lesion, brain = np.full((40, 40), 5.0), disc((40, 40), 9), np.ones((40, 40), bool)
    image[:4], image[-4:] = 0.0, 10.0
    planted = plant(image, lesion, contrast=0.05, texture=0, brain_mask=brain, generator=rng())
    assert planted[20, 20] - 5 == pytest.approx(0.5, rel=0.01)


def test_the_rim_has_half_of_the_strength() -> None:
    image, brain = np.full((60, 60), 5.0), np.ones((60, 60), bool)
    image[:4], image[-4:] = 0.0, 10.0
    lesion = np.zeros((60, 60), bool)
    lesion[20:40, 20:40] = True
    options: dict[str, Any] = {"contrast": -0.05, "texture": 0, "brain_mask": brain}
    change = 5 - plant(image, lesion, edge=2.0, generator=rng(), **options)
    assert change[30, 19:21].mean() == pytest.approx(change[30, 30] / 2, rel=0.01)
    assert np.all(np.diff(change[30, 12:30]) >= -1e-9)
    assert np.abs(np.diff(change[30])).max() < 0.25 * change.max()
    hard = 5 - plant(image, lesion, edge=0, generator=rng(), **options)
    assert hard[30, 19] == 0
    assert hard[30, 20] == hard[30, 30]


@pytest.mark.parametrize("contrast", [-1.0, 1.0])
def test_the_strongest_lesion_stays_within_the_brain_s_range(contrast: float) -> None:
    image, lesion, brain, planted = scene(contrast=contrast)
    low, high = np.percentile(image[brain], [1, 99])
    assert (planted != image)[lesion].mean() > 0.9
    ordinary = brain & (image >= low) & (image <= high)
    assert low <= planted[ordinary].min()
    assert planted[ordinary].max() <= high
    assert image[brain].min() <= planted[brain].min()
    assert planted[brain].max() <= image[brain].max()


def test_texture_is_the_lesion_s_own_and_random() -> None:
    image, brain, lesion = np.full((60, 60), 5.0), np.ones((60, 60), bool), disc((60, 60), 15)
    image[:4], image[-4:] = 0.0, 10.0
    core = disc((60, 60), 10)
    options: dict[str, Any] = {"contrast": -0.2, "brain_mask": brain}
    plain, rough, again, other = (
        plant(image, lesion, texture=texture, generator=rng(seed), **options)
        for texture, seed in ((0, 0), (0.3, 0), (0.3, 0), (0.3, 1))
    )
    assert plain[core].std() < 0.01 < 0.1 < rough[core].std()
    assert np.array_equal(rough, again)
    assert not np.array_equal(rough, other)


def test_plant_keeps_eight_bit() -> None:
    image, brain, lesion = head(), disc((197, 233), 60), disc((197, 233), 10)
    planted = plant(image, lesion, contrast=-0.9, brain_mask=brain, generator=rng())
    assert planted.dtype == np.uint8
    assert image.min() <= planted.min() <= planted.max() <= image.max()
    assert planted[lesion].mean() < image[lesion].mean()


@pytest.mark.parametrize(
    "change",
    [{"contrast": 0}, {"contrast": 2}, {"edge": -1}, {"texture": 2}, {"lesion": np.zeros((9, 9), bool)},
     {"lesion": np.ones((8, 9), bool)}, {"image": np.ones((9, 9))}],
)  # fmt: skip
def test_plant_refuses(change: dict[str, Any]) -> None:
    every = np.ones((9, 9), bool)
    good = {"image": rng().random((9, 9)), "lesion": every, "contrast": 0.3, "brain_mask": every, "generator": rng()}
    plant(**good)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        plant(**{**good, **change})


def test_tissue_leaves_out_ventricles_rim_and_for_bright_lesions_white_matter() -> None:
    image, brain = head(), np.zeros((197, 233), bool)
    brain[40:157, 40:190] = True
    dark, bright = tissue(image, brain), tissue(image, brain, 0.3)
    ventricle, white = (98 - 14, 98 + 10), (98 - 40, 98 + 10)
    assert not dark[ventricle]
    assert dark[white]
    assert not bright[white]
    assert not dark[40:44].any()
    assert bright.any()
    assert (dark | ~bright).all()


def planted_set(folder: Path, name: str = "out", **options: Any) -> list[dict[str, Any]]:
    listed = plant_dataset(folder / "healthy", folder / name, **options)
    assert listed == folder / name / "datalist.json"
    return discover(listed, "validation")


def test_plant_dataset_with_shapes(tmp_path: Path) -> None:
    healthy_pictures(tmp_path / "healthy")
    shape = np.zeros((182, 218, 182), np.uint8)
    # World x from 30 to 39 mm (right), y from -40 to -25 mm, z from 20 to 26 mm.
    shape[51:61, 86:102, 92:99] = 1
    nifti(tmp_path / "shapes" / "a.nii.gz", shape, SHAPE_AFFINE)
    cases = planted_set(tmp_path, shapes_dir=tmp_path / "shapes")
    assert [case["case"] for case in cases] == ["s0_healthy", "s0_lesion", "s1_healthy", "s1_lesion"]
    assert [case["label"] for case in cases] == [0, 1, 0, 1]
    assert [case["lesion"] for case in cases] == ["none", "tumour", "none", "shape"]
    assert [case["subject"] for case in cases] == ["p0", "p0", "p1", "p1"]
    for healthy, lesion in (cases[:2], cases[2:]):
        before, after, mask = pixels(healthy["image"]), pixels(lesion["image"]), pixels(lesion["mask"])
        brain = pixels(lesion["brain_mask"])
        assert before.shape == after.shape == mask.shape == brain.shape == MNI_SHAPE[:2]
        assert np.array_equal(before, pixels(str(tmp_path / "healthy" / f"{healthy['case'][:2]}.png")))
        assert not pixels(healthy["mask"]).any()
        assert set(np.unique(mask)) == {0, 255}
        assert (mask > 0).sum() == lesion["pixels"] >= 25
        assert (brain[mask > 0] == 255).all()
        change = (after - before) * np.sign(lesion["contrast"])
        assert change[mask > 0].mean() > 10
        assert np.abs(change)[brain == 0].max() == 0
    box = np.argwhere(pixels(cases[3]["mask"]) > 0)
    # Picture columns start at x = -98 mm, rows at y = +98 mm and go back.
    assert box.min(axis=0).tolist() == [98 + 30, 98 + 25]
    assert box.max(axis=0).tolist() == [98 + 39, 98 + 40]
    assert cases[3]["contrast"] < 0


def test_plant_dataset_is_deterministic_and_follows_the_seed(tmp_path: Path) -> None:
    healthy_pictures(tmp_path / "healthy")
    first, same = planted_set(tmp_path, "a"), planted_set(tmp_path, "b")
    other = planted_set(tmp_path, "c", seed=1)
    assert [case["lesion"] for case in first] == ["none", "tumour"] * 2
    for one, two, three in zip(first, same, other, strict=True):
        assert Path(one["image"]).read_bytes() == Path(two["image"]).read_bytes()
        assert Path(one["mask"]).read_bytes() == Path(two["mask"]).read_bytes()
        assert one["label"] == 0 or Path(one["mask"]).read_bytes() != Path(three["mask"]).read_bytes()


def test_a_tumour_finds_its_place_where_the_deepest_pixel_is_a_gap() -> None:
    inside = disc((41, 41), 9) & ~disc((41, 41), 1)
    for seed in range(20):
        lesion = _tumour({"image": "gap.png", "case": "gap"}, inside, rng(seed))
        assert lesion.any()
        assert not (lesion & ~inside).any()


def test_plant_dataset_refuses(tmp_path: Path) -> None:
    healthy_pictures(tmp_path / "healthy", 1)
    with pytest.raises(InputError, match="has no split"):
        plant_dataset(tmp_path / "healthy", tmp_path / "out", split="test")
    (tmp_path / "ill.json").write_text(json.dumps([{"image": "healthy/s0.png", "label": 1}]))
    with pytest.raises(InputError, match="not healthy by their label"):
        plant_dataset(tmp_path / "ill.json", tmp_path / "out", split=None)
    with pytest.raises(InputError, match="holds no NIfTI"):
        plant_dataset(tmp_path / "healthy", tmp_path / "out", shapes_dir=tmp_path / "none")
    with pytest.raises(InputError, match="contrasts"):
        plant_dataset(tmp_path / "healthy", tmp_path / "out", contrasts=())
    picture(tmp_path / "small" / "a.png", head().T[20:200].copy())
    with pytest.raises(InputError, match="197×180 and has no brain mask"):
        plant_dataset(tmp_path / "small", tmp_path / "out", split=None)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be written"):
        plant_dataset(tmp_path / "nowhere", tmp_path / "file")


def test_planting_leaves_the_data_set_as_it_is(tmp_path: Path) -> None:
    data = healthy_pictures(tmp_path / "healthy", 1)
    before = sorted(data.iterdir()), (data / "datalist.json").read_text()
    for given, output in ((data, data), (data / "datalist.json", data), (data / ".", data)):
        with pytest.raises(InputError, match=r"output_dir .*healthy: lies in the data set"):
            plant_dataset(given, output)
    assert (sorted(data.iterdir()), (data / "datalist.json").read_text()) == before
    picture(tmp_path / "searched" / "a.png", head().T.copy())
    with pytest.raises(InputError, match="lies in the data set"):
        plant_dataset(tmp_path / "searched", tmp_path / "searched" / "planted", split=None)


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    healthy_pictures(tmp_path / "healthy")
    nifti(tmp_path / "low" / "a.nii.gz", np.ones((182, 218, 20), np.uint8), SHAPE_AFFINE)  # far below the pictures
    with pytest.raises(InputError, match="no mask has 25 pixels"):
        plant_dataset(tmp_path / "healthy", tmp_path / "out", shapes_dir=tmp_path / "low")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a lesion mask"):
        plant_dataset(tmp_path / "healthy", tmp_path / "out", shapes_dir=tmp_path / "bad")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    healthy_pictures(tmp_path / "healthy", 1)
    main(["plant", str(tmp_path / "healthy"), "--output_dir", str(tmp_path / "out"), "--seed", "2"])
    assert capsys.readouterr().out.strip().endswith(str(tmp_path / "out" / "datalist.json"))
    assert len(discover(tmp_path / "out")) == 2


def test_a_picture_may_have_several_lesions_each_with_its_healthy_twin(tmp_path: Path) -> None:
    healthy_pictures(tmp_path / "healthy")
    once, often = planted_set(tmp_path, "once"), planted_set(tmp_path, "often", repeats=3)
    assert [case["case"] for case in often[:4]] == ["s0_healthy", "s0_lesion", "s0_lesion_1", "s0_lesion_2"]
    assert "twin" not in often[0]
    assert {case["twin"] for case in often[1:4]} == {often[0]["image"]}
    assert pixels(often[1]["image"]).tolist() == pixels(once[1]["image"]).tolist()
    assert len({pixels(case["mask"]).tobytes() for case in often[1:4]}) == 3


def test_without_a_split_each_case_keeps_its_own(tmp_path: Path) -> None:
    healthy_pictures(tmp_path / "healthy")
    files = sorted((tmp_path / "healthy").glob("*.png"))
    splits = {"training": [{"image": files[0].name}], "validation": [{"image": files[1].name}]}
    (tmp_path / "healthy" / "datalist.json").write_text(json.dumps(splits))
    listed = plant_dataset(tmp_path / "healthy", tmp_path / "out", split=None)
    assert {name: len(cases) for name, cases in json.loads(listed.read_text()).items()} == {
        "training": 2,
        "validation": 2,
    }


def test_where_no_case_has_a_split_the_list_has_none(tmp_path: Path) -> None:
    healthy_pictures(tmp_path / "healthy", 4)
    (tmp_path / "healthy" / "datalist.json").unlink()
    listed = plant_dataset(tmp_path / "healthy", tmp_path / "out", split=None)
    entries = json.loads(listed.read_text())
    assert isinstance(entries, list)
    parts = [load_cases(str(listed), split, truth="mask") for split in ("training", "validation")]
    subjects = [{case["subject"] for case in part} for part in parts]
    assert all(subjects)
    assert not subjects[0] & subjects[1]
