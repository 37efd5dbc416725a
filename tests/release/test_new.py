"""A new bundle passes the matrix's main checks before a line of it is changed."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import monai.bundle
import nibabel
import numpy as np
import pytest
from monai.bundle.properties import InferProperties, TrainProperties

from common import InputError
from common.cli import main
from common.evaluation.bundle import the_process_as_before
from common.evaluation.comparison.compare import compare
from common.networks import check_weights
from common.release import package
from common.release.scaffold import new_bundle
from tests.bundles import zoo
from tests.bundles.conftest import _as_before, healthy_pictures, overrides, pictures, volumes  # noqa: F401 (fixtures)
from tests.bundles.test_metadata import FILES
from tests.bundles.test_properties import missing

LIKE = zoo.BUNDLES[0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_bundle("my_method", LIKE, tmp_path_factory.mktemp("bundles"))


def test_is_whole(bundle: Path, tmp_path: Path) -> None:
    assert [name for name in FILES if not (bundle / name).is_file()] == []
    metadata = zoo.read(bundle, "metadata.json")
    jsonschema.validate(metadata, json.loads(zoo.SCHEMA.read_text()))
    assert (metadata["name"], metadata["version"], [*metadata["changelog"]]) == ("my_method", "0.1.0", ["0.1.0"])
    assert zoo.read(bundle, "inference.json")["inferer"]["_target_"] == "my_method_inferer.MyMethodInferer"
    check_weights(bundle / "models" / "model.pt")
    with zipfile.ZipFile(package([bundle], tmp_path)[0]) as file:
        assert "my_method/my_method_inferer.py" in file.namelist()


def test_has_the_ids_that_monai_asks_for(bundle: Path) -> None:
    for name, properties in (("inference", InferProperties), ("train", TrainProperties)):
        made = zoo.workflow(bundle, [f"{name}.json"], name.replace("erence", "er"))
        assert missing(made.parser, properties) == []
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs/metadata.json"),
        config_file=str(bundle / "configs/inference.json"),
        device="cpu",
        n=2,
        bundle_root=str(bundle),
    )


def test_trains(bundle: Path, healthy_pictures: Path, tmp_path: Path) -> None:  # noqa: F811
    options = {**zoo.training_overrides(bundle), "max_epochs": 1, "dataset_dir": str(healthy_pictures)}
    made = zoo.run(bundle, "train.json", **options, output_dir=str(tmp_path))
    assert made.trainer.state.iteration == 2
    check_weights(tmp_path / "model.pt")


def test_finds_what_the_other_finds(bundle: Path, overrides: Any, volumes: Path, tmp_path: Path) -> None:  # noqa: F811
    """On volumes, with metrics; the code is a copy, so the maps are the same bits."""
    for each in (bundle, LIKE):
        zoo.infer(each, volumes, tmp_path / each.name, **overrides(LIKE))
    written = sorted(path.name for path in (tmp_path / bundle.name).glob("*.nii.gz"))
    assert len(written) == 12
    for name in written:
        one, other = (np.asarray(nibabel.load(tmp_path / each.name / name).dataobj) for each in (bundle, LIKE))
        np.testing.assert_array_equal(one, other)
    made = zoo.infer(bundle, volumes, tmp_path / "metrics", "evaluate.json", **overrides(LIKE))
    assert type(made.inferer).__module__ == "my_method_inferer"
    metrics = json.loads((tmp_path / "metrics" / "metrics.json").read_text())["metrics"]
    assert metrics["cases"] == 4
    assert 0 <= metrics["pixel_ap"] <= 1


def test_is_compared(bundle: Path, overrides: Any, pictures: Path, tmp_path: Path) -> None:  # noqa: F811
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({bundle.name: overrides(LIKE)}))
    with the_process_as_before():
        sys.modules.pop("my_method_inferer", None)
        results = compare(
            str(pictures), tmp_path / "out", bundles_dir=bundle.parent, bundles=(bundle.name,), split="validation",
            settings=str(settings), draws=10,
        )  # fmt: skip
    assert results["failures"] == []


def test_a_change_of_the_code_changes_the_result(overrides: Any, volumes: Path, tmp_path: Path) -> None:  # noqa: F811
    changed = new_bundle("changed", LIKE, tmp_path)
    module = changed / "changed_inferer.py"
    code = module.read_text()
    assert code.count("def restore(") == 1
    stop = 'def restore(self, image, *rest):\n        raise ArithmeticError("changed")\n\n    def other('
    module.write_text(code.replace("def restore(", stop))
    with pytest.raises(RuntimeError) as caught:
        zoo.infer(changed, volumes, tmp_path / "output", **overrides(LIKE))
    assert isinstance(caught.value.__cause__, ArithmeticError)


@pytest.mark.parametrize("like", zoo.BUNDLES, ids=zoo.by_name)
def test_begins_with_any_bundle(like: Path, tmp_path: Path) -> None:
    made = new_bundle("other", like, tmp_path)
    code = (made / "other_inferer.py").read_text()
    compile(code, "other_inferer.py", "exec")
    assert code.startswith('"""TODO: the method in one line')
    assert zoo.read(made, "inference.json")["inferer"]["_target_"] == "other_inferer.OtherInferer"
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["new", "mine", "--like", str(LIKE), "--bundles_dir", str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "mine")


@pytest.mark.parametrize(("name", "problem"), [("a b", "no name"), ("taken", "exists already")])
def test_names_that_cannot_be(name: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match=problem):
        new_bundle(name, LIKE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(InputError, match="cannot be written → give another folder"):
        new_bundle("mine", LIKE, tmp_path)
    assert [*tmp_path.iterdir()] == []
