"""Where networks run and in what precision: bfloat16 needs no loss scaling, so it is the one mixed precision here."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from common.errors import InputError

__all__ = ["autocast", "channels_last", "for_inference", "has_bfloat16", "select_device", "states_at_once"]

# Of states in one call. On a CPU larger batches do not fit its caches, and their memory goes back to the system after
# every layer: 64 slices of 80 × 96 pixels took 1.3 times as long, each, as 16. A GPU wants to be filled.
_VOXELS_AT_ONCE = {"cpu": 150_000, "cuda": 4_000_000}
_SMALL_MAP = 1024  # pixels
# By network: which weights were rounded, and the copy. To make it takes as long as to evaluate it on two slices.
_ROUNDED: WeakKeyDictionary[nn.Module, tuple[tuple[tuple[int, int], ...], nn.Module]] = WeakKeyDictionary()


def select_device(device: str | torch.device = "auto") -> torch.device:
    """The device asked for; ``auto`` is the GPU of this process (the first one, without torchrun), else the CPU.

    Raises:
        InputError: no such device on this machine.
    """
    if str(device) == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        local = os.environ.get("LOCAL_RANK", "")
        return torch.device("cuda", int(local) % torch.cuda.device_count()) if local else torch.device("cuda")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device '{device}'", "is not known", "use 'auto', 'cpu', 'cuda' or 'cuda:N'") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device '{device}'",
            f"is not on this machine ({torch.cuda.device_count()} CUDA devices)",
            "leave --device away to use what is there, or check driver and CUDA build of torch",
        )
    return chosen


def has_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has units for products of bfloat16; elsewhere it would only be slower.

    Of CPUs those with AMX: the vector instructions alone (AVX512-BF16) took 1.7 times as long as float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """A context in which networks run in bfloat16 if ``enabled`` and the device can."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_bfloat16(device))


def channels_last(network: nn.Module) -> None:
    """Lay out the weights of 2-D convolutions as these work, in place; it changes no value."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def for_inference(network: Callable[..., Tensor], amp: bool) -> Callable[..., Tensor]:
    """The network in the form in which it runs fastest, to be called under ``autocast`` if ``amp``.

    Weights are laid out with channels last, in place. For ``amp`` they are rounded to bfloat16 in a copy, once, and not
    in every call; anew when they have changed. What is no module comes back as it is.
    """
    if not isinstance(network, nn.Module):
        return network
    channels_last(network)
    if not amp or not all(has_bfloat16(device) for device in {parameter.device for parameter in network.parameters()}):
        return network
    weights = tuple((each.data_ptr(), each._version) for each in network.parameters())
    known, rounded = _ROUNDED.get(network, ((), network))
    if known != weights:
        rounded = _rounded(network)
        _ROUNDED[network] = weights, rounded
    return rounded


def _rounded(network: nn.Module) -> nn.Module:
    rounded = copy.deepcopy(network).to(torch.bfloat16)
    for parent in list(rounded.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.GroupNorm:
                setattr(parent, name, _GroupNorm.like(child))
    return rounded


class _GroupNorm(nn.GroupNorm):
    """Of bfloat16 in channels last PyTorch 2.13 normalises small maps on a CPU 3 times as slowly as of float32."""

    @classmethod
    def like(cls, norm: nn.GroupNorm) -> _GroupNorm:
        """With the same parameters, in float32."""
        made = cls(norm.num_groups, norm.num_channels, norm.eps, norm.affine, device=norm.weight.device)
        made.load_state_dict(norm.state_dict())
        return made.eval()

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.ndim == 4 and x.shape[2] * x.shape[3] < _SMALL_MAP:
            return super().forward(x.float()).to(x.dtype)
        return super().forward(x)


def states_at_once(x: Tensor) -> int:
    """How many states of the size of ``x`` (B, C, …) a network should be given in one call, at least 1."""
    limit = _VOXELS_AT_ONCE.get(x.device.type, _VOXELS_AT_ONCE["cpu"])
    return max(1, limit // max(1, math.prod(x.shape[2:])))
