"""What is calibrated on healthy scans must see healthy scans alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.errors import InputError

__all__ = ["refuse_lesions"]


def refuse_lesions(case: Mapping[str, Any]) -> None:
    """Stop unless a case is healthy, as far as its label and mask say.

    Raises:
        InputError: it has a lesion.
    """
    if case.get("label", 0) or ("mask" in case and bool(case["mask"].any())):
        raise InputError(case["case"], "has a lesion", "calibrate on healthy scans only (give their --split)")
