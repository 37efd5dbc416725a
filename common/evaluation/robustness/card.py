"""How much a bundle loses on worse scans, and under attack."""

from __future__ import annotations

import hashlib
import json
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
from common.evaluation.bundle import (
    BundleRun,
    find_bundle,
    names_file,
    overrides_of,
    read_settings,
    the_process_as_before,
)
from common.evaluation.card_tables import middle
from common.evaluation.comparison.bootstrap import draw_subjects, interval, paired, pixel_ap_of, subjects_of
from common.evaluation.comparison.case import fingerprint
from common.evaluation.comparison.collect import hardware
from common.evaluation.comparison.protocol import OTHER_WEIGHTS, command_of
from common.evaluation.comparison.scores import Scores
from common.evaluation.pool import PooledScores
from common.evaluation.robustness.attack import Attack, describe, equal_noise, path_of
from common.evaluation.robustness.page import write_card
from common.evaluation.robustness.perturbations import PERTURBATIONS, Perturb
from common.files import write_json
from common.networks import select_device
from common.version import __version__

__all__ = ["EPSILONS", "robustness"]

EPSILONS = (0.005, 0.01, 0.02)
"""Largest changes of a pixel by an attack, as shares of the range."""

Case = dict[Hashable, Any]
Chosen = Callable[[Sequence[float]], Sequence[float]]
"""Of the strengths of a kind, those to measure."""


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
    strengths: str = "all",
    draws: int = 1000,
    device: str | None = None,
) -> dict[str, Any]:
    """Measure a bundle on perturbed and attacked cases; write ``robustness.json``, ``.md`` and ``.html``.

    A card that is there already, of the same cases, settings, weights and choices, is not made again.

    Args:
        bundle: name or path.
        dataset_dir: cases with masks, or the label 0.
        output_dir: of the files.
        bundles_dir: the folder of the bundles.
        split: of the data set.
        settings: JSON of overrides (``read_settings``).
        weights: in place of the bundle's own, a file or a folder (``overrides_of``).
        max_cases: use the first cases only; they are all held in memory.
        attack_cases: cases to attack, the first ones; 0 for none.
        strengths: ``all``, or ``middle`` for the middle strength of each kind and of the attack alone.
        draws: of the bootstrap over subjects.
        device: to run on.

    Returns:
        what ``robustness.json`` holds.

    Raises:
        InputError: unusable data or settings, or no lesion in the cases.
    """
    if strengths not in ("all", "middle"):
        raise InputError(f"strengths '{strengths}'", "are not known", "choose 'all' or 'middle'")
    folder = find_bundle(bundles_dir, bundle)
    overrides = overrides_of(folder, read_settings(settings), weights)
    listed = load_cases(dataset_dir, split, channels=None, truth="mask", twins=False)[:max_cases]
    with the_process_as_before():
        run = BundleRun(folder, dataset_dir, split, overrides, device=device)
        choices = [max_cases, attack_cases, strengths, draws, run.get("clean").threshold]
        identity = _identity([run.key, *map(fingerprint, listed), *choices])
        done = _stored(Path(output_dir) / "robustness.json")
        if done.get("identity") == identity:
            return done
        bench = _Bench(run, run.evaluator(listed), draws)
        chosen: Chosen = middle if strengths == "middle" else tuple
        card = _measure(bench, chosen, attack_cases, lambda: _one_step(folder, dataset_dir, split, overrides, device))
        stated = {key: value for key, value in run.get("protocol", {}).items() if key != "threshold_from"}
        where = hardware(select_device(run.get("device", "auto")), bench.inferer)
    words = {"split": split, "max_cases": max_cases, "attack_cases": attack_cases, "strengths": strengths}
    protocol = {
        **stated,
        "weights_sha256": run.weights_sha256,
        "overrides": {key: value for key, value in overrides.items() if not names_file(key)},
        "draws": draws,
        "unit": "subject",
        **words,
        "hardware": where,
        "version": __version__,
    }
    if "weights" in overrides:
        protocol["training_set"] = OTHER_WEIGHTS
    card = {
        "bundle": folder.name,
        "data": Path(dataset_dir).resolve().name,
        "command": command_of("robustness", {"bundle": folder.name, **words, "weights": weights, "settings": settings}),
        **card,
        "protocol": protocol,
        "identity": identity,
    }
    write_json(Path(output_dir) / "robustness.json", card)
    write_card(Path(output_dir), card)
    return card


class _Bench:
    """Preprocessed cases, and the bundle's evaluator to run on changed copies of them."""

    def __init__(self, run: BundleRun, evaluator: Any, draws: int) -> None:
        self.evaluator, self.dataset, self.draws = evaluator, run.get("dataset"), draws
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


def _measure(bench: _Bench, chosen: Chosen, attack_cases: int, short: Callable[[], Any]) -> dict[str, Any]:
    clean = _Reference(bench.score("as they are", bench.cases), bench.draws)
    table = []
    for perturbation in PERTURBATIONS:
        for strength in chosen(perturbation.strengths):
            change = Perturb(perturbation, strength)
            scores = bench.score(f"{perturbation.name} {strength:g}", bench.cases, change)
            about = {"kind": perturbation.name, "strength": strength, "unit": perturbation.unit}
            table.append({**about, "meaning": perturbation.meaning, **clean.change(scores)})
    card: dict[str, Any] = {
        "cases": len(bench.cases),
        "subjects": len(subjects_of(clean.scores)),
        "clean": clean.numbers(),
        "perturbations": table,
        "attack": None,
    }
    attacked = bench.cases[:attack_cases]
    if any(bool(case["mask"].any()) for case in attacked):
        card["attack"] = _attack(bench, attacked, chosen(EPSILONS), short)
    return card


def _attack(
    bench: _Bench, cases: Sequence[Case], epsilons: Sequence[float], short: Callable[[], Any]
) -> dict[str, Any]:
    inferer, path = path_of(bench.inferer, short())
    for parameter in getattr(bench.network, "parameters", list)():
        parameter.requires_grad_(False)
    attack = Attack(inferer, bench.network, bench.seed)
    clean = _Reference(bench.score("attack: as they are", cases), bench.draws)
    rows = []
    for epsilon in epsilons:
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
        row["attack"] = clean.change(bench.score(f"attack, ε {epsilon:g}", changed))
        row["noise"] = clean.change(bench.score(f"noise as large, ε {epsilon:g}", noisy))
        rows.append(row)
    return {"method": describe(attack, path), "cases": len(cases), "clean": clean.numbers(), "rows": rows}


class _Reference:
    """What changes are changes of: the scores as they are, and their pixel AP on the draws of all others."""

    def __init__(self, scores: Scores, draws: int) -> None:
        self.scores = scores
        self.drawn = draw_subjects(len(subjects_of(scores)), draws)
        self.before = pixel_ap_of(scores, self.drawn)

    def numbers(self) -> dict[str, Any]:
        """Its own."""
        return {**_numbers(self.scores), "interval": interval(self.before)}

    def change(self, scores: Scores) -> dict[str, Any]:
        """Numbers, and what the pixel AP has changed by."""
        after, numbers = pixel_ap_of(scores, self.drawn), _numbers(scores)
        difference = numbers["pixel_ap"] - self.scores.pool.scores.average_precision()
        return {
            **numbers,
            "interval": interval(after),
            "change": difference,
            "change_interval": paired(after, self.before)["interval"],
        }


def _numbers(scores: Scores) -> dict[str, Any]:
    summary = scores.pool.summary()
    keys = ("pixel_ap", "oracle_dice", "dice", "healthy_fpr", "prevalence", "intensity_ap")
    return {key: summary[key] for key in keys}


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


def _identity(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps([__version__, *parts], default=str).encode()).hexdigest()[:16]


def _stored(file: Path) -> dict[str, Any]:
    """The card that is there; nothing without one that can be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _plain(value: Tensor) -> Tensor:
    return torch.as_tensor(value).as_subclass(Tensor).detach().cpu()
