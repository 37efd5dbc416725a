"""Where networks run and in what precision: bfloat16 needs no loss scaling, so it is the one mixed precision here."""

from __future__ import annotations

import os

import torch

from common.errors import InputError

__all__ = ["autocast", "has_bfloat16", "select_device"]


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
    """Whether ``device`` multiplies bfloat16 natively; elsewhere it would only be slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)


def autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """A context in which networks run in bfloat16 if ``enabled`` and the device can."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_bfloat16(device))
