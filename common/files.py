"""Writing files that are whole or not there, and the hashes of files."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import InputError

__all__ = ["check_writable", "sha256", "write_atomic", "write_json"]


def check_writable(folder: str | Path) -> None:
    """Make a folder, with its parents, and show that files can be written into it.

    Args:
        folder: what is written for the check is removed; the folder stays.

    Raises:
        InputError: it cannot be made, or no file can be written.
    """
    probe = Path(folder) / f".probe.{os.getpid()}.tmp"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(folder, "cannot be written", "give another folder, or its rights") from error


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, obj: Any) -> None:
    """Write an object as JSON, atomically.

    Args:
        path: the file.
        obj: mappings, sequences, numbers, strings, paths, arrays and tensors. NaN and infinity, which JSON has no
            word for, become null.
    """
    write_atomic(path, (json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _plain(obj: Any) -> Any:
    """The object in JSON's own types."""
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    if isinstance(obj, (np.ndarray, np.generic, torch.Tensor)):
        return _plain(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return str(obj) if isinstance(obj, Path) else obj
