"""What was measured on healthy scans holds for the settings and the weights that it was measured with."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from common.files import sha256

__all__ = ["changed_settings", "warn_of_changes"]

_LOG = logging.getLogger("common.anomaly")


class _Calibrated(Protocol):
    @property
    def settings(self) -> dict[str, Any]: ...
    @property
    def weights_sha256(self) -> str: ...


def changed_settings(
    then: Mapping[str, Any], now: Mapping[str, Any], apart_from: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Settings in force that differ from those of a file, and those that it does not know: (then, now) by name.

    Args:
        then: what the file was made with.
        now: in force.
        apart_from: names that do not matter.
    """
    pairs = {key: (then.get(key, "not known then"), value) for key, value in now.items() if key not in apart_from}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


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
    pairs = changed_settings(made.settings, settings or {}, apart_from)
    changed = [f"{key}: {then} → {now}" for key, (then, now) in pairs.items()]
    if changed:
        _LOG.warning("%s was calibrated under other settings (%s): calibrate anew", path, ", ".join(changed))
    if weights is not None and made.weights_sha256 and made.weights_sha256 != sha256(weights):
        _LOG.warning("%s was calibrated with other weights than %s: calibrate anew", path, weights)
