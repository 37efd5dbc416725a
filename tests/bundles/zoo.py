"""What the matrix knows of a bundle: its files, and how to make it small and quick without knowing its method.

A bundle that is on disk is in the matrix. Conventions that let it be made small: networks are top-level entries called
``<name>_def``, the weights of ``network_def`` are ``weights``, those of another ``<name>_def`` are ``<name>_weights``,
and whatever counts steps ends in ``_steps``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from common import InputError
from common.networks import save_weights

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(file.parents[1] for file in ROOT.glob("bundles/*/configs/metadata.json"))
SCHEMA = Path(__file__).with_name("metadata_schema.json")
WIDTH = 32  # of every level of a tiny network; normalisation in groups wants a multiple of 32


def named(name: str) -> Path:
    """The bundle of that name."""
    return ROOT / "bundles" / name


def by_name(bundle: Path) -> str:
    """What a bundle is called in the list of tests."""
    return bundle.name


def distinct(*configs: str) -> list[Path]:
    """One bundle for each different content of the configs: what reads nothing else need not run twice."""
    found: dict[str, Path] = {}
    for bundle in BUNDLES:
        found.setdefault(json.dumps([read(bundle, name) for name in configs], sort_keys=True), bundle)
    return list(found.values())


def read(bundle: Path, config: str) -> dict[str, Any]:
    """A config file of a bundle."""
    return json.loads((bundle / "configs" / config).read_text())


def learns_from_healthy(bundle: Path) -> bool:
    """Whether a bundle is trained on healthy scans alone."""
    return "truth='healthy'" in read(bundle, "train.json")["train"]["dataset"]["data"]


def networks(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and definition of every network of a config."""
    for key, value in config.items():
        if key.endswith("_def") and isinstance(value, dict):
            yield key, value


def tiny_networks(config: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that make the networks of a config as narrow as can be, with as many levels as before."""
    overrides: dict[str, Any] = {}
    for name, definition in networks(config):
        levels = len(definition.get("channels", ()))
        small = {"channels": [WIDTH] * levels, "attention_levels": [False] * levels, "num_head_channels": WIDTH}
        overrides |= {f"{name}#{key}": value for key, value in small.items() if levels and key in definition}
    return overrides


def few_steps(config: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that make every loop of a method short, where it is not."""
    loops = [key for key in config if key.endswith("_steps") and key != "warmup_steps"]
    return {**dict.fromkeys(loops, 3), **({"num_restorations": 2} if config.get("num_restorations", 1) > 2 else {})}


def inference_overrides(bundle: Path, folder: Path) -> dict[str, Any]:
    """Tiny networks with random weights (written to ``folder``), few steps, a number as threshold."""
    config = read(bundle, "inference.json")
    overrides = {**tiny_networks(config), **few_steps(config), "threshold": 0.05}
    return {**overrides, **_random_weights(config, overrides, folder), **_on_cpu(config)}


def training_overrides(bundle: Path, config: str = "train.json") -> dict[str, Any]:
    """Tiny networks, three epochs of two steps, a checkpoint and a validation after each."""
    wanted = {
        "max_epochs": 3,
        "batch_size": 4,
        "num_workers": 0,
        "warmup_steps": 2,
        "val_interval": 1,
        "save_interval": 1,
    }
    content = read(bundle, config)
    given = {key: value for key, value in wanted.items() if key in content}
    return {**tiny_networks(content), **given, **_on_cpu(content)}


def workflow(bundle: Path, configs: list[str], kind: str, **overrides: Any) -> ConfigWorkflow:
    """The workflow of a bundle's configs, as ``python -m monai.bundle run`` makes it, without its logging."""
    files = [str(bundle / "configs" / name) for name in configs]
    return ConfigWorkflow(files, workflow_type=kind, logging_file=False, bundle_root=str(bundle), **overrides)


def run(bundle: Path, *configs: str, **overrides: Any) -> ConfigWorkflow:
    """Run configs in this process from beginning to end."""
    kind = "train" if configs[0].startswith("train") else "infer"
    made = workflow(bundle, list(configs), kind, **overrides)
    made.initialize()
    made.run()
    made.finalize()
    return made


def infer(bundle: Path, data: Path, output: Path, *overlays: str, **overrides: Any) -> ConfigWorkflow:
    """Run inference, with overlays on it, on a data set."""
    return run(bundle, "inference.json", *overlays, dataset_dir=str(data), output_dir=str(output), **overrides)


def command(
    config: Path | str | list[str], overrides: Mapping[str, Any], *, cwd: Path, path: Path | None = None, nproc: int = 0
) -> subprocess.CompletedProcess[str]:
    """``python -m monai.bundle run`` as a process of its own, under torchrun if ``nproc``.

    Args:
        config: one file or several.
        overrides: given as ``--key value``.
        cwd: where it runs.
        path: the one entry of PYTHONPATH; none by default.
        nproc: processes.
    """
    # Lists and booleans in Python's spelling: `false` in a list would arrive as a word.
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}"] if nproc else []
    words = [f"--{key}={value}" for key, value in overrides.items()]
    files = f"--config_file={config}"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    line = [sys.executable, *launcher, "-m", "monai.bundle", "run", files, *words]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)


def input_error(error: BaseException | None) -> InputError:
    """The error in a chain that speaks to the user; MONAI wraps what goes wrong inside a config."""
    first = error
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    assert error is not None, f"no InputError behind {first!r}"
    return error


def _random_weights(config: Mapping[str, Any], overrides: Mapping[str, Any], folder: Path) -> dict[str, str]:
    parser = ConfigParser(dict(config))
    parser.update({key: value for key, value in overrides.items() if "_def#" in key})
    paths = {}
    for name, _ in networks(config):
        key = "weights" if name == "network_def" else name.removesuffix("def") + "weights"
        if key not in config:
            continue
        path = folder / name / "model.pt"
        if not path.is_file():
            torch.manual_seed(0)
            network = parser.get_parsed_content(name)
            with torch.no_grad():  # layers that begin at zero would make every network the same
                for parameter in network.parameters():
                    if not parameter.any():
                        parameter.normal_(std=0.05)
            save_weights(network, path)
        paths[key] = str(path)
    return paths


def _on_cpu(config: Mapping[str, Any]) -> dict[str, Any]:
    quiet = {"progress": False} if "progress" in config else {}
    return {"device": "cpu", **quiet}
