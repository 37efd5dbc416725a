"""A bundle of a few kilobytes, for tests of what happens to its files."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from common.networks import save_weights


def write_bundle(folder: Path, name: str = "tiny", version: str = "0.1.0") -> Path:
    """Write what a release needs, and what must not get into it."""
    bundle = folder / name
    metadata = {"version": version, "changelog": {version: "first"}, "supervision": "weakly supervised"}
    texts = {
        "LICENSE": "Apache License, Version 2.0\n",
        "configs/metadata.json": json.dumps(metadata),
        "configs/inference.json": "{}",
        "docs/README.md": "# Tiny\n",
        "docs/data_license.txt": "Licence: Creative Commons (CC BY-SA 3.0)\n",
        "tiny_inferer.py": "X = 1\n",
        "runs/model.pt": "a result",
        "eval/a.nii.gz": "a result",
        "configs/__pycache__/a.pyc": "compiled",
        "configs/.hidden": "hidden",
        "models/model.pt.partial": "half",
        "notes.txt": "of the author",
    }
    for file, text in texts.items():
        (bundle / file).parent.mkdir(parents=True, exist_ok=True)
        (bundle / file).write_text(text)
    torch.manual_seed(0)
    save_weights(nn.Linear(3, 2), bundle / "models" / "model.pt")
    return bundle


OWN_FILES = {
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "configs/inference.json",
    "configs/metadata.json",
    "docs/README.md",
    "docs/data_license.txt",
    "models/SHA256SUMS",
    "models/model.pt",
    "tiny_inferer.py",
}
