"""Training reads no other config than ``train.json``, so each different one is run once."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from common.data import SCALING_FILE, Preprocessing
from common.networks import check_weights
from tests.bundles import zoo

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")


class PowerCut(Exception):
    """Ends a run where it stands."""


def cut(engine: Engine) -> None:
    raise PowerCut


def differing(one: Any, other: Any, name: str = "") -> list[str]:
    """Names of the entries in which two nested states differ by a single bit."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in differing(one[key], other[key], f"{name}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            found for i, pair in enumerate(zip(one, other, strict=True)) for found in differing(*pair, f"{name}/{i}")
        ]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [name]


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


DIFFERENT = zoo.distinct("train.json")
# Processes, of the loader or of the training, do not see the method: one bundle for each way to read the data.
BY_DATA = list({zoo.read(bundle, "train.json")["train"]["dataset"]["data"]: bundle for bundle in DIFFERENT}.values())


def by_name(value: Any) -> str | None:
    return zoo.by_name(value) if isinstance(value, Path) else None


@pytest.mark.parametrize(
    ("bundle", "workers"), [*((each, 0) for each in DIFFERENT), *((each, 1) for each in BY_DATA)], ids=by_name
)
def test_training_that_is_cut_and_resumed_equals_an_unbroken_one(
    bundle: Path, workers: int, lessons: Callable[[Path], Path], tmp_path: Path
) -> None:
    options = {**zoo.training_overrides(bundle), "num_workers": workers, "dataset_dir": str(lessons(bundle))}
    losses: list[float] = []

    made = zoo.workflow(bundle, ["train.json"], "train", **options, output_dir=str(tmp_path / "whole"))
    made.initialize()
    made.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.extend(float(each["loss"]) for each in engine.state.output)
    )
    made.run()
    length = made.trainer.state.epoch_length
    assert length >= 2
    assert len(losses) >= 3 * length
    assert all(math.isfinite(loss) for loss in losses)
    _check_files(tmp_path / "whole")

    made = zoo.workflow(bundle, ["train.json"], "train", **options, output_dir=str(tmp_path / "cut"))
    made.initialize()
    made.trainer.add_event_handler(Events.ITERATION_STARTED(once=length + 2), cut)  # in the second epoch
    with pytest.raises(RuntimeError) as caught:
        made.run()
    assert isinstance(caught.value.__cause__, PowerCut)
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["checkpoint_1.pt"]
    assert not (tmp_path / "cut" / "model.pt").exists()

    checkpoint = tmp_path / "cut" / "checkpoints" / "checkpoint_1.pt"
    zoo.run(bundle, "train.json", **options, output_dir=str(tmp_path / "rest"), resume=str(checkpoint))
    for name in ("model.pt", "checkpoints/checkpoint_3.pt"):
        assert differing(load(tmp_path / "whole" / name), load(tmp_path / "rest" / name)) == []
    first, last = load(checkpoint)["network"], load(tmp_path / "whole" / "checkpoints" / "checkpoint_3.pt")["network"]
    assert differing(first, last) != []


@pytest.mark.parametrize("bundle", DIFFERENT, ids=zoo.by_name)
def test_fine_tuning_begins_with_the_weights_given(
    bundle: Path, overrides: Any, lessons: Callable[[Path], Path], tmp_path: Path
) -> None:
    weights = overrides(bundle)["weights"]
    options = {**zoo.training_overrides(bundle), "dataset_dir": str(lessons(bundle)), "output_dir": str(tmp_path)}
    made = zoo.workflow(bundle, ["train.json"], "train", **options, finetune=weights)
    made.initialize()
    given = load(Path(weights))
    for name, value in made.parser.get_parsed_content("network").state_dict().items():
        assert torch.equal(value.to(given[name].dtype), given[name])


def test_all_bundles_share_work_among_processes_alike() -> None:
    assert len(zoo.distinct("multi_gpu_train.json")) == 1


@pytest.mark.parametrize("bundle", BY_DATA, ids=zoo.by_name)
def test_training_on_two_processes(bundle: Path, lessons: Callable[[Path], Path], tmp_path: Path) -> None:
    options = {**zoo.training_overrides(bundle), "max_epochs": 1, "dataset_dir": str(lessons(bundle))}
    del options["device"]  # the overlay's: one for each process
    configs = [str(bundle / "configs" / name) for name in ("train.json", "multi_gpu_train.json")]
    options |= {"bundle_root": str(bundle), "output_dir": str(tmp_path)}
    done = zoo.command(configs, options, cwd=zoo.ROOT, nproc=2)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    _check_files(tmp_path, last=1)


def _check_files(output: Path, last: int = 3) -> None:
    check_weights(output / "model.pt")
    assert (output / "SHA256SUMS").is_file()
    Preprocessing().scaling.check(output / "model.pt")
    assert (output / SCALING_FILE).is_file()
    assert all(torch.isfinite(value).all() for value in load(output / "model.pt").values())
    kept = {path.name for path in (output / "checkpoints").iterdir()}
    assert kept == {f"checkpoint_{epoch}.pt" for epoch in (last - 1, last) if epoch}
    assert not list(output.rglob("*.partial*"))
    scalars: dict[str, list[float]] = {}
    images: set[str] = set()
    for events in output.glob("events.out.tfevents.*"):
        board = EventAccumulator(str(events)).Reload()
        for tag in board.Tags()["scalars"]:
            scalars.setdefault(tag, []).extend(event.value for event in board.Scalars(tag))
        images |= set(board.Tags()["images"])
    assert any("loss" in tag for tag in scalars)
    assert all(math.isfinite(value) for values in scalars.values() for value in values)
    assert images
