"""Commands on data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["DataCommands"]


class DataCommands:
    """What is asked of data before a bundle sees it."""

    def check(self, dataset: str, channels: int | None = None, split: str | None = None, json: bool = False) -> None:
        """Check every file of a data set and print what is wrong, file by file; exit code 1 if there are errors.

        Args:
            dataset: a folder of NIfTI, PNG or JPEG files, a tree of DICOM series, one image, or a datalist.
            channels: how many channels each image must have.
            split: look at this split of a datalist only.
            json: print one JSON object for machines instead: cases with their names and files, and the problems.
        """
        from common.data.discovery import discover
        from common.data.integrity import check_cases, report, table

        cases = discover(dataset, split=split, strict=False)
        problems = check_cases(cases, channels=channels)
        errors = sum(problem.severity == "error" for problem in problems)
        if json:
            print(report(cases, problems))
        elif problems:
            print(table(problems))
            print(f"{len(cases)} cases, {errors} error(s), {len(problems) - errors} warning(s)")
        else:
            print(f"{len(cases)} cases, no problem found")
        if errors:
            raise SystemExit(1)
        if not json:
            print(_summary(cases))

    def plant(
        self,
        dataset: str,
        output_dir: str,
        split: str | None = "validation",
        shapes_dir: str | None = None,
        seed: int = 0,
        repeats: int = 1,
    ) -> None:
        """Draw lesions into each picture of a healthy T1 data set, for a measurement or a training with a known truth.

        Args:
            dataset: axial pictures on the grid of the ICBM 152 template, 23 mm above its origin.
            output_dir: where the new data set goes.
            split: the split of the data set to use; None for all.
            shapes_dir: NIfTI lesion masks in MNI space, whose shapes are used besides random blobs.
            seed: another one gives other lesions.
            repeats: versions of each picture with a lesion, each with one of its own.
        """
        from common.data.lesions import plant_dataset

        print(plant_dataset(dataset, output_dir, split=split, shapes_dir=shapes_dir, seed=seed, repeats=repeats))


def _summary(cases: Sequence[Mapping[str, Any]]) -> str:
    """Say in one line what kinds and sizes of images the cases are."""
    from common.data.kinds import kind, size

    firsts = [case["image"][0] if isinstance(case["image"], list) else case["image"] for case in cases]
    kinds = Counter("DICOM series" if Path(path).is_dir() else kind(path) for path in firsts)
    sizes = Counter(found for path in firsts if not Path(path).is_dir() and (found := size(path)))
    parts = [f"{count} {name}" for name, count in kinds.most_common()]
    shown = [" x ".join(str(side) for side in shape) for shape, _ in sizes.most_common(3)]
    more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    extra = [f"{sum(key in case for case in cases)} with {key}" for key in ("mask", "brain_mask", "label")]
    return ", ".join(parts) + (f"; {', '.join(shown)}{more}" if shown else "") + f"; {', '.join(extra)}"
