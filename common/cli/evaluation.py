"""Commands that measure bundles, and show what was measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from common.bundles import bundle_folder, find_bundle
from common.errors import InputError

__all__ = ["EvaluationCommands"]


class EvaluationCommands:
    """Thresholds, comparisons, robustness cards, and tables of figures."""

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
        folds: int = 0,
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
            folds: of the subjects: thresholds from the healthy cases of the other folds, in place of the bundles' own.
            score_only: run nothing, score the maps that are there.
            bundles_dir: the folder that holds the bundles, as of ``list``.
        """
        from common.evaluation.comparison import compare, summary_of

        results = compare(
            data,
            out,
            bundles_dir=bundles_dir,
            bundles=bundles,
            split=split,
            settings=settings,
            weights=weights,
            max_cases=max_cases,
            device=device,
            draws=draws,
            seed=seed,
            folds=folds,
            score_only=score_only,
        )
        if results:
            print(summary_of(results, out))
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
        """Find thresholds on healthy scans, and write them beside the weights, where inference looks for them.

        What else a method takes from healthy scans (``statistics.json``) is made first where it is missing, or of
        other weights. Exit code 1 if a bundle failed; the others go on.

        Args:
            bundle: name or folder; several with commas between them, or all.
            data: the healthy scans.
            fpr: share of their voxels that may be called anomalous.
            split: of the data set.
            settings: a JSON file of overrides, as of ``compare``.
            weights: in place of the bundles' own: a file, or a folder of sets as of ``compare``. Of ``all`` those are
                calibrated that it holds.
            out: the file to write, for one bundle; by default threshold.json beside the weights.
            calibrated_on: the scans in words, kept in the file.
            device: to run on.
            bundles_dir: the folder that holds the bundles, as of ``list``.
        """
        from common.evaluation.calibrate import calibrate

        failures = calibrate(
            bundle,
            data,
            bundles_dir=bundles_dir,
            fpr=fpr,
            split=split,
            settings=settings,
            weights=weights,
            output=out,
            calibrated_on=calibrated_on,
            device=device,
        )
        for name, error in failures.items():
            print(f"failed: {name}: {error}", file=sys.stderr)
        if failures:
            raise SystemExit(1)

    def record(
        self,
        folder: str,
        id: str | None = None,
        name: str | None = None,
        data: str | None = None,
        command: str | None = None,
        bundles: str = "all",
        bundles_dir: str | None = None,
    ) -> None:
        """Write a comparison, cards or curves into ``docs/results.json`` of the bundles; then ``table --update``.

        Args:
            folder: of the comparison, of the cards, or of the curves.
            id: of the experiment, for a comparison; what was recorded under it before is replaced.
            name: of its rows in the tables; by default as before.
            data: the cases in words; by default how many they are.
            command: that repeats it; by default the one that was given, with names in place of paths.
            bundles: names separated by commas, or all that were compared.
            bundles_dir: the folder that holds the bundles, as of ``list``.
        """
        from common.evaluation.record import record, record_measured

        options: dict[str, Any] = {"data": data, "command": command, "bundles_dir": bundles_dir, "bundles": bundles}
        if not Path(folder, "results.json").is_file():
            files = record_measured(folder, **options)
        elif id is None:
            raise InputError(folder, "is a comparison", "give it an --id, by which tables find it")
        else:
            files = record(folder, name=id, title=name, **options)
        for file in files:
            print(file)

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
        strengths: str = "all",
        device: str | None = None,
        bundles_dir: str | None = None,
    ) -> None:
        """Measure what noise, blur, contrast, masks … and a small attack cost a bundle, and write a card.

        A card that is there is not made again. Of several bundles, one that fails does not stop the others; the exit
        code is then 1.

        Args:
            bundle: name or folder; several with commas between them, or all.
            data: cases with masks; whoever has the label 0 needs none.
            out: folder for robustness.json, robustness.md and robustness.html, by default robustness_BUNDLE; of several
                bundles, for a folder each and summary.md, by default robustness.
            split: of the data set.
            settings: a JSON file of overrides, as of ``compare``.
            weights: in place of the bundles' own: a file, or a folder of sets as of ``compare``.
            max_cases: use the first cases only.
            attack_cases: how many of them to attack; 0 for none.
            strengths: all of them, or the middle one of each kind, which takes a third of the time.
            device: to run on.
            bundles_dir: the folder that holds the bundles, as of ``list``.
        """
        from common.evaluation.robustness import robustness, robustness_of

        options: dict[str, Any] = {
            "bundles_dir": bundles_dir,
            "split": split,
            "settings": settings,
            "weights": weights,
            "max_cases": max_cases,
            "attack_cases": attack_cases,
            "strengths": strengths,
            "device": device,
        }
        if bundle != "all" and "," not in bundle:
            folder = Path(out or f"robustness_{find_bundle(bundles_dir, bundle).name}")
            card = robustness(bundle, data, folder, **options)
            worst = min(card["perturbations"], key=lambda row: row["change"])
            change = f"{worst['kind']} {worst['strength']:g} changes it by {worst['change']:+.3f}"
            print(f"pixel AP {card['clean']['pixel_ap']:.3f}; {change} → {folder / 'robustness.html'}")
            return
        folder = Path(out or "robustness")
        cards, failures = robustness_of(bundle, data, folder, **options)
        if cards:
            print((folder / "summary.md").read_text(encoding="utf-8"))
        if failures:
            raise SystemExit(1)

    def curve(
        self,
        bundle: str,
        data: str,
        out: str = "curve",
        split: str | None = None,
        settings: str | None = None,
        weights: str | None = None,
        points: str | None = None,
        max_cases: int = 40,
        cases_at_once: int = 16,
        device: str | None = None,
        bundles_dir: str | None = None,
    ) -> None:
        """Measure pixel AP and time against network evaluations: the paper's steps, fewer, and the default.

        What is there already is not measured again. Exit code 1 if a bundle failed; the others go on.

        Args:
            bundle: name or folder; several with commas between them, or all.
            data: cases with masks; whoever has the label 0 needs none.
            out: folder, with curve.json and curve.md of each bundle in a folder of its name, and summary.md.
            split: of the data set.
            settings: a JSON file of overrides, as of ``compare``, for all points.
            weights: in place of the bundles' own: a file, or a folder of sets as of ``compare``.
            points: a JSON file of the settings to measure, ``{"thor": {"20 steps": {"num_inference_steps": 20}}}``;
                the first is the reference.
            max_cases: use the first cases only.
            cases_at_once: cases in one batch, where all have one shape.
            device: to run on.
            bundles_dir: the folder that holds the bundles, as of ``list``.
        """
        from common.evaluation.curve import curves

        made, failures = curves(
            bundle,
            data,
            out,
            bundles_dir=bundles_dir,
            split=split,
            settings=settings,
            weights=weights,
            points=points,
            max_cases=max_cases,
            cases_at_once=cases_at_once,
            device=device,
        )
        if made:
            print(Path(out, "summary.md").read_text(encoding="utf-8"))
        if failures:
            raise SystemExit(1)

    def table(self, name: str = "ixi_planted", bundles_dir: str | None = None, update: bool = False) -> None:
        """Print the figures of all bundles in one experiment as a Markdown table, best first.

        Args:
            name: of the experiment, the ``id`` in the bundles' ``docs/results.json``.
            bundles_dir: the folder that holds them, as of ``list``.
            update: instead of printing, bring the tables in README, docs and benchmarks beside that folder and in the
                pages of the bundles up to date, as far as these are there.
        """
        from common.evaluation.table import results_table, update_tables

        folder = bundle_folder(bundles_dir)
        found = [file.parents[1] for file in sorted(folder.glob("*/docs/results.json"))]
        if not update:
            print(results_table(found, name))
            return
        names = ("README.md", "docs/results.md", "docs/comparison.md", "benchmarks/README.md")
        pages = [folder.parent / each for each in names]
        pages += [bundle / "docs" / "README.md" for bundle in found]
        there = [page for page in pages if page.is_file()]
        if not there:
            raise InputError(folder, "has no page with tables", "write docs/README.md of a bundle")
        for page in there:
            update_tables(page, found)
            print(page)
