"""Finding, checking and preparing images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from common.data.cases import FAILURE, CaseDataset, failure_reason
from common.data.consistency import split_of, subject_of
from common.data.dicom import check_sources, require_highdicom, write_parametric_map, write_segmentation
from common.data.discovery import Case, dataset_name, discover, searched_folder
from common.data.integrity import Problem, check_cases, marks_anything, table, verify
from common.data.preprocessing import Preprocessing, SliceTraining
from common.data.scaling import SCALING_FILE, Scaling
from common.diffusion import case_seed
from common.errors import InputError

__all__ = [
    "FAILURE",
    "SCALING_FILE",
    "Case",
    "CaseDataset",
    "Preprocessing",
    "Problem",
    "Scaling",
    "SliceTraining",
    "check_cases",
    "check_sources",
    "dataset_name",
    "discover",
    "failure_reason",
    "healthy_cases",
    "load_cases",
    "marks_anything",
    "require_highdicom",
    "searched_folder",
    "split_of",
    "subject_of",
    "table",
    "verify",
    "write_parametric_map",
    "write_segmentation",
]


def load_cases(
    dataset_dir: str | Path,
    split: str | int | None = None,
    channels: int | None = 1,
    truth: Literal["mask", "label", "healthy"] | None = None,
    check: bool = True,
    twins: bool = True,
) -> list[Case]:
    """Find the cases of a data set and check every file of them, before anything is computed.

    Args:
        dataset_dir: any form that ``discover`` knows.
        split: ``training``, ``validation``, or any other split of a data list; ``None`` takes all. Where neither of
            these two is named, the cases without a split are split here, by subject: a tenth, of small sets a quarter
            up to five, chosen by the hash of its name, validates.
        channels: that each image must have.
        truth: what each case must bring: ``mask`` (or the label 0, which means an empty one), or ``label`` (0 is
            healthy; or a mask, which says as much); with either a case may bring a ``twin``, an image of the same
            slice without the lesion, which is no case then. ``healthy``, for methods that learn from healthy images
            alone: no label but 0, and no mask with anything in it. ``None`` takes cases as they are.
        check: without it nothing but names is looked at: for trees of thousands of studies, in which some are bad and
            each is checked when its turn comes (``CaseDataset``).
        twins: keep them; without, each image is a case of its own, as tests want it.

    Raises:
        InputError: nothing found, too few cases to split, the table of everything that is wrong, cases without the
            truth asked for, one label in all of them, or diseased cases where healthy ones are asked for.
    """
    if not str(dataset_dir):
        raise InputError("dataset_dir", "is not given", "add --dataset_dir PATH (a folder, an image, or a datalist)")
    cases = discover(dataset_dir, strict=check)
    if split is not None:
        split = str(split)  # MONAI's command line makes a number of 0
        named = {case["split"] for case in cases if "split" in case}
        unnamed = [case for case in cases if "split" not in case]
        learnt = {"training", "validation"}
        divide = not named or (unnamed and split in learnt and not named & learnt)
        cases = _held_out(unnamed, split) if divide else discover(dataset_dir, split, strict=check)
    labelled = truth in ("mask", "label")
    if not labelled or not twins:  # a twin teaches what a lesion is; nothing else reads it
        cases = [{key: value for key, value in case.items() if key != "twin"} for case in cases]
    if truth == "healthy":
        _refuse_labels(cases, split)
    if check:
        verify(cases, channels=channels)
    if truth == "healthy":
        _refuse_masks(cases, split)
    elif truth is not None:
        _check_truth(cases, truth)
        cases = _with_twins(cases) if twins else cases
    return cases


def healthy_cases(dataset_dir: str | Path, split: str | None = None, channels: int | None = 1) -> list[Case]:
    """The healthy cases of a data set: those with the label 0 where it has any, else all, none of which may be ill.

    Args:
        dataset_dir: see ``load_cases``.
        split: see ``load_cases``.
        channels: see ``load_cases``.

    Raises:
        InputError: as ``load_cases``; or no case has the label 0, and some have another, or a mask with a lesion.
    """
    cases = load_cases(dataset_dir, split, channels=channels)
    healthy = [case for case in cases if case.get("label") == 0]
    if not healthy:
        _refuse_labels(cases, split)
        _refuse_masks(cases, split)
    return healthy or cases


def _refuse_labels(cases: list[Case], split: str | None) -> None:
    ill = [case for case in cases if case.get("label")]
    if ill:
        raise _not_healthy(ill, cases, split, "their label")


def _refuse_masks(cases: list[Case], split: str | None) -> None:
    """Only masks of cases without a label are read: a label says as much, and its mask was compared with it."""
    ill = [case for case in cases if "mask" in case and "label" not in case and marks_anything(case["mask"])]
    if ill:
        raise _not_healthy(ill, cases, split, "their mask")


def _not_healthy(ill: list[Case], cases: list[Case], split: str | None, reason: str) -> InputError:
    source = f"{len(ill)} of {len(cases)} cases (first: {ill[0]['image']})"
    where = "data set" if split is None else f"split '{split}'"
    remedy = f"leave them out of the {where}: healthy scans alone are used here"
    return InputError(source, f"are not healthy by {reason}", remedy)


def _check_truth(cases: list[Case], truth: Literal["mask", "label"]) -> None:
    bare = [
        case for case in cases if "mask" not in case and ("label" not in case or (truth == "mask" and case["label"]))
    ]
    if bare:
        source = f"{len(bare)} of {len(cases)} cases (first: {bare[0]['image']})"
        raise InputError(source, f"have no {truth}", f"name the {truth} of each case in a datalist; label 0 is healthy")
    labels = {bool(case["label"]) for case in cases if "label" in case}
    if truth == "label" and len(labels) == 1 and all("label" in case for case in cases):
        found, other = ("diseased", "healthy (0)") if labels.pop() else ("healthy", "diseased (1)")
        raise InputError(f"all {len(cases)} cases", f"are {found} by their label", f"add cases that are {other}")


def _with_twins(cases: list[Case]) -> list[Case]:
    """Where any case has a twin: each with its own, healthy ones with themselves, and no case that is a twin itself."""
    twins = {str(case["twin"]) for case in cases if "twin" in case}
    if not twins:
        return cases
    alone = [case for case in cases if "twin" not in case and str(case["image"]) not in twins]
    if bare := [case for case in alone if case.get("label") != 0]:
        source = f"{len(bare)} of {len(cases)} cases (first: {bare[0]['image']})"
        raise InputError(source, "have a lesion and no twin, as others have", "give all of them a twin, or none")
    return [case for case in cases if "twin" in case] + [{**case, "twin": case["image"]} for case in alone]


def _held_out(cases: list[Case], split: str) -> list[Case]:
    subjects = sorted({subject_of(case) for case in cases}, key=lambda name: case_seed(0, name))
    if split not in ("training", "validation") or len(subjects) < 2:
        raise InputError(
            f"split '{split}' of {len(subjects)} subjects",
            "cannot be made",
            "name the splits in a datalist, or give at least two subjects for 'training' and 'validation'",
        )
    validation = set(subjects[: max(1, len(subjects) // 10, min(5, len(subjects) // 4))])
    return [case for case in cases if (subject_of(case) in validation) == (split == "validation")]
