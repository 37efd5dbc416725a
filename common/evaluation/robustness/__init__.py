"""What worse scans and small attacks do to a bundle."""

from __future__ import annotations

from common.evaluation.robustness.card import robustness
from common.evaluation.robustness.cards import robustness_of

__all__ = ["robustness", "robustness_of"]
