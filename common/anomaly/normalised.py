"""Residuals in units of what is to be expected: the spread of several estimates, and what healthy images show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from common.anomaly.calibrated import warn_of_changes
from common.anomaly.filters import tv_denoise
from common.anomaly.maps import Polarity, magnitude
from common.errors import InputError
from common.files import write_json

__all__ = ["HealthyStatistics", "StatisticsBuilder", "normalised_residual", "resolve_statistics"]

BINS = 16  # of the expected brightness, in [0, 1]
_FEWEST = 200  # pixels of a bin that has figures of its own


@dataclass(frozen=True)
class HealthyStatistics:
    """Mean and standard deviation of the residual of healthy images, by the brightness that was expected.

    Args:
        bias: mean of image minus estimate in each of ``BINS`` equal bins of the estimate in [0, 1].
        spread: standard deviation there.
        calibrated_on: the healthy data, in words.
        cases: number of them.
        settings: of the inferer, for which alone they hold.
        weights_sha256: of the network's weights.
    """

    bias: list[float]
    spread: list[float]
    calibrated_on: str
    cases: int
    settings: dict[str, Any]
    weights_sha256: str

    def save(self, path: str | Path) -> None:
        """Write as JSON; the file appears whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that ``save`` wrote.

        Raises:
            InputError: no such file, or not one of statistics.
        """
        remedy = "make it on healthy scans (configs/statistics.json), or give --statistics none"
        if not Path(path).is_file():
            raise InputError(path, "no such file of statistics", remedy)
        try:
            made = cls(**json.loads(Path(path).read_text()))
            if not len(made.bias) == len(made.spread) == BINS:
                raise ValueError(f"{len(made.bias)} and {len(made.spread)} bins instead of {BINS}")
        except (ValueError, TypeError) as error:
            raise InputError(path, f"is no file of statistics ({error})", remedy) from error
        return made

    def at(self, expected: Tensor) -> tuple[Tensor, Tensor]:
        """Bias and spread where that brightness was expected, linear between the centres of bins."""
        centres = (np.arange(BINS) + 0.5) / BINS
        values = expected.detach().cpu().double().numpy()
        tables = (np.interp(values, centres, table) for table in (self.bias, self.spread))
        bias, spread = (torch.from_numpy(np.asarray(table)).to(expected) for table in tables)
        return bias, spread


_OF_THE_MAP = ("normalise", "offset", "polarity", "tv_weight", "anomaly_map", "median", "erosion", "statistics")


def resolve_statistics(
    statistics: HealthyStatistics | str | Path | None,
    settings: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
) -> HealthyStatistics | None:
    """Statistics given as such, as the path of a file, or as "none".

    Args:
        statistics: any of these.
        settings: of the inferer, now in force; a warning names those that the file was not made with. What shapes the
            map and not the estimates does not matter.
        weights: file of weights in use; a warning tells if the file was made with others.

    Raises:
        InputError: as ``HealthyStatistics.load``.
    """
    if statistics is None or statistics == "none" or isinstance(statistics, HealthyStatistics):
        return None if isinstance(statistics, str) else statistics
    made = HealthyStatistics.load(statistics)
    warn_of_changes(made, statistics, settings, weights, apart_from=_OF_THE_MAP)
    return made


class StatisticsBuilder:
    """Sums of healthy residuals by expected brightness; any number of images, one after the other."""

    def __init__(self) -> None:
        self.count, self.sum, self.square = (np.zeros(BINS) for _ in range(3))

    def update(self, image: Tensor, expected: Tensor, region: Tensor) -> None:
        """Add an image (C, …), its estimate (C, …) and where to look (1, …)."""
        inside = (region > 0).expand_as(image)
        residual = (image - expected)[inside].double().cpu().numpy()
        bins = np.clip((expected[inside].double().cpu().numpy() * BINS).astype(int), 0, BINS - 1)
        for total, weights in ((self.count, None), (self.sum, residual), (self.square, residual**2)):
            total += np.bincount(bins, weights, minlength=BINS)

    def figures(self) -> tuple[list[float], list[float]]:
        """Bias and spread of each bin; a bin with few pixels has those of the nearest that has enough.

        Raises:
            InputError: no bin has enough.
        """
        enough = np.flatnonzero(self.count >= _FEWEST)
        if not enough.size:
            raise InputError(
                "healthy scans", f"hold fewer than {_FEWEST} pixels of one brightness", "give more of them"
            )
        nearest = enough[np.abs(np.arange(BINS)[:, None] - enough).argmin(axis=1)]
        bias = self.sum[nearest] / self.count[nearest]
        variance = self.square[nearest] / self.count[nearest] - bias**2
        return bias.tolist(), np.sqrt(np.maximum(variance, 0)).tolist()


def normalised_residual(
    image: Tensor,
    estimates: Tensor,
    *,
    offset: float = 0.1,
    statistics: HealthyStatistics | None = None,
    polarity: Polarity = "both",
    tv_weight: float = 0.0,
) -> Tensor:
    """|x - x̄ - b| / √(s² + h² + offset²), mean over channels: how unusual a residual is.

    x̄ and s are mean and standard deviation of the estimates; b and h are those of healthy residuals where x̄ is as
    bright, 0 without ``statistics``.

    Args:
        image: (B, C, …) in [0, 1].
        estimates: (K, B, C, …) in [0, 1]; of a single one the spread is 0.
        offset: of the spread, in units of the image: what no estimate can tell, so that a place where all agree by
            chance does not count for much. A large one makes the map a residual again.
        statistics: of healthy images.
        polarity: ``bright`` and ``dark`` keep what is above or below the expectation.
        tv_weight: of total-variation denoising of the signed quotient, in its units; 0 for none.

    Returns:
        The map (B, 1, …), not negative.

    Raises:
        InputError: an offset that is not above 0, or an unknown polarity.
    """
    if not offset > 0:
        raise InputError(f"offset {offset}", "is not above 0", "use e.g. 0.1")
    mean = estimates.mean(dim=0)
    variance = estimates.var(dim=0, correction=0) + offset**2
    residual = image - mean
    if statistics is not None:
        bias, spread = statistics.at(mean)
        residual, variance = residual - bias, variance + spread.square()
    return magnitude(tv_denoise(residual / variance.sqrt(), tv_weight), polarity)
