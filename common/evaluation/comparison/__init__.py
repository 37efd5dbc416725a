"""Bundles beside each other: the same cases, one protocol, every number with its interval."""

from __future__ import annotations

from common.evaluation.comparison.case import CaseRecord
from common.evaluation.comparison.compare import compare, summary_of

__all__ = ["CaseRecord", "compare", "summary_of"]
