"""Reading and writing network weights: plain state dicts, checked against the hashes that lie beside them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.files import sha256, write_atomic

__all__ = ["HASH_FILE", "check_weights", "load_weights", "save_weights", "sha256"]

HASH_FILE = "SHA256SUMS"
Network = TypeVar("Network", bound=nn.Module)


def check_weights(path: str | Path) -> None:
    """Stop unless the file exists and is the one that ``SHA256SUMS`` beside it names.

    Raises:
        InputError: no such file, or its hash differs. A file that ``SHA256SUMS`` does not name is not checked.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file of weights", "give the path of one, train, or download the bundle again")
    expected = _read_hashes(path.parent).get(path.name)
    if expected is not None and sha256(path) != expected:
        raise InputError(
            path,
            f"SHA-256 differs from the one in {HASH_FILE}",
            "the file is damaged or was replaced: download it again, or write it with common.networks.save_weights",
        )


def load_weights(network: Network, path: str | Path, *, partly: bool = False) -> Network:
    """Load a state dict into ``network`` (in place) and return it in evaluation mode.

    Args:
        network: its parameters may have another floating-point type than the file.
        path: of a file written by ``torch.save(state_dict)``; only tensors are read, never code.
        partly: the file may be of a related network: what has the same name and shape is taken, the rest stays as
            it is. Where a layer has more input channels than the one in the file, its first ones are taken from there.

    Raises:
        InputError: missing file, wrong hash, unreadable file, values that are not finite, or another network's weights;
            partly, less than half of the parameters in the file.
    """
    check_weights(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(path, f"cannot be read as weights ({reason})", "download or write it again") from error
    if partly:
        own = network.state_dict()
        shared = {key: _fitted(value, own[key]) for key, value in state.items() if key in own}
        shared = {key: value for key, value in shared.items() if value.shape == own[key].shape}
        if 2 * len(shared) < len(own):
            problem = f"shares {len(shared)} of the network's {len(own)} tensors"
            raise InputError(path, problem, "begin with weights of a related network, or with none")
        state = {**own, **shared}
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = str(error).splitlines()
        raise InputError(
            path, "holds weights of another network: " + " ".join(lines[:3]), "check network_def in the config"
        ) from error
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise InputError(path, f"holds values in '{name}' that are not finite", "download it again, or train anew")
    return network.eval()


def _fitted(value: Tensor, own: Tensor) -> Tensor:
    """``value`` itself, or ``own`` with its first input channels replaced, if it only has more of them."""
    same = value.ndim == own.ndim > 1 and value.shape[0] == own.shape[0] and value.shape[2:] == own.shape[2:]
    if not same or value.shape[1] >= own.shape[1]:
        return value
    filled = own.clone()
    filled[:, : value.shape[1]] = value
    return filled


def save_weights(network: nn.Module, path: str | Path, dtype: torch.dtype = torch.float16) -> str:
    """Write the state dict with floating-point tensors as ``dtype``, and its hash to ``SHA256SUMS`` beside it.

    Both files appear whole or not at all. Returns the hash.
    """
    path = Path(path)
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    buffer = io.BytesIO()  # with a path, a full disk ends the process
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())
    digest = sha256(path)
    hashes = _read_hashes(path.parent) | {path.name: digest}
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(hashes.items()))
    write_atomic(path.parent / HASH_FILE, lines.encode())
    return digest


def _read_hashes(folder: Path) -> dict[str, str]:
    file = folder / HASH_FILE
    lines = file.read_text().splitlines() if file.is_file() else []
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines if line.strip())}
