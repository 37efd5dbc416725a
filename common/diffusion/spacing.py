"""Named timestep spacings: which levels a sampler visits.

A list of levels is the only truth about a sampler's path: it steps over the neighbouring pairs of the list, so a
step can never go to another level than the next one visited. Lists that go down end at ``CLEAN``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from common.diffusion.schedule import CLEAN
from common.errors import InputError
from common.options import choice

__all__ = ["SPACINGS", "nearest_levels", "sampling_levels"]


def _linspace(levels: int, count: int) -> np.ndarray:
    return np.linspace(levels - 1, 0, count)


def _trailing(levels: int, count: int) -> np.ndarray:
    return levels - levels / count * np.arange(count) - 1


def _leading(levels: int, count: int) -> np.ndarray:
    return (np.arange(count) * (levels // count))[::-1]


def _quadratic(levels: int, count: int) -> np.ndarray:
    return np.linspace(np.sqrt(levels - 1), 0, count) ** 2


SPACINGS: dict[str, Callable[[int, int], np.ndarray]] = {
    "linspace": _linspace,  # both ends, evenly
    "trailing": _trailing,  # the start, then every T/N-th below it (Lin et al. 2024, Table 2)
    "leading": _leading,  # 0, T//N, 2 T//N, … (guided-diffusion's "ddimN"); begins below the start level
    "quadratic": _quadratic,  # both ends, denser near the image (Song et al. 2021, appendix D.2)
}


def sampling_levels(start: int, num_inference_steps: int, spacing: str = "linspace") -> list[int]:
    """The levels that a sampler visits on the way from level ``start`` down to the image.

    Args:
        start: the highest level, at most T - 1.
        num_inference_steps: network evaluations, at most ``start + 1``, which visits every level.
        spacing: a key of ``SPACINGS``.

    Returns:
        ``num_inference_steps`` falling levels and ``CLEAN`` behind them.

    Raises:
        InputError: unknown spacing, negative start, or more steps than there are levels.
    """
    choice("spacing", spacing, SPACINGS)
    if start < 0:
        raise InputError(f"start level {start}", "is below the first noisy level", "use 0 or more")
    if not 1 <= num_inference_steps <= start + 1:
        raise InputError(
            f"num_inference_steps {num_inference_steps}",
            f"does not fit the {start + 1} levels from {start} down to 0",
            f"use 1 to {start + 1}",
        )
    levels = np.round(SPACINGS[spacing](start + 1, num_inference_steps)).astype(int)
    for i in range(len(levels) - 2, -1, -1):  # rounding may make neighbours of a dense spacing equal
        levels[i] = max(levels[i], levels[i + 1] + 1)
    return [*levels.tolist(), CLEAN]


def nearest_levels(wanted: Sequence[int], timesteps: Sequence[int]) -> set[int]:
    """The visited levels nearest to those ``wanted``; levels above the first visited one are left out.

    Methods that act at named levels (THOR's harmonisation at 300, 150, 50) keep their meaning under any spacing.
    """
    visited = [t for t in timesteps if t != CLEAN]
    return {min(visited, key=lambda t: abs(t - level)) for level in wanted if CLEAN < level <= visited[0]}
