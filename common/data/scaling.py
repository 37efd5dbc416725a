"""How images are scaled in space and intensity: a part of the weights, which know nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import write_json

__all__ = ["SCALING_FILE", "Scaling"]

SCALING_FILE = "preprocessing.json"
"""Beside weights: how the images were scaled that they were trained on."""


@dataclass(frozen=True)
class Scaling:
    """What of a ``Preprocessing`` must be the same in training and inference.

    Args:
        pixdim: in-plane pixel size in mm; ``None`` keeps the image's own.
        percentiles: that become 0 and ``top``; ``None`` takes intensities as they are.
        top: intensity of the upper percentile.
    """

    pixdim: Sequence[float] | None
    percentiles: Sequence[float] | None
    top: float

    def save(self, folder: str | Path) -> None:
        """Write it beside weights."""
        write_json(Path(folder) / SCALING_FILE, asdict(self))

    def check(self, weights: str | Path) -> None:
        """Stop if the file beside ``weights`` says that they were trained with another one.

        Weights without such a file are not checked.

        Raises:
            InputError: they were, or the file cannot be read.
        """
        file = Path(weights).parent / SCALING_FILE
        if not file.is_file():
            return
        try:
            trained: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            differs = [key for key, value in asdict(self).items() if _plain(value) != _plain(trained[key])]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(file, f"cannot be read ({error})", "restore it from the bundle") from error
        if differs:
            told = ", ".join(f"{key} {_said(trained[key])} instead of {_said(getattr(self, key))}" for key in differs)
            remedy = "leave them as they were, or train weights for these images (docs/training.md)"
            raise InputError(weights, f"was trained with {told}", remedy)


def _plain(value: Any) -> Any:
    return [float(each) for each in value] if isinstance(value, list | tuple) else value


def _said(value: Any) -> str:
    return "none" if value is None else str(_plain(value))
