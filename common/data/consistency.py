"""What is wrong with a data set as a whole: subjects in two splits, images that come twice, cases unlike the others."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from common.data.formats import Image

__all__ = ["Facts", "Problem", "odd_ones", "shared_subjects", "split_of", "subject_of"]

_PICTURE_SIDES = (100, 400)  # pixels; a head of fewer or more is not at 1 mm a pixel, which pictures count as


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file.

    Args:
        file: the file, folder or subject.
        problem: what is wrong.
        remedy: what to do about it.
        severity: an ``error`` would give a wrong result or none; a ``warning`` may be meant so.
    """

    file: str
    problem: str
    remedy: str
    severity: Literal["error", "warning"] = "error"


@dataclass(frozen=True)
class Facts:
    """What a case is like, to be compared with the others."""

    file: str
    split: str
    channels: int
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    digest: bytes
    has_mask: bool
    label: int | None

    @classmethod
    def of(cls, case: Mapping[str, Any], images: Sequence[Image]) -> Facts:
        """What the images of a case, all of them read, are like."""
        file = case["image"][0] if isinstance(case["image"], list) else case["image"]
        content = hashlib.blake2b(digest_size=16)
        for image in images:
            content.update(repr(image.array.shape).encode() + np.ascontiguousarray(image.array).tobytes())
        affine = images[0].affine
        spacing = () if affine is None else tuple(float(side) for side in np.linalg.norm(affine[:3, :3], axis=0))
        channels = sum(image.channels for image in images)
        return cls(
            file=file,
            split=split_of(case),
            channels=channels,
            shape=images[0].shape,
            spacing=spacing,
            digest=content.digest(),
            has_mask="mask" in case,
            label=case.get("label"),
        )


def subject_of(case: Mapping[str, Any]) -> str:
    """Whose images a case has; one that does not say counts as a subject."""
    return str(case.get("subject", case["case"]))


def split_of(case: Mapping[str, Any]) -> str:
    """The split of a case, empty for none: ``training_healthy`` and ``training_diseased`` are two parts of one."""
    return str(case.get("split", "")).split("_")[0]


def shared_subjects(cases: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Subjects whose images are in several splits."""
    splits: dict[str, set[str]] = {}
    for case in cases:
        if "subject" in case and "split" in case:
            splits.setdefault(str(case["subject"]), set()).add(split_of(case))
    shared: dict[str, list[str]] = {}
    for subject, names in splits.items():
        if len(names) > 1:
            shared.setdefault(", ".join(sorted(names)), []).append(subject)
    for together, subjects in shared.items():
        more = f" and {len(subjects) - 5} more" if len(subjects) > 5 else ""
        problem = f"stands in several splits: {together}"
        remedy = "keep each subject in one split"
        yield Problem(f"subject {', '.join(subjects[:5])}{more}", problem, remedy, "warning")


def odd_ones(facts: Sequence[Facts]) -> Iterator[Problem]:
    """Cases that differ from most others, and images that come twice."""
    first: dict[bytes, Facts] = {}
    for fact in facts:
        twin = first.setdefault(fact.digest, fact)
        if twin is not fact:
            where = f", in another split ({twin.split} and {fact.split})" if twin.split != fact.split else ""
            yield Problem(fact.file, f"has the very voxels of {twin.file}{where}", "keep one of them", "warning")
    if not facts:
        return
    usual = Counter(fact.channels for fact in facts).most_common(1)[0][0]
    for fact in facts:
        if fact.channels != usual:
            problem = f"has {fact.channels} channel(s), most images have {usual}"
            yield Problem(fact.file, problem, "give every case the same channels, in one order", "warning")
    spaced = [fact for fact in facts if fact.spacing]
    middle = np.median([fact.spacing for fact in spaced], axis=0) if len(spaced) > 4 else np.ones(3)
    for fact in spaced if len(spaced) > 4 else ():
        ratio = np.asarray(fact.spacing) / middle
        if ratio.max() > 3 or ratio.min() < 1 / 3:
            stated = " x ".join(f"{side:.3g}" for side in fact.spacing)
            usually = " x ".join(f"{side:.3g}" for side in middle)
            problem = f"has voxels of {stated} mm, usual are {usually} mm"
            yield Problem(fact.file, problem, "make sure that it is the same kind of scan", "warning")
    low, high = _PICTURE_SIDES
    off_scale = [fact for fact in facts if not fact.spacing and not low <= max(fact.shape) <= high]
    if off_scale:
        size = " x ".join(map(str, off_scale[0].shape))
        more = f" ({len(off_scale) - 1} more likewise)" if len(off_scale) > 1 else ""
        problem = f"has {size} pixels, which count as 1 mm each: no size of a head{more}"
        yield Problem(off_scale[0].file, problem, "scale pictures to 1 mm a pixel, or give NIfTI or DICOM", "warning")
    bare = [fact for fact in facts if not fact.has_mask and fact.label != 0]
    if bare and len(bare) < len(facts) and any(fact.has_mask for fact in facts):
        problem = f"and {len(bare) - 1} more" if len(bare) > 1 else "alone"
        problem = f"({problem}) has neither a mask nor the label 0, other cases have masks"
        yield Problem(bare[0].file, problem, "name the mask, or label 0 for a healthy scan", "warning")
