"""How much a bundle loses on worse scans, and under attack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.bundles import find_bundle
from common.data import dataset_name, load_cases
from common.diffusion import case_seed
from common.errors import InputError
from common.evaluation.bench import Bench, PreparedCase
from common.evaluation.bundle import (
    BundleRun,
    names_file,
    overrides_of,
    settings_for,
    the_process_as_before,
)
from common.evaluation.card_tables import middle
from common.evaluation.comparison.bootstrap import draw_subjects, interval, paired, pixel_ap_of, subjects_of
from common.evaluation.comparison.case import fingerprint
from common.evaluation.comparison.collect import hardware
from common.evaluation.comparison.protocol import command_of
from common.evaluation.comparison.scores import Scores
from common.evaluation.origin import OTHER_WEIGHTS
from common.evaluation.robustness.attack import Attack, describe, equal_noise, path_of
from common.evaluation.robustness.page import write_card
from common.evaluation.robustness.perturbations import PERTURBATIONS, Perturb
from common.files import check_writable, write_json
from common.networks import select_device
from common.options import choice
from common.version import __version__

__all__ = ["EPSILONS", "robustness"]

EPSILONS = (0.005, 0.01, 0.02)
"""Largest changes of a pixel by an attack, as shares of the range."""

Chosen = Callable[[Sequence[float]], Sequence[float]]
"""Of the strengths of a kind, those to measure."""


def robustness(
    bundle: str,
    dataset_dir: str,
    output_dir: str | Path,
    *,
    bundles_dir: str | Path | None = None,
    split: str | None = None,
    settings: str | None = None,
    weights: str | None = None,
    max_cases: int | None = 40,
    attack_cases: int = 20,
    strengths: str = "all",
    draws: int = 1000,
    device: str | None = None,
    among: Sequence[Path] = (),
) -> dict[str, Any]:
    """Measure a bundle on perturbed and attacked cases; write ``robustness.json``, ``.md`` and ``.html``.

    A card that is there already, of the same cases, settings, weights and choices, is not made again.

    Args:
        bundle: name or path.
        dataset_dir: cases with masks, or the label 0.
        output_dir: of the files.
        bundles_dir: the folder of the bundles, as of ``bundle_folder``.
        split: of the data set.
        settings: JSON of overrides (``settings_for``).
        weights: in place of the bundle's own, a file or a folder (``overrides_of``).
        max_cases: use the first cases only; they are all held in memory.
        attack_cases: cases to attack, the first ones; 0 for none.
        strengths: ``all``, or ``middle`` for the middle strength of each kind and of the attack alone.
        draws: of the bootstrap over subjects.
        device: to run on.
        among: the bundles that the settings are for, where these are more than the one.

    Returns:
        what ``robustness.json`` holds.

    Raises:
        InputError: unusable data or settings, no lesion in the cases, or a folder that cannot be written.
    """
    choice("strengths", strengths, ("all", "middle"))
    folder = find_bundle(bundles_dir, bundle)
    overrides = overrides_of(folder, settings_for(among or [folder], settings), weights)
    listed = load_cases(dataset_dir, split, channels=None, truth="mask", twins=False)[:max_cases]
    with the_process_as_before():
        run = BundleRun(folder, dataset_dir, split, overrides, device=device)
        choices = [max_cases, attack_cases, strengths, draws, run.get("clean").threshold]
        identity = _identity([run.key, *map(fingerprint, listed), *choices])
        done = _stored(Path(output_dir) / "robustness.json")
        if done.get("identity") == identity and (Path(output_dir) / "robustness.html").is_file():
            return done
        check_writable(output_dir)
        bench = Bench(run, listed)
        chosen: Chosen = middle if strengths == "middle" else tuple
        short = partial(_one_step, folder, dataset_dir, split, overrides, device)
        card = _measure(bench, draws, chosen, attack_cases, short)
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
        "data": dataset_name(dataset_dir),
        "command": command_of("robustness", {"bundle": folder.name, **words, "weights": weights, "settings": settings}),
        **card,
        "protocol": protocol,
        "identity": identity,
    }
    write_json(Path(output_dir) / "robustness.json", card)
    write_card(Path(output_dir), card)
    return card


def _measure(bench: Bench, draws: int, chosen: Chosen, attack_cases: int, short: Callable[[], Any]) -> dict[str, Any]:
    clean = _Reference(bench.score("as they are"), draws)
    table = []
    for perturbation in PERTURBATIONS:
        for strength in chosen(perturbation.strengths):
            change = Perturb(perturbation, strength)
            scores = bench.score(f"{perturbation.name} {strength:g}", change=change)
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
        card["attack"] = _attack(bench, draws, attacked, chosen(EPSILONS), short)
    return card


def _attack(
    bench: Bench, draws: int, cases: Sequence[PreparedCase], epsilons: Sequence[float], short: Callable[[], Any]
) -> dict[str, Any]:
    inferer, path = path_of(bench.inferer, short())
    for parameter in getattr(bench.network, "parameters", list)():
        parameter.requires_grad_(False)
    attack = Attack(inferer, bench.network, bench.seed)
    clean = _Reference(bench.score("attack: as they are", cases), draws)
    rows = []
    for epsilon in epsilons:
        changed: list[PreparedCase] = []
        noisy: list[PreparedCase] = []
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
