"""Checking the cases of a data set before anything is computed from them."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import nibabel
import numpy as np
from tqdm import tqdm

from common.data.consistency import Facts, Problem, odd_ones, shared_subjects
from common.data.formats import Image, load
from common.data.masks import marked_from
from common.errors import InputError

__all__ = ["Problem", "check_case", "check_cases", "marks_anything", "report", "table", "verify"]

_LOG = logging.getLogger(__name__)
_SMALLEST_SIDE = 8
_SAME_AFFINE = 1e-3


def check_case(
    case: Mapping[str, Any], *, channels: int | None = None, spatial_dims: Sequence[int] = (2, 3)
) -> list[Problem]:
    """Check the files of one case, reading each of them to its end.

    Args:
        case: as ``discover`` gives it.
        channels: how many channels the image must have; None takes any number.
        spatial_dims: the numbers of spatial axes that are wanted. Where 2 is among them a volume is read slice by
            slice, so that it may have few slices.

    Returns:
        the problems found, an empty list for none.
    """
    return _examine(case, channels, spatial_dims)[0]


def _examine(
    case: Mapping[str, Any], channels: int | None, spatial_dims: Sequence[int]
) -> tuple[list[Problem], Facts | None]:
    """The problems of a case, and what its images are like, if they can be read."""
    parts = case["image"] if isinstance(case["image"], list) else [case["image"]]
    problems: list[Problem] = []
    images = [image for part in parts if (image := _load(part, problems)) is not None]
    for part, image in zip(parts, images, strict=False) if len(images) == len(parts) else ():
        problems += _values(part, image)
        problems += _size(part, image, spatial_dims)
        problems += _same_space(part, image, parts[0], images[0])
    found = sum(image.channels for image in images)
    if channels is not None and len(images) == len(parts) and found != channels:
        problem = f"has {found} channel(s), {channels} expected"
        problems.append(Problem(parts[0], problem, "give the channels that the model takes, in its order"))
    twin = _load(case["twin"], problems) if "twin" in case else None
    if twin is not None and images:
        problems += _same_space(case["twin"], twin, parts[0], images[0])
    masks = {}
    for role in ("mask", "brain_mask"):
        if role not in case:
            continue
        mask = _load(case[role], problems)
        if mask is not None:
            problems += _mask(case[role], mask, role, healthy=case.get("label") == 0)
            problems += _same_space(case[role], mask, parts[0], images[0]) if images else []
            masks[role] = mask
    problems += _contradictions(case, masks)
    return problems, Facts.of(case, images) if len(images) == len(parts) else None


def check_cases(
    cases: Sequence[Mapping[str, Any]], *, channels: int | None = None, spatial_dims: Sequence[int] = (2, 3)
) -> list[Problem]:
    """Check every case, and the cases against each other: subjects in two splits, images that come twice, odd ones.

    Args:
        cases: as ``discover`` gives them.
        channels: see ``check_case``.
        spatial_dims: see ``check_case``.

    Returns:
        the problems found, in the order of the cases.
    """
    problems: list[Problem] = []
    facts: list[Facts] = []
    quiet = len(cases) <= 20 or not sys.stderr.isatty()
    for case in tqdm(cases, desc="checking", unit="case", disable=quiet):
        found, fact = _examine(case, channels, spatial_dims)
        problems += found
        facts += [fact] if fact else []
    return [*problems, *shared_subjects(cases), *odd_ones(facts)]


def verify(
    cases: Sequence[Mapping[str, Any]], *, channels: int | None = None, spatial_dims: Sequence[int] = (2, 3)
) -> None:
    """Refuse a data set with errors in it; warnings go to the log.

    Args:
        cases: as ``discover`` gives them.
        channels: see ``check_case``.
        spatial_dims: see ``check_case``.

    Raises:
        InputError: with every error, or the first twenty and the number of the rest.
    """
    problems = check_cases(cases, channels=channels, spatial_dims=spatial_dims)
    warnings = [problem for problem in problems if problem.severity == "warning"]
    errors = [problem for problem in problems if problem.severity == "error"]
    if warnings:
        _LOG.warning("the data set has oddities:\n%s", table(warnings))
    if len(errors) == 1:
        raise InputError(errors[0].file, errors[0].problem, errors[0].remedy)
    if errors:
        more = f"\n… and {len(errors) - 20} more" if len(errors) > 20 else ""
        files = len({problem.file for problem in errors})
        problem = f"{len(errors)} problems in {files} files\n{table(errors[:20])}{more}\n"
        raise InputError("data set", problem, "mend or remove these files, then start again")


def marks_anything(mask: str) -> bool:
    """Whether a mask marks a voxel.

    Args:
        mask: a file that ``load`` can read.

    Raises:
        InputError: it cannot be read.
    """
    return bool(_marked(load(mask)).any())


def _marked(mask: Image) -> np.ndarray:
    return mask.array >= marked_from(float(mask.array.max()))


def table(problems: Sequence[Problem]) -> str:
    """Lay problems out as plain text in aligned columns: file, problem, what to do."""
    if not problems:
        return ""
    rows = [("file", "problem", "what to do")]
    for problem in problems:
        mark = "warning: " if problem.severity == "warning" else ""
        rows.append((problem.file, mark + problem.problem, problem.remedy))
    # A line break inside a file name must not break the table.
    rows = [tuple(" ".join(cell.split()) for cell in row) for row in rows]  # type: ignore[misc]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{row[0]:<{first}}  {row[1]:<{second}}  {row[2]}" for row in rows)


def report(cases: Sequence[Mapping[str, Any]], problems: Sequence[Problem]) -> str:
    """The outcome of a check as JSON text: ``cases``, ``problems`` with all their fields, and their counts."""
    counts = Counter(problem.severity for problem in problems)
    content = {
        "cases": list(cases),
        "problems": [asdict(problem) for problem in problems],
        "errors": counts["error"],
        "warnings": counts["warning"],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, default=str)


def _contradictions(case: Mapping[str, Any], masks: Mapping[str, Image]) -> Iterator[Problem]:
    """What the parts of a case say against each other."""
    mask = masks.get("mask")
    if mask is None:
        return
    lesion = _marked(mask)
    label, marked = case.get("label"), int(lesion.sum())
    if label == 0 and marked:
        problem = f"marks {marked} voxels of a case whose label says healthy (0)"
        yield Problem(case["mask"], problem, "correct the label, or take the mask away")
    elif label and not marked:
        yield Problem(case["mask"], f"marks nothing in a case of label {label}", "check which is right", "warning")
    brain = masks.get("brain_mask")
    if brain is not None and marked and brain.array.shape == lesion.shape:
        outside = float((lesion & ~(brain.array > 0)).sum()) / marked
        if outside > 0.05:
            problem = f"lies outside its brain mask by {outside:.0%}, which is not looked at"
            yield Problem(case["mask"], problem, "make sure that both masks are of this image", "warning")


def _load(path: str, problems: list[Problem]) -> Image | None:
    try:
        image = load(path)
    except InputError as error:
        problems.append(Problem(error.source, error.problem, error.remedy))
        return None
    problems += [Problem(path, problem, remedy, "warning") for problem, remedy in image.remarks]
    if np.issubdtype(image.array.dtype, np.floating):
        bad = ~np.isfinite(image.array)
        if bad.any():
            where = tuple(int(axis) for axis in np.argwhere(bad)[0])
            problem = f"has {int(bad.sum())} value(s) that are NaN or infinite, the first at {where}"
            problems.append(Problem(path, problem, "set them to the background value"))
            return None
    return image


def _values(path: str, image: Image) -> Iterator[Problem]:
    if image.array.min() == image.array.max():
        problem = f"holds the same value everywhere ({image.array.flat[0]})"
        yield Problem(path, problem, "export the image again, or remove the case")
    elif image.channels > 1:
        for channel in range(image.channels):
            plane = image.array[..., channel]
            if plane.min() == plane.max():
                yield Problem(path, f"has nothing in channel {channel}", "check for a missing sequence", "warning")


def _size(path: str, image: Image, spatial_dims: Sequence[int]) -> Iterator[Problem]:
    shape = image.shape
    text = " x ".join(str(side) for side in shape)
    if len(shape) not in spatial_dims and not (len(shape) == 3 and 2 in spatial_dims):
        wanted = " or ".join(str(number) for number in spatial_dims)
        problem = f"has {len(shape)} spatial axes ({text}), {wanted} expected"
        yield Problem(path, problem, "give images of the kind that the model takes")
    sides = _axial(image) if 2 in spatial_dims else shape
    if min(sides, default=0) < _SMALLEST_SIDE:
        problem = f"is too small ({text}), at least {_SMALLEST_SIDE} along each side are needed"
        if sides != shape and image.array.ndim > 2:
            seen = " x ".join(str(side) for side in sides)
            problem = f"is too small ({text}): axial slices of it have {seen}, at least {_SMALLEST_SIDE} are needed"
        yield Problem(path, problem, "give the whole image, not a crop or a thumbnail")


def _axial(image: Image) -> tuple[int, ...]:
    """The sides of an axial slice: of a volume without the axis that lies nearest to the head's own, which counts them.

    Its affine says which that is, as it does when the volume is turned for the network.
    """
    if image.affine is None:
        return image.shape
    sides = [*image.array.shape, 1][:3]
    axes = nibabel.io_orientation(image.affine)[:, 0]
    return tuple(side for side, axis in zip(sides, axes, strict=True) if axis != 2)


def _same_space(path: str, image: Image, other_path: str, other: Image) -> Iterator[Problem]:
    if image.shape != other.shape:
        problem = f"has the shape {image.shape}, its image {other_path} has {other.shape}"
        yield Problem(path, problem, "resample one onto the other")
    elif image.affine is not None and other.affine is not None:
        off = float(np.abs(image.affine - other.affine).max())
        if off > _SAME_AFFINE:
            problem = f"lies elsewhere in space than its image {other_path} (affines up to {off:.3g} apart)"
            yield Problem(path, problem, "resample one onto the other")


def _mask(path: str, mask: Image, role: str, healthy: bool = False) -> Iterator[Problem]:
    if mask.channels > 1:
        yield Problem(path, f"is a mask with {mask.channels} channels, one is expected", "save it as greyscale")
    if not mask.array.any() and not (role == "mask" and healthy):
        severity: Literal["error", "warning"] = "error" if role == "brain_mask" else "warning"
        remedy = "compute it again" if role == "brain_mask" else "leave the mask out where the image is healthy"
        yield Problem(path, f"is an empty {role.replace('_', ' ')} (all zero)", remedy, severity)
    levels = np.unique(mask.array.astype(np.float64))
    levels = levels / 255 if levels.max() > 1 else levels
    if not np.isin(levels.round(2), (0.0, 1.0)).all():
        shown = ", ".join(f"{value:g}" for value in np.unique(mask.array)[:5])
        problem = (
            f"is not a plain mask: it holds {len(levels)} values ({shown} …), and every class of a label map counts"
        )
        yield Problem(path, problem, "use 0 and 1, if that is not meant", "warning")
