"""All measurements, or some of them: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict

import monai
import torch

from benchmarks import bundles, cold, denoisers, loops, scores
from benchmarks.measure import Row, Setup
from common import __version__
from common.files import write_json
from common.networks import select_device

SECTIONS: dict[str, tuple[Callable[[Setup], list[Row]], ...]] = {
    "denoiser": (denoisers.forward,),
    "training": (denoisers.training_step,),
    "sampler": (loops.overhead, loops.real),
    "slices": (bundles.slices,),
    "volume": (bundles.volumes,),
    "metrics": (scores.metrics,),
    "cold": (cold.cold_start,),
}


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| section | case | what | median | times as fast | remark |", "|---|---|---|---|---|---|"]
    for row in rows:
        spread = "" if math.isnan(row.low) else f" ({row.low:.2f} to {row.high:.2f})"
        ratio = f"{row.ratio:.2f}" if not math.isnan(row.ratio) else ""
        value = f"{row.value:.4g}" if row.value < 100 else f"{row.value:.0f}"
        cells = (row.section, row.case, row.name, f"{value} {row.unit}", (ratio + spread).strip(), row.remark)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table, and write it with the machine's description as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed, side by side.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything still run?")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS), help="sections to measure")
    parser.add_argument("--bundles", nargs="*", default=[], help="bundles to measure; by default all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each candidate")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a machine that others use")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", default="", help="file to write")
    given = parser.parse_args(arguments)
    rounds = 2 if given.quick else given.rounds
    setup = Setup(select_device(given.device), rounds, given.quick, given.clock, tuple(given.bundles))
    machine = {
        "device": torch.cuda.get_device_name(setup.device) if setup.device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "clock": given.clock,
        "torch": torch.__version__,
        "monai": monai.__version__,
        "zoo": __version__,
    }
    print(json.dumps(machine))
    rows = [row for name in given.only for measure in SECTIONS[name] for row in measure(setup)]
    print(table(rows))
    if given.out:
        write_json(given.out, {"machine": machine, "rows": [_plain(row) for row in rows]})
    return rows


def _plain(row: Row) -> dict[str, str | float]:
    """Without what was not measured: JSON knows no NaN."""
    return {key: value for key, value in asdict(row).items() if value == value and value != ""}


if __name__ == "__main__":
    main()
