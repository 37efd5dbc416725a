"""Inference over many cases: which to do, and what happens when one of them fails."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ignite.engine import Engine
from monai.engines import SupervisedEvaluator

from common.data import (
    FAILURE,
    Case,
    check_sources,
    failure_reason,
    load_cases,
    require_highdicom,
    searched_folder,
)
from common.errors import InputError, no_place
from common.files import check_writable
from common.inferers.journal import Journal
from common.options import choice

__all__ = ["FORMATS", "CaseEvaluator", "concerns_all", "inference_cases"]

FORMATS = ("nifti", "dicom", "both")
"""What results may be written as."""


def inference_cases(
    dataset_dir: str | Path,
    journal: Journal,
    split: str | None = None,
    output_format: Literal["nifti", "dicom", "both"] = "nifti",
    channels: int | None = 1,
) -> list[Case]:
    """The cases that inference of this process has to do.

    The output folder is tried first. Every file of every case is checked before anything is computed; with
    ``journal.keep_going`` each case when its turn comes, and what is wrong with it is written down.

    Args:
        dataset_dir: any form that ``discover`` knows.
        journal: knows what is done already, and which share of the cases is this process's.
        split: of a data list; ``None`` takes all.
        output_format: what is to be written; DICOM only where the input is DICOM.
        channels: that each image must have.

    Raises:
        InputError: as ``load_cases``; DICOM asked for where it cannot be written; or an output folder that cannot be
            written, or lies within the input.
    """
    choice("output_format", output_format, FORMATS)
    if str(dataset_dir) and (folder := searched_folder(dataset_dir)):
        _refuse_within(journal.output_dir, folder)
    check_writable(journal.output_dir)
    cases = load_cases(dataset_dir, split, channels, check=not journal.keep_going)
    for image in (case["image"] for case in cases):
        if isinstance(image, str) and Path(image).is_dir():
            _refuse_within(journal.output_dir, image)
    if output_format == "nifti":
        return journal.pending(cases)
    require_highdicom()
    if not journal.keep_going:
        check_sources(cases)
        return journal.pending(cases)
    usable = []
    for case in journal.pending(cases):
        try:
            check_sources([case])
            usable.append(case)
        except InputError as error:
            journal.failed(case["case"], failure_reason(error, case))
    return usable


def _refuse_within(output_dir: Path, folder: str | Path) -> None:
    """Results in a folder that is searched for images would be images of the next run, or slices of the series."""
    if Path(os.path.realpath(output_dir)).is_relative_to(os.path.realpath(folder)):
        problem = f"lies in the input folder {folder}, where results would be taken for images"
        raise InputError(f"output_dir {output_dir}", problem, "give an --output_dir outside of it")


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's evaluator for one case at a time, with a journal: a case that fails need not be the end.

    Args:
        *args: of ``SupervisedEvaluator``.
        journal: decides whether to keep going, and hears of failures.
        **kwargs: of ``SupervisedEvaluator``.
    """

    def __init__(self, *args: Any, journal: Journal, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.journal = journal

    def run(self, global_epoch: int = 1) -> None:
        """Go through the cases, if any are left."""
        if self.state.epoch_length != 0:
            super().run(global_epoch)

    def _iteration(self, engine: Engine, batchdata: Any) -> Any:  # type: ignore[override]
        if not self.journal.keep_going:
            return super()._iteration(engine, batchdata)
        case = str(batchdata["case"][0])
        try:
            if FAILURE not in batchdata:
                return super()._iteration(engine, batchdata)
            self.journal.failed(case, str(batchdata[FAILURE][0]))
        except Exception as error:
            if concerns_all(error):
                raise
            self.journal.failed(case, failure_reason(error, _named(batchdata, case)))
        engine.state.batch, engine.state.output = [], []  # type: ignore[assignment]
        return engine.state.output


def concerns_all(error: BaseException) -> bool:
    """Whether an error would meet every further case too: no place to write, or no device to compute on."""
    return no_place(error) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


def _named(batch: Mapping[str, Any], case: str) -> dict[str, Any]:
    """The case of a batch of one, with the names of its files."""
    files = {}
    for key in ("image", "mask", "brain_mask"):
        name = getattr(batch.get(key), "meta", {}).get("filename_or_obj", "")
        files[key] = [str(each) for each in name] if isinstance(name, list) else str(name)
    return {"case": case, **{key: value for key, value in files.items() if value}}
