"""Metrics of anomaly maps over a test set, as an Ignite handler."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.data import decollate_batch

from common.errors import InputError
from common.evaluation.pool import PooledScores, evaluate_map
from common.files import check_writable, write_atomic, write_json

__all__ = ["AnomalyMetrics", "evaluate_map", "format_summary"]


class AnomalyMetrics:
    """Ignite handler that scores the anomaly maps of an evaluator.

    A case is one item of ``engine.state.output`` (a list of dictionaries, as MONAI's evaluators leave it); what the
    output lacks is taken from ``engine.state.batch``. All pixels inside the region of all cases are pooled. At the
    end the numbers are in ``engine.state.metrics``, in ``metrics.json`` and ``cases.csv``, and printed as a table
    with the intensity baseline below the method. Several processes are pooled.

    Args:
        output_dir: folder of the files; made if missing. None: no files.
        threshold: calibrated threshold in units of the map. None: only numbers that need none.
        protocol: what a reader needs to compare the numbers (data, resolution, where the threshold came from …);
            copied into ``metrics.json``.
        map_key: key of the anomaly map, (1, …), ≥ 0.
        truth_key: key of the lesion mask, (1, …); a healthy case has an empty one.
        image_key: key of the image, (C, …) in [0, 1], for the baseline. None: no baseline.
        region_key: key of the brain or body mask, (1, …). None: the whole image counts.
        case_key: key of the case's name. None: cases are numbered.
        name: name of the method's row in the printed table.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(
        self,
        output_dir: str | Path | None = None,
        *,
        threshold: float | None = None,
        protocol: Mapping[str, Any] | None = None,
        map_key: str = "anomaly_map",
        truth_key: str = "mask",
        image_key: str | None = "image",
        region_key: str | None = "brain_mask",
        case_key: str | None = "case",
        name: str = "anomaly map",
    ) -> None:
        self.output_dir = None if output_dir is None else Path(output_dir)
        if self.output_dir is not None:
            check_writable(self.output_dir)
        self.protocol = dict(protocol or {})
        self.map_key, self.truth_key, self.image_key = map_key, truth_key, image_key
        self.region_key, self.case_key, self.name = region_key, case_key, name
        self.pool = PooledScores(threshold)

    def attach(self, engine: Engine) -> None:
        """Collect over a run of ``engine`` and finish when it is complete."""
        engine.add_event_handler(Events.STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def reset(self) -> None:
        """Forget all cases."""
        self.pool = PooledScores(self.pool.threshold)

    def update(self, engine: Engine) -> None:
        """Add the cases of the current iteration.

        Raises:
            InputError: a key is missing, a case comes twice, or its arrays do not fit.
        """
        for item in _items(engine):
            case = f"{idist.get_rank()}-{len(self.pool.rows):05d}"
            if self.case_key is not None:
                case = str(self._get(item, "case_key", case))
            keys = ("map_key", "truth_key", "region_key", "image_key")
            self.pool.add(case, *(self._get(item, key, case) for key in keys))

    def finish(self, engine: Engine) -> None:
        """Pool the processes, put the numbers into ``engine.state.metrics``, write and print them."""
        self.pool.gather()
        summary = self.pool.summary()
        engine.state.metrics.update(summary)
        if idist.get_rank() == 0:
            if self.output_dir is not None:
                write_json(self.output_dir / "metrics.json", {"metrics": summary, "protocol": self.protocol})
                write_atomic(self.output_dir / "cases.csv", _csv(list(self.pool.rows.values())).encode())
            print(format_summary(summary, self.name), flush=True)

    def _get(self, item: Mapping[str, Any], argument: str, case: str) -> Any:
        """Value of one key of a case, None when the key is None."""
        key = getattr(self, argument)
        if key is None:
            return None
        if item.get(key) is None:
            optional = "" if argument in ("map_key", "truth_key") else f", or set {argument} to null"
            what = {
                "map_key": "let the inferer or a post-processing transform write it",
                "truth_key": f"give every entry of the data list a {key!r} (all zero for a healthy case) and load it",
            }.get(argument, f"give every entry of the data list a {key!r} and load it")
            raise InputError(
                f"case {case}", f"key {key!r} is missing; there are {sorted(map(str, item))}", what + optional
            )
        return item[key]


def format_summary(summary: Mapping[str, float], name: str = "anomaly map") -> str:
    """Table of the main numbers, the method above the intensity baseline, as aligned text."""
    columns = {
        "pixel AP": ("pixel_ap", "intensity_ap"),
        "case AP": ("case_ap_mean", ""),
        "oracle Dice": ("oracle_dice", "intensity_oracle_dice"),
        "Dice at threshold": ("dice", ""),
        "healthy FPR": ("healthy_fpr", ""),
        "AUROC top 1 %": ("image_auroc_top1", ""),
        "AUROC mean": ("image_auroc_mean", ""),
    }
    threshold = summary["threshold"]
    width = max(len(name), len("intensity"), len("score"))
    lines = [
        f"{summary['cases']:.0f} cases, {summary['lesion_cases']:.0f} with lesion, prevalence "
        f"{summary['prevalence']:.4f} (the AP of a random score), "
        + ("no threshold" if math.isnan(threshold) else f"threshold {threshold:.4g}"),
        "  ".join(["score".ljust(width), *columns]),
    ]
    for label, row in ((name, 0), ("intensity", 1)):
        values = ((title, summary.get(keys[row], math.nan)) for title, keys in columns.items())
        cells = (("–" if math.isnan(value) else f"{value:.4f}").rjust(len(title)) for title, value in values)
        lines.append("  ".join([label.ljust(width), *cells]))
    return "\n".join(lines)


def _items(engine: Engine) -> list[dict[str, Any]]:
    """One dictionary a case: the output, over what the batch has besides."""
    output: Any = engine.state.output
    batch: Any = engine.state.batch
    output, batch = (decollate_batch(item) if isinstance(item, Mapping) else item for item in (output, batch))
    if not isinstance(batch, list) or len(batch) != len(output) or not all(isinstance(b, Mapping) for b in batch):
        batch = [{}] * len(output)
    return [{**entry, **result} for entry, result in zip(batch, output, strict=True)]


def _csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text; an undefined number is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(rows[0] if rows else ["case"])
    writer.writerows(["" if value != value else value for value in row.values()] for row in rows)
    return buffer.getvalue()
