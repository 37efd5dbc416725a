"""Finding, checking and preparing images."""

from __future__ import annotations

from pathlib import Path

from common.data.discovery import Case, discover
from common.data.integrity import Problem, check_cases, table, verify
from common.data.preprocessing import Preprocessing, SliceTraining
from common.diffusion import case_seed
from common.errors import InputError

__all__ = [
    "Case",
    "Preprocessing",
    "Problem",
    "SliceTraining",
    "check_cases",
    "discover",
    "load_cases",
    "table",
    "verify",
]


def load_cases(dataset_dir: str | Path, split: str | None = None, channels: int | None = 1) -> list[Case]:
    """Find the cases of a data set and check every file of them, before anything is computed.

    Args:
        dataset_dir: any form that ``discover`` knows.
        split: ``training``, ``validation``, or any other split of a data list; ``None`` takes all. A data set that
            names no splits is split here, by subject: a tenth, chosen by the hash of its name, validates.
        channels: that each image must have.

    Raises:
        InputError: nothing found, too few cases to split, or the table of everything that is wrong.
    """
    if not str(dataset_dir):
        raise InputError("dataset_dir", "is not given", "add --dataset_dir PATH (a folder, an image, or a datalist)")
    cases = discover(dataset_dir)
    if split is not None:
        cases = discover(dataset_dir, split) if any("split" in case for case in cases) else _held_out(cases, split)
    verify(cases, channels=channels)
    return cases


def _held_out(cases: list[Case], split: str) -> list[Case]:
    subjects = sorted({str(case.get("subject", case["case"])) for case in cases}, key=lambda name: case_seed(0, name))
    if split not in ("training", "validation") or len(subjects) < 2:
        raise InputError(
            f"split '{split}' of {len(subjects)} subjects",
            "cannot be made",
            "name the splits in a datalist, or give at least two subjects for 'training' and 'validation'",
        )
    validation = set(subjects[: max(1, len(subjects) // 10)])
    return [case for case in cases if (str(case.get("subject", case["case"])) in validation) == (split == "validation")]
