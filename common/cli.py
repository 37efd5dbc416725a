"""The command line: from ``anomaly-zoo check`` for data to ``compare`` for bundles and ``package`` for releases."""

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

    def compare(
        self,
        data: str,
        out: str,
        bundles: str = "all",
        split: str | None = None,
        settings: str | None = None,
        weights: str | None = None,
        max_cases: int | None = None,
        device: str | None = None,
        draws: int = 1000,
        seed: int = 0,
        score_only: bool = False,
        bundles_dir: str | None = None,
    ) -> None:
        """Run bundles on the same cases, score them alike, and write results and a report; exit code 1 if one failed.

        What is in the folder already is not computed again. Several processes: ``torchrun --nproc_per_node=N -m
        common.cli compare …``.

        Args:
            data: the cases, with masks; whoever has the label 0 needs none.
            out: folder for results.json, results.csv, cases.csv, report.html and the maps.
            bundles: names separated by commas, or all.
            split: of the data set.
            settings: a JSON file of overrides, ``{"thor": {"noise_level": 200}, "*": {"spatial_size": [64, 64]}}``.
            weights: a folder of other weights, ``BUNDLE/model.pt`` with ``threshold.json`` beside it.
            max_cases: use the first cases only.
            device: to run on.
            draws: of subjects, for the intervals.
            seed: of these draws.
            score_only: run nothing, score the maps that are there.
            bundles_dir: the folder that holds the bundles, as of ``list``.
        """
        from common.evaluation.comparison import compare, summary_of

        results = compare(
            str(data),
            str(out),
            bundles_dir=_bundle_folder(bundles_dir),
            bundles=bundles,
            split=None if split is None else str(split),
            settings=settings,
            weights=weights,
            max_cases=max_cases,
            device=device,
            draws=int(draws),
            seed=int(seed),
            score_only=score_only,
        )
        if results:
            print(summary_of(results, str(out)))
        if results.get("failures"):
            raise SystemExit(1)

    def calibrate(
        self,
        bundle: str,
        data: str,
        fpr: float = 0.01,
        split: str | None = None,
        settings: str | None = None,
        weights: str | None = None,
        out: str | None = None,
        calibrated_on: str | None = None,
        device: str | None = None,
        bundles_dir: str | None = None,
    ) -> None:
        """Find a bundle's threshold on healthy scans, and write it beside the weights, where inference looks for it.

        Args:
            bundle: name or folder.
            data: the healthy scans.
            fpr: share of their voxels that may be called anomalous.
            split: of the data set.
            settings: a JSON file of overrides, as of ``compare``.
            weights: a file, in place of the bundle's own.
            out: the file to write; by default threshold.json beside the weights.
            calibrated_on: the scans in words, kept in the file.
            device: to run on.
            bundles_dir: the folder that holds the bundles, as of ``list``.
        """
        from common.evaluation.calibrate import calibrate

        calibrate(
            str(bundle),
            str(data),
            bundles_dir=_bundle_folder(bundles_dir),
            fpr=float(fpr),
            split=None if split is None else str(split),
            settings=settings,
            weights=weights,
            output=out,
            calibrated_on=calibrated_on,
            device=device,
        )

    def robustness(
        self,
        bundle: str,
        data: str,
        out: str | None = None,
        split: str | None = None,
        settings: str | None = None,
        weights: str | None = None,
        max_cases: int = 40,
        attack_cases: int = 20,
        device: str | None = None,
        bundles_dir: str | None = None,
    ) -> None:
        """Measure what noise, blur, contrast, masks … and a small attack cost a bundle, and write a card.

        Args:
            bundle: name or folder.
            data: cases with masks; whoever has the label 0 needs none.
            out: folder for robustness.json, robustness.md and robustness.html; by default robustness_BUNDLE.
            split: of the data set.
            settings: a JSON file of overrides, as of ``compare``.
            weights: a file, in place of the bundle's own.
            max_cases: use the first cases only.
            attack_cases: how many of them to attack; 0 for none.
            device: to run on.
            bundles_dir: the folder that holds the bundles, as of ``list``.
        """
        from common.evaluation.robustness import robustness

        folder = Path(str(out or f"robustness_{Path(str(bundle)).name}"))
        card = robustness(
            str(bundle),
            str(data),
            folder,
            bundles_dir=_bundle_folder(bundles_dir),
            split=None if split is None else str(split),
            settings=settings,
            weights=weights,
            max_cases=int(max_cases),
            attack_cases=int(attack_cases),
            device=device,
        )
        worst = min(card["perturbations"], key=lambda row: row["change"])
        change = f"{worst['kind']} {worst['strength']:g} changes it by {worst['change']:+.3f}"
        print(f"pixel AP {card['clean']['pixel_ap']:.3f}; {change} → {folder / 'robustness.html'}")

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

    def package(
        self,
        *names: str,
        out: str = "dist",
        bundles: str | None = None,
        base_url: str | None = None,
        replace: bool = False,
    ) -> None:
        """Make releases: one zip a bundle, which is always the same for the same files, with hashes and an index.

        Args:
            names: of bundles, or their folders; none for all.
            out: where the zips, SHA256SUMS and model_info.json go.
            bundles: the folder that holds the bundles, as of ``list``.
            base_url: the address at which the zips will lie.
            replace: write over a release of the same version that has other content.
        """
        from common.release import package

        for path in package(_named(names, bundles), str(out), base_url=base_url, replace=replace):
            print(path)

    def download(self, name: str, source: str, version: str | None = None, bundle_dir: str = ".") -> None:
        """Download a release, check it against its hashes, and unpack it; all of it or nothing.

        Args:
            name: of the bundle.
            source: the folder or address that holds the zips and SHA256SUMS.
            version: by default the latest.
            bundle_dir: where the bundle's folder goes.
        """
        from common.release import download

        print(download(str(name), str(source), None if version is None else str(version), str(bundle_dir)))

    def verify(self, bundle: str, manifest_sha256: str | None = None) -> None:
        """Compare every file of an unpacked release with its manifest; exit code 1 if one that would be read differs.

        Args:
            bundle: its folder.
            manifest_sha256: of the manifest, from the release's model_info.json, which shows that nobody rewrote it.
        """
        from common.release import verify_bundle

        findings = verify_bundle(str(bundle), None if manifest_sha256 is None else str(manifest_sha256))
        for finding in findings:
            print(f"{finding.severity:<6} {finding.file} {finding.problem}")
        errors = sum(finding.severity == "error" for finding in findings)
        print(f"{bundle}: {errors} error(s)" if errors else f"{bundle}: every file is as it was released")
        if errors:
            raise SystemExit(1)

    def export(
        self,
        bundle: str,
        output: str,
        format: str | None = None,
        network: str = "network_def",
        bundles: str | None = None,
    ) -> None:
        """Write a network as a file that runs without MONAI: inputs are image, noise level and what else it takes.

        Args:
            bundle: its name or folder.
            output: the file.
            format: pt2 (torch.export) or onnx; by default what the file's name ends in.
            network: id of its definition in inference.json.
            bundles: the folder that holds the bundles, as of ``list``.
        """
        from common.release.export import export

        made = export(_named([bundle], bundles)[0], str(output), format, network)
        sizes = "any size and batch" if made["free"] else "any batch"
        print(f"{output}: {', '.join(made['inputs'])}; {sizes}; differs by {made['largest_difference']:.1g} at most")

    def new(self, name: str, like: str = "ddpm", bundles: str | None = None) -> None:
        """Begin a new bundle: a whole one that runs, with the one method to fill in.

        Args:
            name: of the bundle.
            like: the bundle whose configs, network and weights it begins with.
            bundles: the folder that gets it, as of ``list``.
        """
        from common.release.scaffold import new_bundle

        print(new_bundle(str(name), _named([like], bundles)[0], _bundle_folder(bundles)))


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


def _named(names: Sequence[str], bundles: str | None) -> list[Path]:
    """Folders of bundles given by name or as folders; of all bundles if none is given."""
    if not names:
        return sorted(file.parents[1] for file in _bundle_folder(bundles).glob("*/configs/metadata.json"))
    found = []
    for name in map(str, names):
        folder = Path(name) if Path(name, "configs").is_dir() else _bundle_folder(bundles) / name
        if not (folder / "configs" / "metadata.json").is_file():
            raise InputError(name, "is no bundle", "give the name of a bundle (see 'anomaly-zoo list'), or its folder")
        found.append(folder)
    return found


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


if __name__ == "__main__":
    main()
