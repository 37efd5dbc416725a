"""The command line: ``anomaly-zoo check | list | table | plant | demo``."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire

from common.errors import InputError

__all__ = ["Zoo", "main"]


class Zoo:
    """Find and outline anomalies in medical images with diffusion models."""

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

        cases = discover(str(dataset), split=None if split is None else str(split), strict=False)
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

    def list(self, bundles: str | None = None) -> None:
        """List the bundles: name, version, supervision, description.

        Args:
            bundles: the folder that holds them; by default the one of this repository, or ./bundles.
        """
        folder = _bundle_folder(bundles)
        rows = [("name", "version", "supervision", "description")]
        rows += [_row(file) for file in sorted(folder.glob("*/configs/metadata.json"))]
        if len(rows) == 1:
            raise InputError(folder, "holds no bundle", "give the folder that holds the bundles with --bundles")
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            print("  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[3]]))

    def table(self, name: str = "ixi_planted", bundles: str | None = None, update: bool = False) -> None:
        """Print the figures of all bundles in one experiment as a Markdown table, best first.

        Args:
            name: of the experiment, the ``id`` in the bundles' ``docs/results.json``.
            bundles: the folder that holds them, as of ``list``.
            update: instead of printing, bring the tables in the README beside that folder and in those of the
                bundles up to date.
        """
        from common.evaluation.table import results_table, update_tables

        folder = _bundle_folder(bundles)
        found = [file.parents[1] for file in sorted(folder.glob("*/docs/results.json"))]
        if not update:
            print(results_table(found, str(name)))
            return
        for page in (folder.parent / "README.md", *(bundle / "docs" / "README.md" for bundle in found)):
            update_tables(page, found)
            print(page)

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

        split = None if split is None else str(split)
        shapes_dir = None if shapes_dir is None else str(shapes_dir)
        options = {"split": split, "shapes_dir": shapes_dir, "seed": int(seed), "repeats": int(repeats)}
        print(plant_dataset(str(dataset), str(output_dir), **options))  # type: ignore[arg-type]

    def demo(
        self, output_dir: str = "demo_output", bundle: str = "thor", num_inference_steps: int | None = None
    ) -> None:
        """Draw a lesion into a healthy brain, find it again, and write the result.

        Args:
            output_dir: where the files go.
            bundle: the bundle that looks for it.
            num_inference_steps: how many steps its sampler takes; by default as many as the bundle says.
        """
        importlib.import_module("common.demo").run(str(output_dir), str(bundle), num_inference_steps)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; input that cannot be used ends in one line on stderr and exit code 2.

    Args:
        argv: the words behind the program's name; None takes those of the process.
    """
    try:
        fire.Fire(Zoo(), command=None if argv is None else [*argv], name="anomaly-zoo")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _bundle_folder(bundles: str | None) -> Path:
    if bundles is not None:
        folders = [Path(str(bundles))]
    else:
        folders = [Path(__file__).resolve().parents[1] / "bundles", Path.cwd() / "bundles"]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise InputError(folders[-1], "is no folder", "give the folder that holds the bundles with --bundles")


def _row(file: Path) -> tuple[str, str, str, str]:
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
        version, supervision = (str(metadata.get(key, "?")) for key in ("version", "supervision"))
        return file.parents[1].name, version, supervision, " ".join(str(metadata.get("description", "")).split())
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(file, f"is not usable metadata ({error})", "restore the file from the release") from error


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
