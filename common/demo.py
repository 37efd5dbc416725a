"""The demo: a lesion drawn into the ICBM 152 brain, looked for by a bundle, and what came out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.filebasedimages import ImageFileError

from common.data.brain_mask import MNI_AFFINE, mni_brain_mask
from common.data.lesions import blob, plant, tissue
from common.data.transforms import RobustIntensityd
from common.errors import InputError
from common.evaluation import evaluate_map
from common.evaluation.report import case_figure, write_report
from common.files import check_writable, write_atomic, write_json

__all__ = ["CASE", "demo_scan", "run"]

CASE = "icbm152"
_REPOSITORY = Path(__file__).resolve().parents[1]
_CENTRE_MM = (-32.0, -12.0, 23.0)  # left white matter beside the ventricle, at the level that the weights know
_RADIUS_MM = 11.0
_CONTRAST = -0.35  # about -0.3 once the darkest tissue bounds it
_MNI152 = 4  # NIfTI code
_RESULTS = ("anomaly_map", "anomaly_mask", "pseudo_healthy")


def demo_scan(folder: str | Path) -> dict[str, Any]:
    """Write the ICBM 152 T1 template with a dark, soft-edged lesion in the white matter of the left hemisphere.

    Args:
        folder: gets ``icbm152_t1.nii.gz`` (197, 233, 189) int16 at 1 mm, ``icbm152_lesion.nii.gz`` and
            ``icbm152_brain_mask.nii.gz`` (uint8), all marked as MNI space, and ``datalist.json``.

    Returns:
        the case: ``image``, ``mask`` and ``brain_mask`` (paths), ``case`` and ``label``.

    Raises:
        InputError: the package that carries the template is not installed.

    Source: Fonov et al. 2009, ICBM 152 nonlinear symmetric 2009a, as shipped with nilearn.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        raise InputError("demo", "needs the package nilearn", "pip install nilearn") from error
    template = datasets.load_mni152_template(resolution=1)
    image = np.rint(1000 * np.asarray(template.dataobj)).astype(np.int16)
    brain = mni_brain_mask(image.shape, template.affine)
    generator = np.random.default_rng(0)
    centre = np.array(_CENTRE_MM) - MNI_AFFINE[:3, 3]
    lesion = blob(image.shape, centre.tolist(), _RADIUS_MM, generator) & tissue(image, brain, _CONTRAST)
    image = plant(image, lesion, contrast=_CONTRAST, brain_mask=brain, generator=generator)

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = {"image": f"{CASE}_t1.nii.gz", "mask": f"{CASE}_lesion.nii.gz", "brain_mask": f"{CASE}_brain_mask.nii.gz"}
    for name, array in zip(names.values(), (image, lesion.astype(np.uint8), brain.astype(np.uint8)), strict=True):
        file = nibabel.Nifti1Image(array, template.affine)
        file.set_sform(template.affine, code=_MNI152)
        file.set_qform(template.affine, code=_MNI152)
        file.header.set_xyzt_units("mm")
        nibabel.save(file, folder / name)
    write_json(folder / "datalist.json", [{**names, "case": CASE, "label": 1}])
    return {**{key: str(folder / name) for key, name in names.items()}, "case": CASE, "label": 1}


def run(
    output_dir: str | Path = "demo_output", bundle: str = "thor", num_inference_steps: int | None = None
) -> dict[str, Any]:
    """Write the demo scan, let a bundle look for the lesion as a user would, and score and show what it found.

    Args:
        output_dir: gets the scan (in ``scan``), what the bundle writes, ``summary.json``, ``figure.png`` and
            ``report.html``.
        bundle: name of a folder of ``bundles`` in the repository.
        num_inference_steps: of its sampler; None leaves the bundle's own number.

    Returns:
        what ``summary.json`` holds: numbers over the slices that the bundle processed, inside the brain.

    Raises:
        InputError: no such bundle, a folder that cannot be written, a bundle that failed or did not write what it
            should.
    """
    output = Path(output_dir).expanduser().resolve()
    root = _REPOSITORY / "bundles" / bundle
    config = root / "configs" / "inference.json"
    if not config.is_file():
        raise InputError(config, "does not exist", "name a bundle of this repository (anomaly-zoo list)")
    check_writable(output)
    case = demo_scan(output / "scan")
    _run_bundle(root, config, output, num_inference_steps)
    arrays, levels = _read(output, case)
    details = _details(output)
    map_, truth, brain = arrays["anomaly_map"], arrays["mask"], arrays["brain_mask"]
    scores = evaluate_map(map_, truth, brain, arrays["image"])
    summary = {
        "anomaly_ap": scores["pixel_ap"],
        "intensity_ap": scores["intensity_ap"],
        "dice": evaluate_map(arrays["anomaly_mask"], truth, brain, threshold=0.5)["dice"],
        "oracle_dice": scores["oracle_dice"],
        "prevalence": scores["prevalence"],
        "slices": len(levels),
        **{key: details[key] for key in ("seconds", "network_evaluations", "network_evaluations_per_slice")},
        "bundle": bundle,
    }
    write_json(output / "summary.json", summary)
    _report(output, arrays, levels, summary)
    print(
        f"The demo is done: open {output / 'report.html'} (AP {summary['anomaly_ap']:.3f}, intensity alone "
        f"{summary['intensity_ap']:.3f}, Dice {summary['dice']:.3f}; {summary['network_evaluations']} network "
        f"evaluations in {summary['seconds']:.0f} s)",
        flush=True,
    )
    return summary


def _run_bundle(root: Path, config: Path, output: Path, num_inference_steps: int | None) -> None:
    """Call ``python -m monai.bundle run``; what it prints passes through."""
    for name in [*(f"{CASE}_{result}.nii.gz" for result in _RESULTS), "run.json"]:
        (output / name).unlink(missing_ok=True)  # a result of an earlier run must not pass for one of this
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config), "--bundle_root", str(root)]
    command += ["--dataset_dir", str(output / "scan"), "--output_dir", str(output)]
    if num_inference_steps is not None:
        command += ["--num_inference_steps", str(num_inference_steps)]
    path = os.pathsep.join(filter(None, [str(_REPOSITORY), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, cwd=_REPOSITORY, env={**os.environ, "PYTHONPATH": path}, check=False)
    if done.returncode:
        raise InputError(f"bundle '{root.name}'", f"ended with exit code {done.returncode}", "see its messages above")


def _read(output: Path, case: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scan and results on the slices that were processed, for display, and the levels of these slices in mm.

    Arrays are float32 (x to the right, y to the back, z upwards); the image is scaled as for the network.
    """
    files = {key: Path(case[key]) for key in ("image", "mask", "brain_mask")}
    files |= {name: output / f"{CASE}_{name}.nii.gz" for name in _RESULTS}
    arrays, affine, shape = {}, None, None
    for key, file in files.items():
        try:
            loaded: Any = nibabel.load(file)
            arrays[key] = np.asarray(loaded.dataobj, dtype=np.float32)[:, ::-1]
        except (OSError, EOFError, ValueError, ImageFileError) as error:
            raise InputError(file, f"cannot be read ({error})", "see the messages of the bundle") from error
        affine, shape = (loaded.affine, loaded.shape) if affine is None else (affine, shape)
        if loaded.shape != shape or not np.allclose(loaded.affine, affine, atol=1e-3):
            raise InputError(file, "is not in the geometry of the scan", "let the bundle invert its preprocessing")
    used = np.flatnonzero((arrays["pseudo_healthy"] != 0).any(axis=(0, 1)))
    if not len(used):
        raise InputError(files["pseudo_healthy"], "is empty", "let the bundle process the level of the lesion")
    arrays = {key: array[..., used] for key, array in arrays.items()}
    image = MetaTensor(torch.from_numpy(arrays["image"][None].copy()))
    scan: dict[Hashable, Any] = {"image": image, "brain_mask": arrays["brain_mask"][None]}
    arrays["image"] = np.asarray(RobustIntensityd("image")(scan)["image"])[0]
    return arrays, MNI_AFFINE[2, 3] + used


def _details(output: Path) -> dict[str, Any]:
    file = output / "run.json"
    try:
        details = json.loads(file.read_text(encoding="utf-8"))
        missing = {"seconds", "network_evaluations", "network_evaluations_per_slice"} - details.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(file, f"cannot be read ({error})", "see the messages of the bundle") from error
    if missing:
        raise InputError(file, f"lacks {sorted(missing)}", "let the bundle write them")
    return details


def _report(output: Path, arrays: dict[str, np.ndarray], levels: np.ndarray, summary: dict[str, Any]) -> None:
    """Write ``report.html``, and the slice with most lesion as ``figure.png``."""
    main = int(arrays["mask"].sum(axis=(0, 1)).argmax())
    vmax = float(np.percentile(arrays["anomaly_map"][arrays["brain_mask"] > 0], 99.9))
    x, y = (np.flatnonzero((arrays["brain_mask"] > 0).any(axis=axes)) for axes in ((1, 2), (0, 2)))
    box = slice(max(0, x[0] - 3), x[-1] + 4), slice(max(0, y[0] - 3), y[-1] + 4)
    names = ("image", "pseudo_healthy", "anomaly_map", "mask", "anomaly_mask")
    rows, figures = [], []
    for index in dict.fromkeys([main, 0, len(levels) - 1]):
        image, pseudo_healthy, map_, truth, detected = (arrays[name][*box, index] for name in names)
        figures.append(case_figure(image, pseudo_healthy, map_, truth, detected, vmax=vmax))
        rows.append({"case": f"{CASE}, z = {levels[index]:+.0f} mm", "figure": figures[-1]})
    write_atomic(output / "figure.png", figures[0])
    numbers = {"pixel_ap": summary["anomaly_ap"], **{key: summary[key] for key in summary if key != "anomaly_ap"}}
    notes = (
        "The scan is the ICBM 152 T1 template with a synthetic lesion, so the truth is known. One scan, one lesion: "
        "this shows that everything works, not how good the method is on patients.",
        f"Scored are the {len(levels)} slices from {levels[0]:+.0f} to {levels[-1]:+.0f} mm that the bundle processed, "
        "inside the brain mask. All figures share one colour scale.",
    )
    write_report(output / "report.html", f"Demo of the bundle {summary['bundle']}", rows, numbers, notes)
