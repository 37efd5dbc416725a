"""Fine-tuning on a hospital's own healthy scans: ``train.json`` with ``finetune.json``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from common import InputError
from common.networks import sha256
from common.training import freeze
from tests.bundles import zoo

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
BUNDLE = zoo.named("dae")


def load(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


@pytest.fixture
def options(pictures: Path, overrides: Any, tmp_path: Path) -> dict[str, Any]:
    given = zoo.training_overrides(BUNDLE)
    for key in ("max_epochs", "val_interval", "save_interval"):
        del given[key]  # the overlay's, from the number of scans
    given |= {"max_steps": 6, "val_steps": 2, "batch_size": 2, "finetune": overrides(BUNDLE)["weights"]}
    splits = json.loads((pictures / "datalist.json").read_text())
    healthy = {
        split: [{"image": str(pictures / entry["image"])} for entry in entries if not entry["label"]]
        for split, entries in splits.items()
    }
    (tmp_path / "healthy.json").write_text(json.dumps(healthy))
    return {**given, "dataset_dir": str(tmp_path / "healthy.json"), "output_dir": str(tmp_path)}


def training(options: dict[str, Any], scores: list[float] | None = None) -> Any:
    """A fine-tuning that is ready to run, whose validation losses may be made up."""
    made = zoo.workflow(BUNDLE, ["train.json", "finetune.json"], "train", **options)
    made.initialize()
    if scores is not None:
        left = iter(scores)
        validator = made.parser.get_parsed_content("validate#evaluator")

        def pretend(engine: Engine) -> None:
            engine.state.metrics["val_loss"] = next(left)

        validator.add_event_handler(Events.EPOCH_COMPLETED, pretend)
    return made


@pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)
def test_every_bundle_is_fine_tuned_in_one_way(bundle: Path) -> None:
    overlay = zoo.read(bundle, "finetune.json")
    if not zoo.learns_from_healthy(bundle):  # may take several channels
        assert overlay["calibration"]["settings"].pop("in_channels") == "@in_channels"
    assert overlay == zoo.read(BUNDLE, "finetune.json")
    config = zoo.read(bundle, "train.json")
    assert (config["freeze"], config["patience"]) == ("", 0)
    (handler,) = (each for each in config["train"]["handlers"] if each["_target_"] == "common.training.TrainingRun")
    assert (handler["patience"], handler["validator"]) == ("@patience", "@validate#evaluator")


@pytest.mark.parametrize("bundle", zoo.distinct("train.json"), ids=zoo.by_name)
def test_a_frozen_encoder_does_not_learn(bundle: Path) -> None:
    made = zoo.workflow(bundle, ["train.json"], "train", **zoo.training_overrides(bundle), freeze="encoder")
    network = made.parser.get_parsed_content("network")
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert 0 < len(frozen) < len(list(network.parameters()))
    assert {name.split(".")[0] for name in frozen} == set(network.encoder_parts)


def test_parts_that_are_not_there() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    assert freeze(network) is network
    assert not freeze(network, "0")[0].weight.requires_grad
    for part in ("encoder", "2", "0, 7"):
        with pytest.raises(InputError, match=rf"freeze '{part}': Sequential has no such part.*0, 1"):
            freeze(network, part)
    with pytest.raises(InputError, match="leaves nothing to train"):
        freeze(network, "0,1")


def test_from_scans_to_weights_threshold_and_report(options: dict[str, Any], tmp_path: Path) -> None:
    made = training({**options, "freeze": "encoder"})
    assert made.parser.get_parsed_content("max_epochs") == 3
    made.run()
    given, learnt = load(Path(options["finetune"])), load(tmp_path / "model.pt")
    changed = {name for name, value in learnt.items() if not torch.equal(value, given[name])}
    assert changed
    assert not any(name.startswith("down.") for name in changed)

    threshold = json.loads((tmp_path / "threshold.json").read_text())
    assert threshold["value"] > 0
    assert threshold["cases"] == 2  # of the scans that validated
    assert threshold["weights_sha256"] == sha256(tmp_path / "model.pt")

    page = (tmp_path / "training_report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page
    for words in ("all epochs done", "Curves", "Samples", "not a medical device"):
        assert words in page


def test_statistics_are_those_of_the_network_that_was_tuned(options: dict[str, Any], tmp_path: Path) -> None:
    bundle = zoo.named("ensemble")
    options |= {**zoo.training_overrides(bundle), "max_epochs": 1, "finetune": ""}
    made = zoo.workflow(bundle, ["train.json", "finetune.json"], "train", **options)
    made.initialize()
    made.run()
    statistics, threshold = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("statistics", "threshold")
    )
    assert statistics["weights_sha256"] == threshold["weights_sha256"] == sha256(tmp_path / "model.pt")
    assert statistics["cases"] == threshold["cases"] == 2
    assert threshold["settings"]["statistics"] is True


def test_the_best_network_is_kept_and_training_ends_early(options: dict[str, Any], tmp_path: Path) -> None:
    made = training({**options, "max_steps": 40, "patience": 2}, scores=[3.0, 1.0, 2.0, 1.0, 0.5])
    seen: list[dict[str, torch.Tensor]] = []
    network = made.parser.get_parsed_content("ema").ema_model
    made.trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda: seen.append({name: value.half() for name, value in network.state_dict().items()}),
    )
    made.trainer.run()
    assert made.trainer.state.epoch == 4  # neither third nor fourth is below the second
    written = load(tmp_path / "model.pt")
    assert all(torch.equal(value, seen[1][name]) for name, value in written.items())
    assert any(not torch.equal(value, seen[3][name]) for name, value in written.items())
    page = (tmp_path / "training_report.html").read_text()
    assert "patience of 2 validations" in page
    assert "epoch 2, the best" in page


def test_patience_goes_on_after_a_cut(options: dict[str, Any], tmp_path: Path) -> None:
    options = {**options, "max_steps": 40, "patience": 2}
    whole = training({**options, "output_dir": str(tmp_path / "whole")}, scores=[1.0, 2.0, 0.5, 3.0, 3.0, 0.1])
    whole.trainer.run()
    assert whole.trainer.state.epoch == 5

    cut = training({**options, "output_dir": str(tmp_path / "cut")}, scores=[1.0, 2.0, 0.5, 3.0])
    cut.trainer.add_event_handler(Events.EPOCH_STARTED(once=5), lambda engine: engine.terminate(skip_completed=True))
    cut.trainer.run()
    checkpoint = str(tmp_path / "cut" / "checkpoints" / "checkpoint_4.pt")
    rest = training({**options, "output_dir": str(tmp_path / "rest"), "resume": checkpoint}, scores=[3.0, 0.1])
    rest.trainer.run()
    assert rest.trainer.state.epoch == 5
    one, other = (load(tmp_path / part / "model.pt") for part in ("whole", "rest"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    curves = [torch.load(tmp_path / part / "checkpoints" / "checkpoint_5.pt")["progress"] for part in ("whole", "rest")]
    assert curves[0]["training"] == curves[1]["training"]
    assert [row[1] for row in curves[1]["validation"]] == [1.0, 2.0, 0.5, 3.0, 3.0]
    assert all(math.isfinite(row[1]) for row in curves[1]["training"])
