"""Networks of a bundle, and inputs for them made from what its metadata say."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from common.errors import InputError
from common.networks import load_weights

__all__ = ["NetworkInput", "example", "inputs_of", "load_network", "network_names"]

_MULTIPLE = re.compile(r"(?:(\d+)\s*\*\s*)?n")
_SHAPE = re.compile(r"\(B((?:, *(?:\d+|[xyz]))*),?\)")
_RANGE = re.compile(r"integers from (\d+) to (\d+)")
_UNKNOWN = 16  # an axis of any length is taken to want a multiple of this


class NetworkInput(NamedTuple):
    """An input of a network as the metadata describe it.

    Args:
        name: in the metadata.
        argument: of the network's ``forward``.
        sizes: of the axes behind the batch: a number, or ``("x", 8)`` for a free size, any multiple of 8, shared by
            all axes of that letter.
        integers: lowest and highest value of an input of integers; ``None`` for numbers from -1 to 1.
    """

    name: str
    argument: str
    sizes: tuple[int | tuple[str, int], ...]
    integers: tuple[int, int] | None


def network_names(config: Mapping[str, Any]) -> list[str]:
    """The networks of a config that have weights of their own: top-level ``<name>_def``."""
    names = [key for key, value in config.items() if key.endswith("_def") and isinstance(value, dict)]
    return [name for name in names if _weights_key(name) in config]


def load_network(bundle: str | Path, network: str = "network_def", weights: str | Path | None = None) -> nn.Module:
    """A network of a bundle's ``inference.json`` with its weights, in evaluation mode.

    Args:
        bundle: its folder. Its config is run, so let it be one that you trust.
        network: the id of its definition.
        weights: instead of the bundle's.

    Raises:
        InputError: no such bundle or network, or weights that cannot be used.
    """
    bundle = Path(bundle).resolve()
    file = bundle / "configs" / "inference.json"
    if not file.is_file():
        raise InputError(file, "does not exist", "give the folder of a bundle")
    parser = ConfigParser()
    parser.read_config(str(file))
    parser["bundle_root"] = str(bundle)
    names = network_names(parser.config)
    if network not in names:
        raise InputError(file, f"has no network '{network}' with weights", f"choose one of: {', '.join(names)}")
    with _importable(bundle):
        made = parser.get_parsed_content(network)
        return load_weights(made, weights or parser.get_parsed_content(_weights_key(network)))


def inputs_of(bundle: str | Path, network: nn.Module, name: str = "network_def") -> list[NetworkInput]:
    """The inputs that the metadata list for a network and that can be drawn, the image first.

    Each is a tensor with ``num_channels`` and ``spatial_shape``, or a sentence that holds a shape such as ``(B, 128)``
    or ``(B, 1, x, y)`` and, for integers, ``integers from 0 to 999``. Others are left to the network's defaults.

    Raises:
        InputError: no ``<name>_data_format`` in the metadata, an input that the network does not take, or noise levels
            that are not described: a network that is traced without them is frozen at one.
    """
    file = Path(bundle) / "configs" / "metadata.json"
    key = name.removesuffix("def") + "data_format"
    formats = json.loads(file.read_text(encoding="utf-8"))
    if key not in formats:
        raise InputError(file, f"has no '{key}'", "describe inputs and outputs of the network there")
    parameters = inspect.signature(network.forward).parameters
    arguments = [*parameters]
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    found = []
    for index, (given, description) in enumerate(formats[key]["inputs"].items()):
        argument = arguments[0] if index == 0 else given
        if argument not in arguments and not takes_any:
            raise InputError(file, f"lists the input '{given}' of '{name}'", "its forward() has no such argument")
        described = _described(given, argument, description)
        if described is not None:
            found.append(described)
    if "timesteps" in arguments and "timesteps" not in [each.argument for each in found]:
        problem = f"does not say what 'timesteps' of '{name}' are"
        raise InputError(file, problem, "write: noise levels (B,), integers from 0 to 999")
    free = dict(size for size in found[0].sizes if isinstance(size, tuple)) if found else {}
    return [each._replace(sizes=tuple(_as_image(size, free) for size in each.sizes)) for each in found]


def example(inputs: list[NetworkInput], *, batch: int, multiple: int, seed: int = 0) -> dict[str, Tensor]:
    """Draw inputs by argument.

    Args:
        inputs: of the network.
        batch: cases.
        multiple: of the divisor of each free size. The axes x, y, z take it, one more, and two more.
        seed: of the numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for each in inputs:
        shape = [batch]
        for size in each.sizes:
            shape.append(size if isinstance(size, int) else size[1] * (multiple + "xyz".index(size[0])))
        if each.integers is None:
            drawn[each.argument] = torch.rand(shape, generator=generator) * 2 - 1
        else:
            low, high = each.integers
            drawn[each.argument] = torch.randint(low, high + 1, shape, generator=generator)
    return drawn


def _weights_key(network: str) -> str:
    return "weights" if network == "network_def" else network.removesuffix("def") + "weights"


@contextmanager
def _importable(bundle: Path) -> Iterator[None]:
    """Let Python find the modules that lie in the bundle, as MONAI's ``run`` does."""
    before = list(sys.path)
    sys.path.insert(1, str(bundle))
    try:
        yield
    finally:
        sys.path[:] = before


def _described(name: str, argument: str, description: Any) -> NetworkInput | None:
    if isinstance(description, Mapping):
        axes = [_axis(size, "xyz"[index]) for index, size in enumerate(description["spatial_shape"])]
        return NetworkInput(name, argument, (int(description["num_channels"]), *axes), None)
    shape, integers = _SHAPE.search(str(description)), _RANGE.search(str(description))
    if shape is None:
        return None
    parts = [part.strip() for part in shape[1].split(",") if part.strip()]
    sizes = tuple(int(part) if part.isdigit() else (part, 0) for part in parts)
    return NetworkInput(name, argument, sizes, (int(integers[1]), int(integers[2])) if integers else None)


def _as_image(size: int | tuple[str, int], free: Mapping[str, int]) -> int | tuple[str, int]:
    """A free size with the divisor that the image's axis of that letter has."""
    return size if isinstance(size, int) else (size[0], free.get(size[0], _UNKNOWN))


def _axis(size: Any, letter: str) -> int | tuple[str, int]:
    if isinstance(size, int):
        return size
    found = _MULTIPLE.fullmatch(str(size))
    return letter, int(found[1] or 1) if found else _UNKNOWN
