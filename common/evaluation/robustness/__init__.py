"""What worse scans and small attacks do to a bundle."""

from __future__ import annotations

from common.evaluation.robustness.card import robustness

__all__ = ["robustness"]
