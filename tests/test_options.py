"""Options of a wrong kind are refused where they come in, and overrides that no config knows."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from common.anomaly import PostProcessd
from common.data import Preprocessing
from common.diffusion import NoiseSchedule, SimplexNoise
from common.errors import InputError
from common.inferers import (
    ANDiInferer,
    AutoDDPMInferer,
    ClassifierGuidedInferer,
    EnsembleInferer,
    FusionInferer,
    Journal,
    MahalanobisInferer,
    PartialDiffusionInferer,
    PatchedInferer,
)
from common.options import choice, flag, number, whole_number
from common.overrides import check_overrides


@pytest.mark.parametrize("value", ["false", "True", 0, None])
def test_a_word_is_no_flag(value: Any) -> None:
    with pytest.raises(InputError, match="neither True nor False"):
        flag("mirror", value)
    assert flag("mirror", True)


@pytest.mark.parametrize("value", ["3", 1.5, True, 0, None])
def test_whole_numbers(value: Any) -> None:
    with pytest.raises(InputError, match="whole number, 1 or more"):
        whole_number("median", value, 1)
    assert whole_number("median", 1, 1) == 1


@pytest.mark.parametrize("value", ["3", float("nan"), False, None])
def test_numbers(value: Any) -> None:
    with pytest.raises(InputError, match="is no number"):
        number("slice_mm", value)
    assert number("slice_mm", 23) == 23
    assert number("smoothing", 0, 0) == 0
    with pytest.raises(InputError, match="smoothing -1: cannot be used → give a number of 0 or more"):
        number("smoothing", -1, 0)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: PostProcessd(0.1, erosion=-1), "erosion -1"),
        (lambda: PostProcessd(0.1, median="x"), "median 'x'"),  # type: ignore[arg-type]
        (lambda: PostProcessd(0.1, min_size=1.5), "min_size 1.5"),  # type: ignore[arg-type]
        (lambda: PostProcessd([1, 2]), "not a positive number"),  # type: ignore[arg-type]
        (lambda: Preprocessing(spatial_size=80), "spatial_size 80"),  # type: ignore[arg-type]
        (lambda: Preprocessing(spatial_size=[80, "a"]), "spatial_size 'a'"),  # type: ignore[list-item]
        (lambda: Preprocessing(slice_mm="abc"), "slice_mm 'abc'"),  # type: ignore[arg-type]
        (lambda: PartialDiffusionInferer(schedule=NoiseSchedule(), mirror="false"), "mirror 'false'"),
        (lambda: PartialDiffusionInferer(schedule=NoiseSchedule(), noise_level="a"), "level 'a'"),  # type: ignore[arg-type]
        (lambda: PartialDiffusionInferer(schedule=NoiseSchedule(), num_restorations=0), "num_restorations 0"),
        (lambda: Journal("results", {}, [], resume="false"), "resume 'false'"),  # type: ignore[arg-type]
        (lambda: Journal("results", {}, [], keep_going="no"), "keep_going 'no'"),  # type: ignore[arg-type]
    ],
)
def test_are_refused_when_a_thing_is_made(made: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        made()


NETWORK = nn.Conv2d(1, 1, 1)
METHODS: dict[Any, dict[str, Any]] = {
    ANDiInferer: {},
    AutoDDPMInferer: {},
    EnsembleInferer: {},
    FusionInferer: {"classifier": NETWORK, "autoencoder": NETWORK},
    ClassifierGuidedInferer: {"classifier": NETWORK},
    MahalanobisInferer: {},
    PatchedInferer: {},
}


@pytest.mark.parametrize("value", ["abc", [], [1], -1])
@pytest.mark.parametrize(
    ("method", "option"),
    [
        (ANDiInferer, "lower_level"),
        (ANDiInferer, "upper_level"),
        (ANDiInferer, "num_inference_steps"),
        (ANDiInferer, "channels"),
        (ANDiInferer, "noise"),
        (AutoDDPMInferer, "mask_percentile"),
        (AutoDDPMInferer, "spacing"),
        (AutoDDPMInferer, "perceptual"),
        (EnsembleInferer, "offset"),
        (EnsembleInferer, "polarity"),
        (FusionInferer, "saliency_steps"),
        (FusionInferer, "saliency_step_size"),
        (FusionInferer, "saliency_penalty"),
        (FusionInferer, "saliency_quantile"),
        (ClassifierGuidedInferer, "guidance_level"),
        (ClassifierGuidedInferer, "sampler"),
        (ClassifierGuidedInferer, "task"),
        (MahalanobisInferer, "num_reconstructions"),
        (MahalanobisInferer, "ridge"),
        (MahalanobisInferer, "anomaly_map"),
        (PatchedInferer, "patch_size"),
        (PatchedInferer, "overlap"),
    ],
)
def test_of_methods_are_refused_by_name(method: Any, option: str, value: Any) -> None:
    name = option.replace("anomaly_", "anomaly ")
    with pytest.raises(InputError, match=name):
        method(schedule=NoiseSchedule(), **METHODS[method], **{option: value})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"octaves": 0}, "octaves 0"),
        ({"octaves": "many"}, "octaves 'many'"),
        ({"persistence": [1]}, r"persistence \[1\]"),
        ({"wavelength": 0}, "wavelength 0: is not above 0"),
        ({"wavelength": None}, "wavelength None"),
    ],
)
def test_of_simplex_noise(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SimplexNoise(**options)


def test_a_word_that_is_not_known_is_told_with_those_that_are() -> None:
    assert choice("spacing", "a", ("a", "b")) == "a"
    for value in ("c", 3, None, ["a"]):
        with pytest.raises(InputError, match=r"is not known → choose one of \['a', 'b'\]"):
            choice("spacing", value, ("a", "b"))


RUNNER = ["/site-packages/monai/bundle/__main__.py", "run"]


@pytest.fixture
def configs(tmp_path: Path) -> str:
    for name, keys in (
        ("inference.json", {"min_size": 8, "output_dir": "eval", "network_def": {"channels": 1}}),
        ("more.json", {"amp": True, "batch_size": 16, "patience": 0, "learning_rate": 0.1}),
    ):
        (tmp_path / name).write_text(json.dumps(keys))
    (tmp_path / "args.json").write_text(json.dumps({"config_file": str(tmp_path / "inference.json"), "min_siz": 3}))
    return str([str(tmp_path / "inference.json"), str(tmp_path / "more.json")])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--min_szie", "3"], "--min_szie.*did you mean --min_size"),
        (["--min-szie=3"], "--min_szie.*did you mean --min_size"),
        (["--wish", "3"], "--wish.*leave it away"),
        (["--amp", "True", "--network_de#channels", "2"], "did you mean --network_def"),
    ],
)
def test_an_override_of_no_key_is_refused(configs: str, words: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check_overrides([*RUNNER, "--config_file", configs, *words])


@pytest.mark.parametrize(
    "words", [["--batch_size", "0"], ["--batch_size=-1"], ["--batch_size", "2.5"], ["--patience", "many"]]
)
def test_a_count_that_is_none_is_refused(configs: str, words: list[str]) -> None:
    with pytest.raises(InputError, match=f"{words[0][:8]}.*give a whole number, [01] or more"):
        check_overrides([*RUNNER, "--config_file", configs, *words])


@pytest.mark.parametrize(("rate", "problem"), [("fast", "'fast': is no number"), ("-1e-3", "a number of 0 or more")])
def test_a_rate_that_is_none_is_refused(configs: str, rate: str, problem: str) -> None:
    with pytest.raises(InputError, match=f"--learning_rate .*{problem}"):
        check_overrides([*RUNNER, "--config_file", configs, "--learning_rate", rate])


def test_counts_rates_and_expressions_pass(configs: str) -> None:
    check_overrides([*RUNNER, "--config_file", configs, "--learning_rate=5e-4"])
    check_overrides([*RUNNER, "--config_file", configs, "--batch_size", "4", "--patience=0"])
    check_overrides([*RUNNER, "--config_file", configs, "--batch_size", "$2 * 2"])


def test_overrides_of_keys_pass(configs: str) -> None:
    words = ["--min_size", "3", "--network_def#channels", "-1", "--amp=False", "--logging_file", "False"]
    check_overrides([*RUNNER, f"--config_file={configs}", *words])
    check_overrides([*RUNNER, "--config_file", configs[2:-2].split("', '")[0], "--run_id", "run"])


def test_words_of_monai_itself_pass(configs: str) -> None:
    words = ["--workflow_type", "infer", "--tracking", "mlflow", "--experiment_name", "mine"]
    check_overrides([*RUNNER, f"--config_file={configs}", *words])
    with pytest.raises(InputError, match="--experiment_name: is no key"):
        check_overrides([*RUNNER, f"--config_file={configs}", "--experiment_name", "mine"])


@pytest.mark.parametrize("name", ["2024", "2024_10_05"])
def test_a_folder_whose_name_is_a_number_is_told(configs: str, name: str) -> None:
    with pytest.raises(InputError, match=rf"--output_dir {name}: is taken for a number → write \./{name}"):
        check_overrides([*RUNNER, f"--config_file={configs}", "--output_dir", name])
    check_overrides([*RUNNER, f"--config_file={configs}", "--output_dir", f"./{name}"])


def test_args_files_are_read_and_other_programs_left_alone(configs: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--min_siz"):
        check_overrides([*RUNNER, "--args_file", str(tmp_path / "args.json")])
    check_overrides(["/bin/anomaly-zoo", "compare", "--wish", "3"])
