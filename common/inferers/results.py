"""Writing what an evaluator has found, case by case."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.transforms import Compose, FlattenSubKeysd, Invertd, InvertibleTransform, Transform

from common.files import write_json
from common.inferers.base import AnomalyInferer

__all__ = ["ResultWriter", "postprocessing", "write_nifti"]


def write_nifti(path: str | Path, volume: MetaTensor) -> None:
    """Write (C, x, y, z) as NIfTI with its affine; one channel becomes (x, y, z). Appears whole or not at all."""
    path = Path(path)
    values = np.asarray(volume.as_tensor().cpu())
    values = values[0] if values.shape[0] == 1 else np.moveaxis(values, 0, -1)
    image = nib.Nifti1Image(values, np.asarray(volume.affine, dtype=np.float64))
    code = int(volume.meta.get("sform_code") or volume.meta.get("qform_code") or 2)  # 2: aligned to another image
    image.set_sform(image.affine, code)
    image.set_qform(image.affine, code)
    image.header.set_xyzt_units("mm")
    partial = path.with_name(f".partial-{path.name}")
    nib.save(image, partial)
    os.replace(partial, path)


def postprocessing(clean: Transform, invert: InvertibleTransform | None = None) -> Compose:
    """From what an inferer returns to what is written or scored.

    Args:
        clean: cleans the map and makes the mask.
        invert: preprocessing to undo, so that results lie where the input lies; ``None`` keeps the network's grid.
    """
    keys = ["anomaly_map", "pseudo_healthy", "anomaly_mask", "uncertainty"]
    steps: list[Any] = [FlattenSubKeysd("pred", delete_keys=True), clean]
    if invert is not None:
        nearest = [key == "anomaly_mask" for key in keys]
        steps.append(Invertd(keys, invert, orig_keys="image", nearest_interp=nearest, allow_missing_keys=True))
    return Compose(steps)


class ResultWriter:
    """Ignite handler: ``<case>_<key>.nii.gz`` for every case, and ``run.json`` at the end.

    Masks are written as 8-bit integers, everything else as 32-bit floats.

    Args:
        output_dir: made if missing.
        inferer: asked for the network evaluations.
        keys: of the post-processed output to write.
    """

    def __init__(
        self,
        output_dir: str | Path,
        inferer: AnomalyInferer,
        keys: Sequence[str] = ("anomaly_map", "anomaly_mask", "pseudo_healthy"),
    ) -> None:
        self.output_dir, self.inferer, self.keys = Path(output_dir), inferer, tuple(keys)
        self.cases: list[str] = []
        self.start = 0.0

    def attach(self, engine: Engine) -> None:
        """Write after each iteration, and the summary when all is done."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _begin(self) -> None:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.cases, self.start = [], time.perf_counter()

    def _write(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for case, results in zip(batch, output, strict=True):
            name = str(case["case"])
            for key in self.keys:
                dtype = np.uint8 if key.endswith("mask") else np.float32
                volume = results[key]
                volume = MetaTensor(volume.as_tensor().cpu().numpy().astype(dtype), meta=volume.meta)
                write_nifti(self.output_dir / f"{name}_{key}.nii.gz", volume)
            self.cases.append(name)

    def _finish(self) -> None:
        slices = self.inferer.slices
        summary = {
            "cases": self.cases,
            "slices": slices,
            "seconds": round(time.perf_counter() - self.start, 3),
            "network_evaluations": self.inferer.evaluations,
            "network_evaluations_per_slice": self.inferer.evaluations // slices if slices else 0,
        }
        write_json(self.output_dir / "run.json", summary)
