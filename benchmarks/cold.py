"""From a fresh process to the first slice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Row, Setup
from benchmarks.synthetic import write_volume

__all__ = ["cold_start"]

_ROOT = Path(__file__).resolve().parents[1]
_STAGES = """
import json, sys, time
bundle, scan, output, device, clock = sys.argv[1:]
now = time.process_time if clock == "cpu" else time.perf_counter
start = now()
from monai.bundle import ConfigWorkflow
options = {"bundle_root": bundle, "dataset_dir": scan, "output_dir": output, "device": device, "progress": False}
options |= {"brain_mask": "none", "slice_range_mm": "none", "logging_file": False}
imported = now()
workflow = ConfigWorkflow(bundle + "/configs/inference.json", workflow_type="infer", **options)
workflow.initialize()
workflow.parser.get_parsed_content("evaluator")
loaded = now()
workflow.run()
print(json.dumps([imported - start, loaded - imported, now() - loaded]))
"""


def cold_start(setup: Setup) -> list[Row]:
    """Seconds to import MONAI, to load a bundle, and to go through one slice from file to files."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scan = write_volume(Path(folder) / "slice.nii.gz", (96, 96, 1))
        for name in ("dae",) if setup.quick else ("dae", "thor"):
            bundle = _ROOT / "bundles" / name
            words = [bundle, scan, f"{folder}/{name}", setup.device, setup.clock]
            line = [sys.executable, "-c", _STAGES, *map(str, words)]
            environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
            ran = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
            stages = json.loads(ran.stdout.splitlines()[-1])
            named = zip(("import of MONAI", "imports and weights of the bundle", "first slice"), stages, strict=True)
            remark = ", ".join(f"{label} {seconds:.1f}" for label, seconds in named)
            rows.append(Row("cold start", "fresh process to the first slice", name, sum(stages), "s", remark=remark))
    return rows
