"""Metrics over a test set, and the report of a run."""

from __future__ import annotations

from common.evaluation.histogram import ScoreHistogram

__all__ = ["ScoreHistogram"]
