"""What an evaluator leaves of each case on disk, and what the case cost."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import affine_to_spacing
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from common.data import subject_of
from common.evaluation.comparison.case import CaseRecord, Cost
from common.networks import has_bfloat16

__all__ = ["CaseCollector", "Meter", "hardware"]


class Meter:
    """An inferer that is timed, and whose floating-point operations are counted on its first call.

    Args:
        inferer: the bundle's; counts its own slices and evaluations.
    """

    def __init__(self, inferer: Any) -> None:
        self.inferer = inferer
        self.flop_per_evaluation = float("nan")
        self.calls = 0
        self.last: Cost | None = None
        self.raw_maximum = float("nan")

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Any:
        """Call the inferer."""
        first, device = self.calls == 0, inputs.device
        counter = _counter() if first else None
        slices, evaluations = self.inferer.slices, self.inferer.evaluations
        _reset_peak(device)
        start = time.perf_counter()
        with counter or nullcontext():
            result = self.inferer(inputs, network, *args, **kwargs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        slices, evaluations = self.inferer.slices - slices, self.inferer.evaluations - evaluations
        if counter is not None and evaluations:
            self.flop_per_evaluation = counter.get_total_flops() / evaluations
        self.calls += 1
        self.raw_maximum = float(result["anomaly_map"].max())
        peak, where = _peak_mib(device), hardware(device, self.inferer)
        self.last = Cost(slices, evaluations, seconds, self.flop_per_evaluation, peak, first, where)
        return result


class CaseCollector:
    """Ignite handler: one :class:`CaseRecord` a case in a folder, as soon as the case is done.

    Args:
        folder: made if missing.
        key: of settings and weights.
        data: fingerprint of each case.
        meter: the inferer of the evaluator.
        report: called after each case with its name.
    """

    def __init__(
        self, folder: Path, key: str, data: Mapping[str, str], meter: Meter, report: Callable[[str], Any]
    ) -> None:
        self.folder, self.key, self.data, self.meter, self.report = folder, key, data, meter, report

    def attach(self, engine: Engine) -> None:
        """Write after each iteration."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for case, result in zip(batch, output, strict=True):
            assert self.meter.last is not None
            name = str(case["case"])
            anomaly_map = result["anomaly_map"]
            x, y, z = (float(each) for each in affine_to_spacing(anomaly_map.affine))
            CaseRecord(
                case=name,
                subject=subject_of(case),
                label=int(case.get("label", -1)),
                key=self.key,
                data=self.data[name],
                spacing=(x, y, z),
                raw_maximum=self.meter.raw_maximum,
                anomaly_map=_array(anomaly_map)[0],
                truth=_array(case["mask"])[0] > 0.5,
                region=_array(case["brain_mask"])[0] > 0.5,
                image=_array(case["image"]),
                pseudo_healthy=_array(result["pseudo_healthy"]),
                cost=self.meter.last,
            ).save(self.folder / f"{name}.npz")
            self.report(name)


def _array(value: Tensor) -> np.ndarray:
    return torch.as_tensor(value).as_subclass(Tensor).detach().cpu().numpy().astype(np.float32)


def _attention_flop(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


# The counter knows the attention of GPUs only.
_CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop}


class _NoModules(nullcontext):
    """In place of what tells the modules apart: its hooks refuse ``torch.autograd.grad``, on which guidance stands."""

    parents = frozenset({"Global"})

    def __exit__(self, *_: object) -> None:
        """Do nothing; the counter gives no arguments."""


def _counter() -> FlopCounterMode:
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # where it cannot be reset, it is that of the process so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def hardware(device: torch.device, inferer: Any) -> str:
    """The processor, its threads, and the precision that an inferer has on it."""
    precision = "bfloat16" if getattr(inferer, "amp", False) and has_bfloat16(device) else "float32"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} thread(s), {precision}"
