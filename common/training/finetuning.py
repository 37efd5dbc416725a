"""What fine-tuning on a hospital's own scans adds: parts that stay as they are, and a threshold of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from common.errors import InputError

__all__ = ["Calibration", "freeze"]

Network = TypeVar("Network", bound=nn.Module)


def freeze(network: Network, part: str = "") -> Network:
    """Leave a part of a network out of training (in place).

    Args:
        network: one that names its ``encoder_parts``, if ``part`` is ``encoder``.
        part: ``encoder``; names of modules (``down_blocks.0,conv_in``); or nothing.

    Raises:
        InputError: the network has no such part, or no other.
    """
    if not part:
        return network
    names = getattr(network, "encoder_parts", ()) if part == "encoder" else [name.strip() for name in part.split(",")]
    known = dict(network.named_modules())
    if not names or any(name not in known or not name for name in names):
        there = ", ".join(name for name, _ in network.named_children())
        remedy = f"use names of its modules, with commas between: {there}"
        raise InputError(f"freeze '{part}'", f"{type(network).__name__} has no such part", remedy)
    for name in names:
        known[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f"freeze '{part}'", "leaves nothing to train", "freeze less")
    return network


class Calibration:
    """Find the threshold of a network that was just trained, with its bundle's own inference on held-out scans.

    Where the map of the bundle stands in units of what healthy scans show (``configs/statistics.json``), these
    statistics are made first and written beside the threshold.

    Args:
        bundle_root: of the bundle, whose ``inference.json`` and ``calibrate.json`` are run.
        network: in memory.
        weights: the file that it was written to; its hash stands in the threshold.
        threshold_file: to write.
        dataset_dir: healthy scans; of a data set with labels, those with the label 0 are taken (``healthy_cases``).
        split: those that the training did not learn from.
        settings: entries of ``inference.json`` to set: the preprocessing of the training.
        rank: only the first process of a training calibrates.
    """

    def __init__(
        self,
        *,
        bundle_root: str | Path,
        network: nn.Module,
        weights: str | Path,
        threshold_file: str | Path,
        dataset_dir: str | Path,
        split: str = "validation",
        settings: Mapping[str, Any] | None = None,
        rank: int = 0,
    ) -> None:
        self.bundle_root, self.network, self.rank = Path(bundle_root), network, rank
        self.threshold_file = Path(threshold_file)
        self.overrides = {
            "weights": str(weights),
            "dataset_dir": str(dataset_dir),
            "split": split,
            **(settings or {}),
        }

    def run(self) -> None:
        """Calibrate, and say where the threshold lies."""
        if self.rank:
            return
        changes = {}
        if (self.bundle_root / "configs" / "statistics.json").is_file():
            changes["statistics"] = str(self.threshold_file.with_name("statistics.json"))
            self._infer("statistics.json", statistics_file=changes["statistics"])
        self._infer("calibrate.json", threshold_file=str(self.threshold_file), **changes)

    def _infer(self, config: str, **changes: str) -> None:
        from monai.bundle import ConfigWorkflow

        workflow = ConfigWorkflow(
            [str(self.bundle_root / "configs" / name) for name in ("inference.json", config)],
            workflow_type="infer",
            logging_file=False,
            bundle_root=str(self.bundle_root),
            network=self.network.eval(),
            **self.overrides,
            **changes,
        )
        workflow.initialize()
        workflow.run()
