"""Metrics over a test set, and the report of a run."""

from __future__ import annotations

from common.evaluation.calibration import ThresholdCalibration
from common.evaluation.histogram import ScoreHistogram
from common.evaluation.metrics import AnomalyMetrics
from common.evaluation.origin import threshold_origin, training_set
from common.evaluation.pool import PooledScores, evaluate_map
from common.evaluation.report import case_figure, write_report
from common.evaluation.statistics import HealthyStatisticsWriter
from common.evaluation.table import bundle_table, results_table, update_tables

__all__ = [
    "AnomalyMetrics",
    "HealthyStatisticsWriter",
    "PooledScores",
    "ScoreHistogram",
    "ThresholdCalibration",
    "bundle_table",
    "case_figure",
    "evaluate_map",
    "results_table",
    "threshold_origin",
    "training_set",
    "update_tables",
    "write_report",
]
