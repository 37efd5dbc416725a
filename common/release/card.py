"""The page of a bundle as the Hugging Face Hub reads it: its README behind a header in YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["model_card"]

_CREATIVE_COMMONS = re.compile(r"\bCC (BY(?:-[A-Z]{2})*)[ -](\d\.\d)\b")


def model_card(bundle: Path, metadata: Mapping[str, Any]) -> str:
    """``docs/README.md`` with licences, tags and the library in front, for the root of a repository on the Hub.

    MONAI's own ``push_to_hf_hub`` would call the weights Apache-2.0, as the code is.

    Args:
        bundle: its folder, with ``docs/README.md`` and ``docs/data_license.txt``.
        metadata: its metadata.
    """
    import yaml  # of who makes releases; who has one may lack it

    weights = _CREATIVE_COMMONS.search((bundle / "docs" / "data_license.txt").read_text(encoding="utf-8"))
    licences = ["apache-2.0"]
    if weights:
        licences.append(f"cc-{weights[1]}-{weights[2]}".lower())
    tags = ["monai", "medical", "diffusion", "anomaly-detection", "anomaly-localization"]
    if supervision := metadata.get("supervision"):
        tags.append(str(supervision).replace(" ", "-"))
    header = {
        "library_name": "monai",
        "license": licences if len(licences) > 1 else licences[0],
        "pipeline_tag": "image-segmentation",
        "tags": tags,
    }
    page = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n{page}"
