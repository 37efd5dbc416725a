"""What was measured on healthy scans holds for the settings and the weights that it was measured with."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from common.files import sha256

__all__ = ["warn_of_changes"]

_LOG = logging.getLogger("common.anomaly")


class _Calibrated(Protocol):
    @property
    def settings(self) -> dict[str, Any]: ...
    @property
    def weights_sha256(self) -> str: ...


def warn_of_changes(
    made: _Calibrated,
    path: str | Path,
    settings: Mapping[str, Any] | None,
    weights: str | Path | None,
    *,
    apart_from: Collection[str] = (),
) -> None:
    """Log a warning where a file is used with other settings or weights than it was made with.

    Args:
        made: what the file holds.
        path: of the file.
        settings: now in force; ``None`` is not compared.
        weights: file of the network's weights; ``None`` is not compared, nor what was made without a hash.
        apart_from: settings that do not matter.
    """
    now = {} if settings is None else {key: value for key, value in settings.items() if key not in apart_from}
    then = {key: made.settings.get(key, "not known then") for key in now}
    changed = [f"{key}: {then[key]} → {value}" for key, value in now.items() if then[key] != value]
    if changed:
        _LOG.warning("%s was calibrated under other settings (%s): calibrate anew", path, ", ".join(changed))
    if weights is not None and made.weights_sha256 and made.weights_sha256 != sha256(weights):
        _LOG.warning("%s was calibrated with other weights than %s: calibrate anew", path, weights)
