"""The maps of one bundle for all cases that are not there yet."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from tqdm import tqdm

from common.anomaly import Threshold
from common.data import Case
from common.errors import told
from common.evaluation.bundle import BundleRun, the_process_as_before
from common.evaluation.comparison.case import CaseRecord
from common.evaluation.comparison.collect import CaseCollector, Meter
from common.files import write_json

__all__ = ["Job", "Processes", "run_cases"]


@dataclass(frozen=True)
class Processes:
    """Where this process stands among those that ``torchrun`` started; alone without it."""

    rank: int = field(default_factory=lambda: int(os.environ.get("RANK", "0")))
    count: int = field(default_factory=lambda: int(os.environ.get("WORLD_SIZE", "1")))

    def __enter__(self) -> Processes:
        if self.count > 1 and not dist.is_initialized():
            # Only to wait for each other, and for as long as it takes; what was found lies in files.
            dist.init_process_group("gloo", timeout=timedelta(days=7))
        return self

    def __exit__(self, *_: object) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def share(self, items: Sequence[Any]) -> list[Any]:
        """Every ``count``-th item."""
        return list(items[self.rank :: self.count])

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            dist.barrier()


@dataclass(frozen=True)
class Job:
    """A bundle on a data set.

    Args:
        bundle: its folder.
        folder: where its cases are stored.
        dataset_dir: the data set.
        split: of it.
        overrides: of its config.
        device: to run on; by default the bundle's own choice.
    """

    bundle: Path
    folder: Path
    dataset_dir: str
    split: str | None
    overrides: Mapping[str, Any]
    device: str | None = None

    def run(self) -> BundleRun:
        """Its workflow."""
        return BundleRun(self.bundle, self.dataset_dir, self.split, self.overrides, device=self.device)

    def path(self, case: Case) -> Path:
        """Where a case is stored."""
        return self.folder / f"{case['case']}.npz"

    def records(self, cases: Sequence[Case]) -> Iterator[CaseRecord]:
        """The stored cases, one at a time."""
        return (CaseRecord.load(self.path(case)) for case in cases)

    def failure(self, rank: int) -> Path:
        """Where a process tells why it could not finish."""
        return self.folder / f"failure-{rank}.json"

    def failures(self) -> list[str]:
        """Why processes could not finish."""
        return [json.loads(file.read_text())["error"] for file in sorted(self.folder.glob("failure-*.json"))]


def run_cases(job: Job, cases: Sequence[Case], data: Mapping[str, str], processes: Processes, title: str) -> None:
    """Run a bundle on this process's share of the cases that are not stored yet.

    Whatever goes wrong is written to a file of the process, so that the other bundles go on.

    Args:
        job: the bundle.
        cases: all cases.
        data: their fingerprints.
        processes: this one among them.
        title: of the progress bar, which the first process shows for its own share.
    """
    for file in job.folder.glob("failure-*.json"):
        rank = int(file.stem.removeprefix("failure-"))
        if rank == processes.rank or (processes.rank == 0 and rank >= processes.count):  # of a run with more processes
            file.unlink()
    with the_process_as_before():
        try:
            run = job.run()
            # First shared, then looked at: what others write meanwhile must not move the shares.
            share = processes.share(cases)
            mine = [case for case in share if not CaseRecord.done(job.path(case), run.key, data[case["case"]])]
            bar = tqdm(total=len(share), initial=len(share) - len(mine), desc=title, disable=processes.rank > 0)
            with bar:
                if mine:
                    evaluator = run.evaluator(mine)
                    meter = evaluator.inferer = Meter(evaluator.inferer)
                    collector = CaseCollector(job.folder, run.key, data, meter, lambda _: bar.update())
                    collector.attach(evaluator)
                    evaluator.run()
        except Exception as error:  # any bundle may fail in any way, and the others must not
            text = told(error)
            write_json(job.failure(processes.rank), {"error": text, "traceback": traceback.format_exc()})
            tqdm.write(f"{title}: failed: {text}")


def threshold_of(run: BundleRun) -> tuple[float | None, Threshold | float | None]:
    """The threshold that a run uses, and where it comes from."""
    given = run.get("threshold")
    origin = Threshold.load(given) if isinstance(given, str | Path) else given
    return run.get("clean").threshold, origin
