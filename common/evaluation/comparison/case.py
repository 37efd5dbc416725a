"""One case as one bundle saw it: what is stored, so that every metric can be computed again without the network."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import InputError
from common.files import write_atomic

__all__ = ["CaseRecord", "Cost", "fingerprint"]


@dataclass(frozen=True)
class Cost:
    """What one case cost.

    Args:
        slices: that were not empty.
        evaluations: of the network, counted once a slice.
        seconds: in the inferer: without reading, preprocessing and post-processing.
        flop_per_evaluation: of one slice, multiply and add counted as two; counted on the first case of a process.
        peak_mib: highest memory until the end of the case: allocated on the GPU, or resident of the process.
        warm_up: the first case of a process, on which operations are counted: its time is not typical.
        device: the processor, and its precision.
    """

    slices: int
    evaluations: int
    seconds: float
    flop_per_evaluation: float
    peak_mib: float
    warm_up: bool
    device: str


@dataclass(frozen=True)
class CaseRecord:
    """Maps and truth on the grid of the network.

    Args:
        case: its name.
        subject: whose image it is; the case's name where the data set does not say.
        label: of the data list; -1 without one.
        key: of settings and weights (``BundleRun.key``).
        data: fingerprint of the input files.
        spacing: of the voxels (x, y, z) in mm.
        raw_maximum: of the inferer's map, before it was cleaned.
        anomaly_map: (x, y, z) float32, cleaned, zero outside the (eroded) brain.
        truth: (x, y, z) bool.
        region: (x, y, z) bool, where scores count.
        image: (C, x, y, z) float32 in [0, 1].
        pseudo_healthy: (C, x, y, z) in [0, 1], kept in half precision.
        cost: of the case.
    """

    case: str
    subject: str
    label: int
    key: str
    data: str
    spacing: tuple[float, float, float]
    raw_maximum: float
    anomaly_map: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    region: np.ndarray = field(repr=False)
    image: np.ndarray = field(repr=False)
    pseudo_healthy: np.ndarray = field(repr=False)
    cost: Cost

    def save(self, path: Path) -> None:
        """Write as compressed ``.npz``, whole or not at all."""
        arrays: dict[str, Any] = {"pseudo_healthy": self.pseudo_healthy.astype(np.float16)}
        arrays |= {name: getattr(self, name) for name in ("anomaly_map", "truth", "region", "image")}
        rest = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in arrays}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, meta=np.array(json.dumps({**rest, "cost": asdict(self.cost)})), **arrays)
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> CaseRecord:
        """Read what ``save`` wrote.

        Raises:
            InputError: the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            meta = json.loads(str(arrays.pop("meta")))
            cost, spacing = Cost(**meta.pop("cost")), tuple(meta.pop("spacing"))
            arrays["pseudo_healthy"] = arrays["pseudo_healthy"].astype(np.float32)
            return cls(**meta, **arrays, cost=cost, spacing=spacing)
        except Exception as error:  # zlib, zipfile, json and numpy each have their own
            raise InputError(path, f"cannot be read ({error})", "delete it, and compare again") from error

    @staticmethod
    def done(path: Path, key: str, data: str) -> bool:
        """Whether the file holds this case of these settings and weights, and can be read."""
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                return (meta["key"], meta["data"]) == (key, data) and file["anomaly_map"].ndim == 3
        except Exception:  # as in load
            return False


def fingerprint(case: Mapping[str, Any]) -> str:
    """Hash of the bytes of the files of a case, in the order of its columns; of a folder, all files in it."""
    digest = hashlib.sha256()
    for key in ("image", "mask", "brain_mask"):
        paths = case.get(key) or []
        for path in map(Path, [paths] if isinstance(paths, str) else paths):
            digest.update(f"{key}\0".encode())
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    with file.open("rb") as stream:
                        digest.update(hashlib.file_digest(stream, "sha256").digest())
    digest.update(str(case.get("label")).encode())
    return digest.hexdigest()[:16]
