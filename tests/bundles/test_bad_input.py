"""What cannot be used is refused before anything is computed or written: where, what is wrong, what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pytest
import torch

from common import InputError
from common.data import SCALING_FILE, Preprocessing
from common.networks import check_weights
from tests.bundles import zoo
from tests.bundles.synthetic import SHAPE, brain, oblique
from tests.data.files import nifti, picture

IMAGE = brain(SHAPE, seed=1).image


class Refusal(NamedTuple):
    """What is handed in (made in a folder), and three pieces of what must be said about it."""

    make: Callable[[Path], dict[str, Any]]
    source: str
    problem: str
    remedy: str


def good(folder: Path) -> Path:
    return nifti(folder / "scan.nii.gz", IMAGE, oblique())


def data(path: Path) -> dict[str, Any]:
    return {"dataset_dir": str(path)}


def with_values(change: Callable[[np.ndarray], Any]) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        values = IMAGE.copy()
        changed = change(values)
        return data(nifti(folder / "scan.nii.gz", values if changed is None else changed, oblique()))

    return make


def with_bytes(change: Callable[[bytearray], bytes | bytearray]) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        path = good(folder)
        path.write_bytes(change(bytearray(path.read_bytes())))
        return data(path)

    return make


def with_option(**options: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {**data(good(folder)), **options}


def set_voxel(value: float) -> Callable[[np.ndarray], None]:
    def change(values: np.ndarray) -> None:
        values[20, 30, 2] = value

    return change


def flip_checksum(content: bytearray) -> bytearray:
    content[-8] ^= 1
    return content


def empty_folder(folder: Path) -> dict[str, Any]:
    (folder / "scans").mkdir()
    return data(folder / "scans")


def colours(folder: Path) -> dict[str, Any]:
    return data(picture(folder / "scan.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "RGB"))


def series(folder: Path) -> dict[str, Any]:
    return data(nifti(folder / "scan.nii.gz", np.stack([IMAGE, IMAGE + 1], axis=-1), oblique()))


def flat_affine(folder: Path) -> dict[str, Any]:
    affine = oblique()
    affine[:3, 2] = affine[:3, 1] * 1.5
    path = folder / "scan.nii.gz"
    image = nibabel.Nifti1Image(IMAGE, None)
    image.header.set_sform(affine, 2)
    image.header["pixdim"][1:4] = 1.8, 2.2, 3.3
    nibabel.save(image, path)
    return data(path)


DATA = {
    "missing file": Refusal(lambda folder: data(folder / "no.nii.gz"), "no.nii.gz", "does not exist", "give a folder"),
    "empty folder": Refusal(empty_folder, "scans", "holds no image", "give a folder"),
    "truncated": Refusal(with_bytes(lambda b: b[: len(b) // 2]), "scan.nii.gz", "cut off", "copy or export"),
    "wrong check sum": Refusal(with_bytes(flip_checksum), "scan.nii.gz", "damaged: CRC", "copy or export"),
    "one NaN": Refusal(with_values(set_voxel(np.nan)), "scan.nii.gz", "1 value(s) that are NaN", "background"),
    "one inf": Refusal(with_values(set_voxel(np.inf)), "scan.nii.gz", "first at (20, 30, 2)", "background"),
    "constant": Refusal(with_values(lambda v: np.full_like(v, 7)), "scan.nii.gz", "same value everywhere", "export"),
    "RGB": Refusal(colours, "scan.png", "3 channel(s), 1 expected", "give the channels"),
    "4-D": Refusal(series, "scan.nii.gz", "holds 2 volumes", "extract the one"),
    "singular affine": Refusal(flat_affine, "scan.nii.gz", "singular affine", "repair the header"),
    "no data": Refusal(lambda folder: {}, "dataset_dir", "is not given", "--dataset_dir"),
}
SETTINGS = {
    "weights": Refusal(with_option(weights="/no/model.pt"), "/no/model.pt", "no such file", "path of one"),
    "spacing": Refusal(with_option(spacing="zigzag"), "spacing 'zigzag'", "not known", "linspace"),
    "map": Refusal(with_option(anomaly_map="guess"), "anomaly map 'guess'", "not known", "residual"),
    "device": Refusal(with_option(device="cuda"), "device 'cuda'", "not on this machine", "leave --device away"),
    "no such device": Refusal(with_option(device="abacus"), "device 'abacus'", "is not known", "'cpu'"),
    "threshold": Refusal(with_option(threshold="/no/t.json"), "/no/t.json", "no such threshold", "calibrate"),
    "negative threshold": Refusal(with_option(threshold=-1), "--threshold", "not a positive", "value in units"),
}
BUNDLE_OF = {"map": "ddpm"}


def refused(options: dict[str, Any], output: Path, bundle: str = "thor", config: str = "inference.json") -> InputError:
    """Run what must fail; return the error that the user is shown."""
    with pytest.raises((RuntimeError, InputError)) as caught:
        zoo.run(zoo.named(bundle), config, output_dir=str(output), **options)
    assert not list(output.glob("*"))
    return zoo.input_error(caught.value)


def check(error: InputError, expected: Refusal) -> None:
    assert expected.source in str(error)
    assert expected.problem in str(error)
    assert expected.remedy in str(error)


@pytest.mark.parametrize("name", DATA)
def test_data_that_cannot_be_used(name: str, overrides: Any, tmp_path: Path) -> None:
    options = {**overrides(zoo.named("thor")), **DATA[name].make(tmp_path)}
    check(refused(options, tmp_path / "output"), DATA[name])


@pytest.mark.parametrize("name", ["missing file", "one NaN", "RGB", "no data"])
def test_data_that_cannot_be_trained_on(name: str, tmp_path: Path) -> None:
    made = DATA[name].make(tmp_path)
    if "scan" in made.get("dataset_dir", ""):
        splits = {"training": [made["dataset_dir"]], "validation": [str(good(tmp_path / "good"))]}
        (tmp_path / "datalist.json").write_text(json.dumps(splits))
        made = data(tmp_path)
    options = {**zoo.training_overrides(zoo.named("thor")), **made}
    check(refused(options, tmp_path / "output", config="train.json"), DATA[name])


@pytest.mark.parametrize("bundle", [each for each in zoo.BUNDLES if zoo.learns_from_healthy(each)], ids=zoo.by_name)
def test_what_learns_from_healthy_scans_is_not_given_others(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    first = f"4 of 8 cases (first: {pictures / 'training_1.png'})"
    told = Refusal(data, first, "not healthy by their label", "leave them out of the split 'training'")
    options = {**zoo.training_overrides(bundle), **data(pictures)}
    check(refused(options, tmp_path / "output", bundle.name, "train.json"), told)


def test_the_other_bundles_learn_from_labels_or_masks() -> None:
    others = {bundle.name for bundle in zoo.BUNDLES if not zoo.learns_from_healthy(bundle)}
    assert others == {"classifier_guided_ddim", "classifier_free_ddim", "segmentation_ensemble"}
    for bundle in zoo.BUNDLES:
        config = zoo.read(bundle, "train.json")
        training, validation = (config[part]["dataset"]["data"] for part in ("train", "validate"))
        assert validation == training.replace("training", "validation")


@pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)
def test_calibration_takes_healthy_cases(bundle: Path) -> None:
    for file in (bundle / "configs").glob("*.json"):
        if file.name in ("calibrate.json", "statistics.json"):
            assert zoo.read(bundle, file.name)["cases"].startswith("$common.data.healthy_cases(@dataset_dir, @split")


def test_a_lesion_is_found_before_calibration_runs(overrides: Any, tmp_path: Path) -> None:
    """No label says so: the mask does."""
    path = good(tmp_path)
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[20:24, 20:24] = 1
    nifti(tmp_path / "scan_mask.nii.gz", lesion, oblique())
    bundle = zoo.named("dae")
    options = {**overrides(bundle), **data(tmp_path), "threshold_file": str(tmp_path / "threshold.json")}
    with pytest.raises((RuntimeError, InputError)) as caught:
        zoo.run(bundle, "inference.json", "calibrate.json", output_dir=str(tmp_path / "output"), **options)
    told = Refusal(data, f"1 of 1 cases (first: {path})", "not healthy by their mask", "leave them out of the data set")
    check(zoo.input_error(caught.value), told)


def test_cases_without_a_truth_are_not_evaluated(overrides: Any, tmp_path: Path) -> None:
    path, bundle = good(tmp_path), zoo.named("dae")
    with pytest.raises((RuntimeError, InputError)) as caught:
        zoo.infer(bundle, path, tmp_path / "output", "evaluate.json", **overrides(bundle))
    told = Refusal(data, f"1 of 1 cases (first: {path})", "have no mask", "name the mask of each case in a datalist")
    check(zoo.input_error(caught.value), told)


@pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)
def test_evaluation_takes_each_image_for_a_case_with_its_truth(bundle: Path) -> None:
    """Twins among them, which are healthy cases here."""
    cases = zoo.read(bundle, "evaluate.json")["cases"]
    assert cases.startswith("$common.data.load_cases(@dataset_dir, @split")
    assert cases.endswith("'mask', twins=False)")


@pytest.mark.parametrize(("overlay", "key"), [("evaluate.json", "output_dir"), ("calibrate.json", "threshold_file")])
def test_what_comes_of_all_cases_is_not_computed_where_it_cannot_be_written(
    overlay: str, key: str, overrides: Any, healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    bundle = zoo.named("dae")
    options = {"output_dir": str(tmp_path), **overrides(bundle), key: str(tmp_path / "file" / "below")}
    made = zoo.workflow(bundle, ["inference.json", overlay], "infer", dataset_dir=str(healthy), **options)
    monkeypatch.setattr(torch.nn.Module, "__call__", None)
    with pytest.raises((RuntimeError, InputError)) as caught:
        made.run()
    assert "file: cannot be written" in str(zoo.input_error(caught.value)).replace("/below", "")


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_cannot_be_used(name: str, overrides: Any, tmp_path: Path) -> None:
    if name == "device" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    bundle = BUNDLE_OF.get(name, "thor")
    options = {**overrides(zoo.named(bundle)), **SETTINGS[name].make(tmp_path)}
    check(refused(options, tmp_path / "output", bundle), SETTINGS[name])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_training_on_a_device_that_is_not_there(healthy_pictures: Path, tmp_path: Path) -> None:
    options = {**zoo.training_overrides(zoo.named("thor")), "dataset_dir": str(healthy_pictures), "device": "cuda"}
    check(refused(options, tmp_path / "output", config="train.json"), SETTINGS["device"])


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"finetune": "/no/model.pt"}, "/no/model.pt: no such file of weights"),
        ({"resume": "/no/checkpoint.pt"}, "/no/checkpoint.pt: no such checkpoint"),
        ({"freeze": "attic"}, "freeze 'attic'"),
        ({"train_levels": [5, 2000]}, "levels"),
    ],
)
@pytest.mark.parametrize("config", ["train.json", "finetune.json"])
def test_options_of_a_training_are_looked_at_before_its_scans(
    config: str, option: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    options = {**zoo.training_overrides(zoo.named("thor")), "finetune": "", **data(tmp_path / "no scans"), **option}
    with pytest.raises((RuntimeError, InputError)) as caught:
        zoo.run(zoo.named("thor"), "train.json", config, output_dir=str(tmp_path / "runs"), **options)
    assert problem in str(zoo.input_error(caught.value))


def test_training_into_a_folder_that_cannot_be_written(healthy_pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = {**zoo.training_overrides(zoo.named("dae")), **data(healthy_pictures)}
    told = Refusal(data, str(tmp_path / "file" / "runs"), "cannot be written", "give another folder")
    check(refused(options, tmp_path / "file" / "runs", "dae", "train.json"), told)


def test_weights_with_a_flipped_bit(overrides: Any, tmp_path: Path) -> None:
    options = {**overrides(zoo.named("thor")), **data(good(tmp_path))}
    source = Path(options["weights"])
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    weights = tmp_path / "model.pt"
    weights.write_bytes(content)
    (tmp_path / "SHA256SUMS").write_text((source.parent / "SHA256SUMS").read_text())
    check_weights(source)
    error = refused({**options, "weights": str(weights)}, tmp_path / "output")
    check(error, Refusal(data, str(weights), "SHA-256 differs", "download it again"))


@pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)
def test_another_scaling_than_that_of_the_weights(bundle: Path, tmp_path: Path) -> None:
    options = {**data(good(tmp_path)), "percentiles": [0, 100]}
    weights = str(bundle / "models" / "model.pt")
    told = Refusal(data, weights, "percentiles [1.0, 99.0] instead of [0.0, 100.0]", "leave them as they were")
    check(refused(options, tmp_path / "output", bundle.name), told)


def test_weights_without_a_word_of_their_scaling_are_taken(tmp_path: Path) -> None:
    scaling = Preprocessing(percentiles=None).scaling
    scaling.check(tmp_path / "model.pt")
    scaling.save(tmp_path)
    scaling.check(tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"percentiles none instead of \[1\.0, 99\.0\], top"):
        Preprocessing(top=1.0, weights=str(tmp_path / "model.pt"))
    (tmp_path / SCALING_FILE).write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        scaling.check(tmp_path / "model.pt")


def test_any_size_is_taken(overrides: Any, tmp_path: Path) -> None:
    """The network takes multiples of 8; everything else is padded, and cut to its own size again."""
    shape = (61, 35, 1)
    path = nifti(tmp_path / "scan.nii.gz", brain(shape, seed=2).image, oblique((3.1, 5.7, 4.0)))
    options = {**overrides(zoo.named("thor")), "spatial_size": [9, 11], **data(path)}
    zoo.run(zoo.named("thor"), "inference.json", output_dir=str(tmp_path / "output"), **options)
    assert nibabel.load(tmp_path / "output" / "scan_anomaly_map.nii.gz").shape == shape


@pytest.mark.parametrize("name", ["truncated", "threshold"])
def test_command_line_ends_in_one_line(name: str, overrides: Any, tmp_path: Path) -> None:
    """MONAI's own warnings aside, standard error says one thing, and the exit code says that it failed."""
    expected = {**DATA, **SETTINGS}[name]
    bundle = zoo.named("thor")
    options = {**overrides(bundle), **expected.make(tmp_path), "output_dir": str(tmp_path / "output")}
    done = zoo.command(str(bundle / "configs" / "inference.json"), options, cwd=zoo.ROOT)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert line.startswith("error: ")
    for part in expected[1:]:
        assert part in done.stderr
    assert not list((tmp_path / "output").glob("*"))
