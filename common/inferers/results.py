"""Writing what an evaluator has found, case by case."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.transforms import Compose, CopyItemsd, FlattenSubKeysd, Invertd, InvertibleTransform, Transform

from common.data import failure_reason, write_parametric_map, write_segmentation
from common.inferers.base import AnomalyInferer
from common.inferers.evaluator import concerns_all
from common.inferers.journal import Journal

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
    try:
        nib.save(image, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
        steps.append(CopyItemsd("anomaly_mask", names="pred"))  # the label that MONAI Label shows
    return Compose(steps)


class ResultWriter:
    """Ignite handler: writes what was found in every case, and an entry in the journal.

    ``<case>_anomaly_map.nii.gz``, ``<case>_anomaly_mask.nii.gz`` and ``<case>_pseudo_healthy.nii.gz``: masks as 8-bit
    integers, everything else as 32-bit floats. As DICOM: ``<case>_anomaly_mask.dcm`` (Segmentation) and
    ``<case>_anomaly_map.dcm`` (Parametric Map); the pseudo-healthy image shows nobody, so there is no DICOM of it that
    would carry a patient's name.

    Args:
        output_dir: made if missing.
        inferer: asked for the network evaluations.
        journal: told of each case, and writes the summary at the end; without one there is no going on.
        output_format: ``nifti``, ``dicom`` or ``both``; ``inference_cases`` has made sure that it can be written.
        keys: of the post-processed output to write as NIfTI.
    """

    def __init__(
        self,
        output_dir: str | Path,
        inferer: AnomalyInferer,
        journal: Journal | None = None,
        output_format: Literal["nifti", "dicom", "both"] = "nifti",
        keys: Sequence[str] = ("anomaly_map", "anomaly_mask", "pseudo_healthy"),
    ) -> None:
        self.output_dir, self.inferer = Path(output_dir), inferer
        self.journal = Journal(output_dir, {}, ()) if journal is None else journal
        self.output_format, self.keys = output_format, tuple(keys)
        self.counted = (0, 0)

    def attach(self, engine: Engine) -> None:
        """Write after each iteration, and the summary when all is done."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self.journal.write_summary)

    def _begin(self) -> None:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.counted = self.inferer.slices, self.inferer.evaluations

    def _write(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for case, results in zip(batch, output, strict=True):
            name = str(case["case"])
            try:
                files = self._write_case(name, results)
            except Exception as error:
                if not self.journal.keep_going or concerns_all(error):
                    raise
                self.journal.failed(name, failure_reason(error, case))
                continue
            counted, self.counted = self.counted, (self.inferer.slices, self.inferer.evaluations)
            self.journal.done(name, files, self.counted[0] - counted[0], self.counted[1] - counted[1])

    def _write_case(self, name: str, results: Mapping[str, MetaTensor]) -> list[str]:
        files = []
        if self.output_format != "dicom":
            for key in self.keys:
                volume = results[key]
                dtype = np.uint8 if key.endswith("mask") else np.float32
                volume = MetaTensor(volume.as_tensor().cpu().numpy().astype(dtype), meta=volume.meta)
                files.append(f"{name}_{key}.nii.gz")
                write_nifti(self.output_dir / files[-1], volume)
        if self.output_format != "nifti":
            algorithm = type(self.inferer).__name__.removesuffix("Inferer")
            for key, write in (("anomaly_mask", write_segmentation), ("anomaly_map", write_parametric_map)):
                volume = results[key]
                source = str(volume.meta["filename_or_obj"])
                files.append(f"{name}_{key}.dcm")
                write(
                    self.output_dir / files[-1], volume.as_tensor().cpu().numpy()[0], volume.affine, source, algorithm
                )
        return files
