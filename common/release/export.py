"""A network of a bundle as one file that needs neither MONAI nor this package: ``torch.export`` or ONNX."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.files import check_writable
from common.options import choice
from common.release.examples import NetworkInput, example, inputs_of, load_network

__all__ = ["FORMATS", "export", "exported_program"]

Format = Literal["pt2", "onnx"]
FORMATS = ("pt2", "onnx")
_TOLERANCE = 1e-4  # of outputs of the order of 1; float32 sums in another order
_LARGEST = 4096  # multiple of a free size
# Batch, multiple of free sizes, seed. Neither batch nor sizes of the first, which is the one that is traced.
_TRACED, _TRIED = (2, 4, 0), ((1, 5, 1), (5, 3, 2))


def export(
    bundle: str | Path, output: str | Path, format: str | None = None, network: str = "network_def"
) -> dict[str, Any]:
    """Write a network as a file whose inputs are those of the metadata, the noise level among them.

    Sizes and batch stay free where the metadata leave them so and the network allows it. Before the file gets its
    name it is read back and compared with the network at other levels, sizes and batches.

    Args:
        bundle: its folder.
        output: the file.
        format: ``pt2`` or ``onnx``; by default what the file's name ends in.
        network: id of its definition in ``inference.json``.

    Returns:
        ``inputs`` (names), ``free`` (whether sizes are free), ``largest_difference`` (from the network).

    Raises:
        InputError: unknown format, missing packages, a folder that cannot be written, a bundle that cannot be used, or
            a file that does not do what the network does.
    """
    output = Path(output)
    format = format or output.suffix.removeprefix(".")
    choice("format", format, FORMATS)
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if format == "onnx" and missing:
        raise InputError("export to ONNX", f"needs {', '.join(missing)}", f"pip install {' '.join(missing)}")
    if output.is_dir() or not output.parent.is_dir():
        raise InputError(output, "cannot be written", "give a file in a folder that exists")
    check_writable(output.parent)
    made = load_network(bundle, network)
    inputs = inputs_of(bundle, made, network)
    program, free = exported_program(made, inputs)
    partial = output.with_name(f".{output.name}.partial.{format}")
    try:
        _save(program, partial, format, [each.name for each in inputs])
        difference = _largest_difference(made, _load(partial, format), inputs, free)
        if not difference <= _TOLERANCE:
            problem = f"differs from the network by {difference:.2g}"
            raise InputError(output, problem, "use the other format, or the network itself")
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)
    return {"inputs": [each.name for each in inputs], "free": free, "largest_difference": difference}


@torch.no_grad()
def exported_program(network: nn.Module, inputs: list[NetworkInput]) -> tuple[torch.export.ExportedProgram, bool]:
    """Trace a network with all its inputs; also whether sizes are free, which not every network allows."""
    drawn = example(inputs, batch=_TRACED[0], multiple=_TRACED[1], seed=_TRACED[2])
    traced = _Positional(network, [*drawn][1:])
    errors: list[Exception] = []
    for free in (True, False):
        first, *rest = _dynamic_shapes(inputs, free)
        try:
            program = torch.export.export(
                traced, tuple(drawn.values()), dynamic_shapes=(first, tuple(rest)), strict=False
            )
        except (RuntimeError, ValueError) as error:  # torch's own errors about shapes are both
            errors.append(error)
            continue
        return program, free and any(isinstance(size, tuple) for each in inputs for size in each.sizes)
    reason = str(errors[-1]).splitlines()[0] if str(errors[-1]) else type(errors[-1]).__name__
    raise InputError(type(network).__name__, f"cannot be traced ({reason})", "describe all its inputs in the metadata")


class _Positional(nn.Module):
    """A network whose further inputs come by place: those that go through ``**kwargs`` cannot be traced by name."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, image: Tensor, *rest: Tensor) -> Tensor:
        return self.network(image, **dict(zip(self.names, rest, strict=True)))


def _dynamic_shapes(inputs: list[NetworkInput], free: bool) -> list[dict[int, Any]]:
    batch = torch.export.Dim("batch", min=1, max=_LARGEST)
    dims = {letter: torch.export.Dim(f"n_{letter}", min=1, max=_LARGEST) for letter in "xyz"}
    shapes = []
    for each in inputs:
        shape: dict[int, Any] = {0: batch}
        for axis, size in enumerate(each.sizes, start=1):
            if free and isinstance(size, tuple):
                shape[axis] = size[1] * dims[size[0]] if size[1] > 1 else dims[size[0]]
        shapes.append(shape)
    return shapes


def _save(program: torch.export.ExportedProgram, path: Path, format: str, names: list[str]) -> None:
    if format == "pt2":
        buffer = io.BytesIO()  # with a path, a full disk ends the process
        torch.export.save(program, buffer)
        path.write_bytes(buffer.getvalue())
        return
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)  # they name every operator of packages that are not there
    try:
        converted = torch.onnx.export(program, input_names=names, output_names=["pred"], dynamo=True, verbose=False)
        assert converted is not None
        converted.save(path)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _load(path: Path, format: str) -> Callable[[list[Tensor]], Tensor]:
    """The file as a function of its inputs."""
    if format == "pt2":
        module = torch.export.load(path).module()
        return lambda values: module(*values)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = [each.name for each in session.get_inputs()]

    def run(values: list[Tensor]) -> Tensor:
        feed = {name: value.numpy() for name, value in zip(wanted, values, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return run


@torch.no_grad()
def _largest_difference(
    network: nn.Module,
    loaded: Callable[[list[Tensor]], Tensor],
    inputs: list[NetworkInput],
    free: bool,
) -> float:
    """Over other levels, and over other sizes and batches where these are free; relative to outputs above 1."""
    largest = 0.0
    for batch, multiple, seed in _TRIED:
        drawn = example(inputs, batch=batch, multiple=multiple if free else _TRACED[1], seed=seed)
        (_, image), *rest = drawn.items()
        expected = network(image, **dict(rest))
        difference = (loaded([*drawn.values()]) - expected).abs().max() / expected.abs().max().clamp(min=1)
        largest = max(largest, float(difference))
    return largest
