"""What a run over many cases remembers: which are done, under which settings, and why others failed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from common.errors import InputError
from common.files import write_json
from common.networks import check_weights, sha256
from common.options import flag
from common.version import __version__

__all__ = ["Journal"]

_PATIENCE = timedelta(days=7)  # how long a process that is done waits for the others


class Journal:
    """A line for each case that is done or failed in ``journal.jsonl``, and ``run.json`` over the run at its end.

    Lines are only ever added, and the last of a case counts, so that runs over other cases may share a folder. A run
    that does not ``resume`` writes first that its cases are ``begun``: earlier lines of these count no more.

    Under ``torchrun`` (or with ``RANK`` and ``WORLD_SIZE`` set) each process takes every n-th case and writes a journal
    of its own (``journal-1.jsonl``, …). Paths of images are not written, since they may name a patient.

    Args:
        output_dir: where the journal lies, beside the results.
        settings: everything that a result depends on, besides case and weights.
        weights: files of weights; one, or several.
        resume: leave out cases that are done with the same settings, weights and input, their results in place.
        keep_going: a case that fails is written down, and the next one begins.

    Raises:
        InputError: the weights are missing or damaged, or a switch that is neither True nor False.
    """

    def __init__(
        self,
        output_dir: str | Path,
        settings: Mapping[str, Any],
        weights: str | Sequence[str],
        *,
        resume: bool = False,
        keep_going: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.resume, self.keep_going = flag("resume", resume), flag("keep_going", keep_going)
        files = [weights] if isinstance(weights, str) else list(weights)
        for file in files:
            check_weights(file)
        described = {"version": __version__, "settings": settings, "weights": [sha256(file) for file in files]}
        self.fingerprint = _digest(json.dumps(described, sort_keys=True, default=str))
        self.rank, self.world_size = (int(os.environ.get(key, at)) for key, at in (("RANK", 0), ("WORLD_SIZE", 1)))
        self.names: list[str] = []
        self.stamps: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.begun = False
        self.clock = time.perf_counter()

    def pending(self, cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The cases that this process has to do; those that are done are left out if ``resume``."""
        self.names = [str(case["case"]) for case in cases]
        mine = list(cases)[self.rank :: self.world_size]  # first: other processes may be writing already
        self.stamps = {str(case["case"]): _digest(self.fingerprint + _stamp(case)) for case in mine}
        entries = self._read()
        self._refuse_others(mine, entries)
        entries = entries if self.resume else {}
        left = [case for case in mine if not self._is_done(entries.get(str(case["case"])))]
        if self.resume and mine:
            print(f"{len(mine) - len(left)} of {len(mine)} cases are done already", flush=True)
        self.clock = time.perf_counter()
        return left

    def _refuse_others(self, cases: Sequence[Mapping[str, Any]], entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Results of a case are not overwritten by those of other images that happen to have its name."""
        self.sources = {str(case["case"]): _digest("\n".join(_images(case))) for case in cases}
        known = ((name, entries.get(name, {})) for name in self.sources)
        taken = [
            name
            for name, entry in known
            if entry.get("state") == "done"
            and entry.get("source", self.sources[name]) != self.sources[name]
            and any((self.output_dir / file).is_file() for file in entry["files"])
        ]
        if taken:
            problem = f"has results of {', '.join(taken[:5])}{', …' * (len(taken) > 5)} from other images of that name"
            raise InputError(self.output_dir, problem, "give another --output_dir, or move these results away")

    def done(self, case: str, files: Sequence[str], slices: int, evaluations: int) -> None:
        """Write down that a case is done; ``files`` (names in the output folder) are whole by now."""
        counts = {"slices": slices, "network_evaluations": evaluations}
        source = {"source": self.sources[case]} if case in self.sources else {}
        self._append({"case": case, "state": "done", **counts, "files": list(files), **source})

    def failed(self, case: str, reason: str) -> None:
        """Write down why a case has no result."""
        print(f"{case} failed: {reason}", flush=True)
        self._append({"case": case, "state": "failed", "reason": reason})

    def summary(self) -> dict[str, Any]:
        """All cases of this run, of all processes: which are done, which failed and why, and what all of it cost."""
        entries = self._read()
        known = {name: entries[name] for name in self.names if name in entries and entries[name]["state"] != "begun"}
        done = {name: entry for name, entry in known.items() if entry["state"] == "done"}
        slices, evaluations = (sum(each[key] for each in done.values()) for key in ("slices", "network_evaluations"))
        return {
            "cases": list(done),
            "failed": {name: entry["reason"] for name, entry in known.items() if entry["state"] == "failed"},
            "slices": slices,
            "seconds": round(sum(entry["seconds"] for entry in known.values()), 3),
            "network_evaluations": evaluations,
            "network_evaluations_per_slice": evaluations // slices if slices else 0,
        }

    def write_summary(self) -> None:
        """Write ``run.json``, if there is anything to say."""
        if self._files():
            write_json(self.output_dir / "run.json", self.summary())

    def report(self) -> None:
        """The last step of a run: wait for the other processes, write ``run.json``, and say what failed.

        Raises:
            InputError: cases failed; with all of them and their reasons.
        """
        if not self.names and not self.begun:
            return  # another task than inference over cases, with the same configuration
        together = self.world_size > 1 and "MASTER_ADDR" in os.environ and not dist.is_initialized()
        if together:  # a process that ended with an error would take the others with it
            dist.init_process_group("gloo", timeout=_PATIENCE)
            dist.barrier()
        if self.rank == 0 or not together:
            self.write_summary()
        failed = self.summary()["failed"] if self.rank == 0 or not together else {}
        if together:
            dist.barrier()
            dist.destroy_process_group()
        if failed:
            rows = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
            problem = f"failed; the others are done\n{rows}\n"
            remedy = "mend or remove them, and run again with --resume True"
            raise InputError(f"{len(failed)} of {len(self.names)} cases", problem, remedy)

    def _is_done(self, entry: Mapping[str, Any] | None) -> bool:
        if entry is None or entry["state"] != "done" or entry["stamp"] != self.stamps[entry["case"]]:
            return False
        return all((self.output_dir / file).is_file() for file in entry["files"])

    def _append(self, entry: dict[str, Any]) -> None:
        now = time.perf_counter()
        entry |= {"seconds": round(now - self.clock, 3), "stamp": self.stamps.get(entry["case"], "")}
        self.clock = now
        if not self.begun:
            self._begin()
        if entry["case"] not in self.names:  # nobody asked which cases are to be done
            self.names.append(entry["case"])
        self._write([entry])

    def _begin(self) -> None:
        """Make the folder; a run that does not go on takes back what earlier runs wrote down of its cases."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        if self._file.is_file() and not self._file.read_bytes().endswith(b"\n"):  # cut off while writing
            with self._file.open("ab") as journal:
                journal.write(b"\n")
        if not self.resume:
            self._write([{"case": name, "state": "begun"} for name in self.stamps])
        self.begun = True

    def _write(self, entries: Sequence[dict[str, Any]]) -> None:
        written = round(time.time(), 3)
        lines = [json.dumps({**entry, "written": written}, ensure_ascii=False).encode() + b"\n" for entry in entries]
        with self._file.open("ab") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())

    @property
    def _file(self) -> Path:
        return self.output_dir / (f"journal-{self.rank}.jsonl" if self.rank else "journal.jsonl")

    def _files(self) -> list[Path]:
        return sorted(self.output_dir.glob("journal*.jsonl"))

    def _read(self) -> dict[str, dict[str, Any]]:
        """The last entry of each case, in whichever file; a line that was cut off counts for nothing."""
        entries: dict[str, dict[str, Any]] = {}
        for file in self._files():
            for line in file.read_bytes().splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    entry.setdefault("written", 0)  # lines of older versions
                    if entry["written"] >= entries.get(entry["case"], entry)["written"]:
                        entries[entry["case"]] = entry
        return entries


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _images(case: Mapping[str, Any]) -> list[str]:
    """The image files of a case, or the folder of its series, by their full paths."""
    image = case.get("image", [])
    return [os.path.abspath(path) for path in ([image] if isinstance(image, str) else image)]


def _stamp(case: Mapping[str, Any]) -> str:
    """What tells whether the files of a case are still the same: names, sizes, times of change."""
    parts = []
    for key in ("image", "mask", "brain_mask"):
        value = case.get(key, [])
        for path in [value] if isinstance(value, str) else value:
            try:
                files = sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]
                parts += [f"{file}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files]
            except OSError:
                parts.append(f"{path}: cannot be read")
    return "\n".join(parts)
