"""How much a bundle loses on worse scans, and under attack."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor
from tqdm import tqdm

from common.data import load_cases
from common.diffusion import case_seed
from common.errors import InputError
from common.evaluation.bundle import BundleRun, find_bundle, overrides_of, read_settings, the_process_as_before
from common.evaluation.comparison.bootstrap import draw_subjects, interval, metrics_of, paired, subjects_of
from common.evaluation.comparison.scores import Scores
from common.evaluation.pool import PooledScores
from common.evaluation.robustness.attack import Attack, describe, equal_noise, path_of
from common.evaluation.robustness.page import write_card
from common.evaluation.robustness.perturbations import PERTURBATIONS, Perturb
from common.files import write_json
from common.version import __version__

__all__ = ["EPSILONS", "robustness"]

EPSILONS = (0.005, 0.01, 0.02)
"""Largest changes of a pixel by an attack, as shares of the range."""

Case = dict[Hashable, Any]


def robustness(
    bundle: str,
    dataset_dir: str,
    output_dir: str | Path,
    *,
    bundles_dir: Path,
    split: str | None = None,
    settings: str | None = None,
    weights: str | None = None,
    max_cases: int | None = 40,
    attack_cases: int = 20,
    draws: int = 1000,
    device: str | None = None,
) -> dict[str, Any]:
    """Measure a bundle on perturbed and attacked cases; write ``robustness.json``, ``.md`` and ``.html``.

    Args:
        bundle: name or path.
        dataset_dir: cases with masks, or the label 0.
        output_dir: of the files.
        bundles_dir: the folder of the bundles.
        split: of the data set.
        settings: JSON of overrides (``read_settings``).
        weights: a file, in place of the bundle's own; then there is no threshold, unless the settings name one.
        max_cases: use the first cases only; they are all held in memory.
        attack_cases: cases to attack, the first ones; 0 for none.
        draws: of the bootstrap over subjects.
        device: to run on.

    Returns:
        what ``robustness.json`` holds.

    Raises:
        InputError: unusable data or settings, or no lesion in the cases.
    """
    folder = find_bundle(bundles_dir, bundle)
    overrides = overrides_of(folder, read_settings(settings))
    if weights is not None:
        overrides = {"threshold": None, **overrides, "weights": str(Path(weights).resolve())}
    listed = load_cases(dataset_dir, split, channels=None, truth="mask")[:max_cases]
    with the_process_as_before():
        run = BundleRun(folder, dataset_dir, split, overrides, device=device)
        bench = _Bench(run, run.evaluator(listed))
        card = _measure(bench, attack_cases, draws, lambda: _one_step(folder, dataset_dir, split, overrides, device))
        protocol = {**run.get("protocol", {}), "weights_sha256": run.weights_sha256, "version": __version__}
    card = {"bundle": folder.name, "data": Path(dataset_dir).resolve().name, "split": split, **card}
    card["protocol"] = {**protocol, "draws": draws, "unit": "subject", "max_cases": max_cases}
    write_json(Path(output_dir) / "robustness.json", card)
    write_card(Path(output_dir), card)
    return card


class _Bench:
    """Preprocessed cases, and the bundle's evaluator to run on changed copies of them."""

    def __init__(self, run: BundleRun, evaluator: Any) -> None:
        self.evaluator, self.dataset = evaluator, run.get("dataset")
        self.threshold, self.seed = run.get("clean").threshold, int(run.get("seed", 0))
        self.inferer, self.network = run.get("inferer"), run.get("network")
        self.cases: list[Case] = [
            {**case, "region": case["brain_mask"]} for case in tqdm(self.dataset, desc="Preparing", leave=False)
        ]
        if not any(bool(case["mask"].any()) for case in self.cases):
            raise InputError("robustness", "no case has a lesion", "give cases with masks")
        self.scores = Scores("", PooledScores())
        self.bar: Any = None
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._add)

    def score(self, name: str, cases: Sequence[Case], change: Callable[[Case], Case] | None = None) -> Scores:
        """The scores of the bundle on these cases, each changed first."""
        self.scores = Scores(name, PooledScores(self.threshold, keep=True))
        self.dataset.data, self.dataset.transform = list(cases), change or dict
        self.evaluator.state.epoch_length = len(cases)  # the evaluator asked for it when it was made
        with tqdm(total=len(cases), desc=name, leave=False) as self.bar:
            self.evaluator.run()
        return self.scores

    def _add(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for case, result in zip(batch, output, strict=True):
            arrays = [_plain(each) for each in (result["anomaly_map"], case["mask"], case["region"], case["image"])]
            row = self.scores.pool.add(str(case["case"]), *arrays)
            self.scores.rows.append({**row, "subject": str(case.get("subject", case["case"]))})
            self.bar.update()


def _measure(bench: _Bench, attack_cases: int, draws: int, short: Callable[[], Any]) -> dict[str, Any]:
    clean = bench.score("as they are", bench.cases)
    drawn = draw_subjects(len(subjects_of(clean)), draws)
    table = []
    for perturbation in PERTURBATIONS:
        for strength in perturbation.strengths:
            change = Perturb(perturbation, strength)
            scores = bench.score(f"{perturbation.name} {strength:g}", bench.cases, change)
            about = {"kind": perturbation.name, "strength": strength, "unit": perturbation.unit}
            table.append({**about, "meaning": perturbation.meaning, **_change(scores, clean, drawn)})
    card: dict[str, Any] = {
        "cases": len(bench.cases),
        "subjects": len(subjects_of(clean)),
        "clean": _numbers(clean, drawn),
        "perturbations": table,
        "attack": None,
    }
    chosen = bench.cases[:attack_cases]
    if any(bool(case["mask"].any()) for case in chosen):
        card["attack"] = _attack(bench, chosen, draws, short)
    return card


def _attack(bench: _Bench, cases: Sequence[Case], draws: int, short: Callable[[], Any]) -> dict[str, Any]:
    inferer, path = path_of(bench.inferer, short())
    for parameter in getattr(bench.network, "parameters", list)():
        parameter.requires_grad_(False)
    attack = Attack(inferer, bench.network, bench.seed)
    clean = bench.score("attack: as they are", cases)
    drawn = draw_subjects(len(subjects_of(clean)), draws)
    rows = []
    for epsilon in EPSILONS:
        changed: list[Case] = []
        noisy: list[Case] = []
        for case in tqdm(cases, desc=f"Attacking, ε {epsilon:g}", leave=False):
            image, region = case["image"], case["brain_mask"]
            found = attack(image, region, case["mask"], str(case["case"]), epsilon)
            beside = equal_noise(image, found, region, case_seed(bench.seed, case["case"], "noise"))
            changed.append({**case, "image": image.clone().copy_(found)})
            noisy.append({**case, "image": image.clone().copy_(beside)})
        norms = [float((after["image"] - case["image"]).norm()) for after, case in zip(changed, cases, strict=True)]
        row: dict[str, Any] = {"epsilon": epsilon, "l2_mean": float(np.mean(norms))}
        row["attack"] = _change(bench.score(f"attack, ε {epsilon:g}", changed), clean, drawn)
        row["noise"] = _change(bench.score(f"noise as large, ε {epsilon:g}", noisy), clean, drawn)
        rows.append(row)
    return {"method": describe(attack, path), "cases": len(cases), "clean": _numbers(clean, drawn), "rows": rows}


def _numbers(scores: Scores, drawn: np.ndarray) -> dict[str, Any]:
    summary = scores.pool.summary()
    keys = ("pixel_ap", "oracle_dice", "dice", "healthy_fpr", "prevalence", "intensity_ap")
    numbers: dict[str, Any] = {key: summary[key] for key in keys}
    return {**numbers, "interval": interval(metrics_of(scores, drawn)["pixel_ap"])}


def _change(scores: Scores, clean: Scores, drawn: np.ndarray) -> dict[str, Any]:
    """Numbers, and what the pixel AP has changed by."""
    after, before = (metrics_of(each, drawn)["pixel_ap"] for each in (scores, clean))
    difference = scores.pool.scores.average_precision() - clean.pool.scores.average_precision()
    return {**_numbers(scores, drawn), "change": difference, "change_interval": paired(after, before)["interval"]}


def _one_step(
    folder: Path, dataset_dir: str, split: str | None, overrides: Mapping[str, Any], device: str | None
) -> Any | None:
    """The bundle's inferer with a single step; none where the method has no such setting, or refuses it."""
    try:
        one = {**overrides, "num_inference_steps": 1}
        run = BundleRun(folder, dataset_dir, split, one, device=device)
        return run.get("inferer") if "num_inference_steps" in run.parser.get("settings", {}) else None
    except (InputError, RuntimeError):
        return None


def _plain(value: Tensor) -> Tensor:
    return torch.as_tensor(value).as_subclass(Tensor).detach().cpu()
