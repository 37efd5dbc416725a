"""Interleaved timing, memory, and rows of a table."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.networks import has_bfloat16

__all__ = ["Row", "Setup", "Watch", "compare", "floor", "interleaved", "peak_memory", "precisions", "reset_peak_memory"]

_MATRIX_PEAK = 790e12  # bf16 operations a second, measured on an H200


@dataclass(frozen=True)
class Setup:
    """How to measure.

    Args:
        device: where networks run.
        rounds: times that each candidate has its turn.
        quick: tiny sizes, to see that everything works; the figures mean nothing.
        clock: ``wall``, or ``cpu``: seconds of this process's threads, on a machine that others use too.
        bundles: names of those to measure; none stands for all.
    """

    device: torch.device
    rounds: int = 5
    quick: bool = False
    clock: str = "wall"
    bundles: tuple[str, ...] = ()

    def wants(self, bundle: str) -> bool:
        """Whether this bundle is to be measured."""
        return not self.bundles or bundle in self.bundles

    def now(self) -> float:
        """Seconds; everything that the device was given is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.process_time() if self.clock == "cpu" else time.perf_counter()


@dataclass(frozen=True)
class Row:
    """A line of the table: a median, how many times as fast as the reference, the quartiles of that, and a remark."""

    section: str
    case: str
    name: str
    value: float
    unit: str
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    remark: str = ""


def precisions(setup: Setup) -> list[bool]:
    """Values of ``amp`` that differ on the device: without and with bfloat16, where it has that."""
    return [False, True] if has_bfloat16(setup.device) else [False]


class Watch:
    """Seconds that a network's forward pass takes, by hooks, which copies of the network keep."""

    def __init__(self, network: nn.Module, setup: Setup) -> None:
        self.seconds, self._setup, self._start = 0.0, setup, 0.0
        self._hooks = [network.register_forward_pre_hook(self._begin), network.register_forward_hook(self._end)]

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        return self

    def _begin(self, *_: Any) -> None:
        self._start = self._setup.now()

    def _end(self, *_: Any) -> None:
        self.seconds += self._setup.now() - self._start

    def remove(self) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()


def interleaved(functions: Mapping[str, Callable[[], Any]], setup: Setup) -> dict[str, list[float]]:
    """Seconds of each function in each round; every round calls all of them, after one call that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(setup.rounds):
        for name, function in functions.items():
            start = setup.now()
            function()
            seconds[name].append(setup.now() - start)
    return seconds


def compare(
    section: str,
    case: str,
    functions: Mapping[str, Callable[[], Any]],
    setup: Setup,
    *,
    reference: str,
    scale: float = 1000.0,
    unit: str = "ms",
    remarks: Mapping[str, str] | None = None,
) -> list[Row]:
    """Time functions in turn and set them against one of them, round by round.

    Args:
        section: of the table.
        case: what is computed.
        functions: by name.
        setup: how to measure.
        reference: name of the function that the others are as fast as, or faster.
        scale: from seconds of a call to the unit.
        unit: of the values.
        remarks: by name.
    """
    seconds = interleaved(functions, setup)
    rows = []
    for name, own in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(seconds[reference], own, strict=True)]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
        remark = (remarks or {}).get(name, "")
        rows.append(Row(section, case, name, scale * median(own), unit, median(ratios), low, high, remark))
    return rows


def floor(function: Callable[[], Any], seconds: float, setup: Setup, dtype: torch.dtype) -> str:
    """The time that the multiplications alone need at the peak of the device, and how many times that it took."""
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    ideal = counter.get_total_flops() / _matrix_peak(setup, dtype)
    return f"floor {1000 * ideal:.3g} ms, factor {seconds / ideal:.1f}" if ideal else ""


@cache
def _matrix_peak(setup: Setup, dtype: torch.dtype) -> float:
    """Operations a second: of a GPU the constant, of a CPU those of a product of large matrices, the best of five."""
    if setup.device.type == "cuda":
        return _MATRIX_PEAK
    size = 64 if setup.quick else 1536
    matrix, seconds = torch.randn(size, size).to(dtype), math.inf
    for _ in range(6):
        start = setup.now()
        torch.mm(matrix, matrix)
        seconds = min(seconds, max(setup.now() - start, 1e-9))
    return 2 * size**3 / seconds


def reset_peak_memory(setup: Setup) -> None:
    """Begin to look for the peak anew; on Linux and on GPUs."""
    if setup.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(setup.device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(setup: Setup) -> float:
    """The most memory since then, in MiB: of the GPU, or of the whole process."""
    if setup.device.type == "cuda":
        return torch.cuda.max_memory_allocated(setup.device) / 2**20
    if sys.platform == "linux":
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS
