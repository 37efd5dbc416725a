"""Inference of every bundle: slices a second, and a whole volume from file to file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn

from benchmarks.measure import Row, Setup, Watch, peak_memory, precisions, reset_peak_memory
from benchmarks.synthetic import brain, write_volume

__all__ = ["BUNDLES", "slices", "volumes"]

BUNDLES = sorted(
    path.parents[1] for path in Path(__file__).resolve().parents[1].glob("bundles/*/configs/inference.json")
)
_VOLUME_BUNDLES = ("cddpm", "dae")


def slices(setup: Setup) -> list[Row]:
    """Every bundle, with its weights and its own settings, on one batch of synthetic slices."""
    rows: list[Row] = []
    for bundle in [_named("dae")] if setup.quick else [each for each in BUNDLES if setup.wants(each.name)]:
        for amp in precisions(setup):
            inferer, network = _load(bundle, setup.device, amp)
            count = 2 if setup.quick else inferer.batch_size
            image = torch.from_numpy(brain((80, 96, count))).permute(2, 0, 1)[:, None].to(setup.device)
            watch = Watch(network, setup)
            reset_peak_memory(setup)
            before = inferer.evaluations
            seconds, inside = _time(partial(inferer, image, network), watch, setup)
            watch.remove()
            runs = 2 if setup.quick else 3
            remark = (
                f"{(inferer.evaluations - before) / count / runs:.0f} evaluations a slice, "
                f"{1 - inside:.0%} outside the network, peak {peak_memory(setup):.0f} MiB"
            )
            case = f"{count} slices, 80 × 96, {'bf16' if amp else 'fp32'}"
            rows.append(Row("inference", case, bundle.name, count / seconds, "slices/s", remark=remark))
    return rows


def _time(run: Callable[[], Any], watch: Watch, setup: Setup) -> tuple[float, float]:
    """Median seconds of two runs after a first one that does not count, and the share inside the network."""
    seconds, shares = [], []
    run()
    for _ in range(1 if setup.quick else 2):
        watch.seconds, start = 0.0, setup.now()
        run()
        seconds.append(setup.now() - start)
        shares.append(watch.seconds / seconds[-1])
    return median(seconds), median(shares)


def _load(bundle: Path, device: torch.device, amp: bool) -> tuple[Any, nn.Module]:
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser.update({"bundle_root": str(bundle), "device": str(device), "amp": amp, "progress": False})
    return parser.get_parsed_content("inferer"), parser.get_parsed_content("network")


def volumes(setup: Setup) -> list[Row]:
    """A volume of 155 slices at 96 pixels, from its file to the files of results, as ``monai.bundle run`` does it."""
    rows = []
    shape = (24, 24, 3) if setup.quick else (96, 96, 155)
    with tempfile.TemporaryDirectory() as folder:
        scan = write_volume(Path(folder) / "scan.nii.gz", shape)
        for name in _VOLUME_BUNDLES[1:] if setup.quick else filter(setup.wants, _VOLUME_BUNDLES):
            bundle = _named(name)
            for amp in (True,) if setup.quick else precisions(setup):
                reset_peak_memory(setup)
                start = setup.now()
                workflow = _workflow(bundle, scan, Path(folder) / f"{name}-{amp}", setup, amp, shape)
                workflow.run()
                seconds = setup.now() - start
                inferer = workflow.parser.get_parsed_content("inferer")
                remark = f"{inferer.slices} slices not empty, peak {peak_memory(setup):.0f} MiB"
                case = f"volume {'×'.join(map(str, shape))}, {'bf16' if amp else 'fp32'}"
                rows.append(Row("inference", case, name, seconds, "s", remark=remark))
    return rows


def _named(name: str) -> Path:
    return next(bundle for bundle in BUNDLES if bundle.name == name)


def _workflow(
    bundle: Path, scan: Path, output: Path, setup: Setup, amp: bool, shape: tuple[int, ...]
) -> ConfigWorkflow:
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(scan),
        output_dir=str(output),
        device=str(setup.device),
        amp=amp,
        progress=False,
        brain_mask="none",
        slice_range_mm="none",
        spatial_size=list(shape[:2]),
    )
    workflow.initialize()
    return workflow
