"""Forward pass and training step of the denoiser, against MONAI's default and diffusers at equal width."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from benchmarks.measure import Row, Setup, compare, floor, precisions
from common.diffusion import NoiseSchedule
from common.networks import Denoiser, DenoisingUNet, autocast, channels_last

__all__ = ["forward", "training_step"]

_WIDTHS: dict[str, Any] = {
    "channels": (32, 64, 128),
    "attention_levels": (False, False, True),
    "num_res_blocks": 2,
    "num_head_channels": 128,
    "norm_num_groups": 32,
}
_SHIPPED: dict[str, Any] = {
    "patch_size": 2,
    "channels": (64, 128, 128),
    "attention_levels": (False, False, True),
    "num_res_blocks": 1,
    "num_head_channels": 128,
}
_SCHEDULE = NoiseSchedule()


def _networks(device: torch.device) -> dict[str, nn.Module]:
    """MONAI's default, ours with its weights, ours as the bundles have it, and that of diffusers, if it is there."""
    torch.manual_seed(0)
    monais = DiffusionModelUNet(2, 1, 1, **_WIDTHS)
    with torch.no_grad():  # layers that begin at zero would make every output the same
        for parameter in monais.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    ours = DenoisingUNet(2, 1, 1, **_WIDTHS)
    ours.load_state_dict(monais.state_dict())
    found = {"MONAI default": monais, "zoo, same weights": ours, "zoo, as shipped": DenoisingUNet(2, 1, 1, **_SHIPPED)}
    theirs = _diffusers()
    if theirs is not None:
        found["diffusers"] = theirs
    return {name: network.to(device) for name, network in found.items()}


def _diffusers() -> nn.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from diffusers import UNet2DModel
    except ImportError:
        print("diffusers is not installed (pip install 'anomaly-zoo[benchmark]'): left out")
        return None
    return UNet2DModel(
        in_channels=1,
        out_channels=1,
        layers_per_block=_WIDTHS["num_res_blocks"],
        block_out_channels=_WIDTHS["channels"],
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=_WIDTHS["norm_num_groups"],
        attention_head_dim=_WIDTHS["num_head_channels"],
    )


def _plain(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    output = network(x, t)
    return output if isinstance(output, Tensor) else output.sample


def _cases(setup: Setup, large: bool = False) -> list[tuple[int, int]]:
    """Side and batch; ``large`` adds a batch whose activations outgrow what a CPU allocates at ease."""
    if setup.quick:
        return [(16, 2)]
    if setup.device.type == "cuda":
        return [(64, 155), (128, 155)]
    return [(64, 16), (128, 4), *([(128, 32)] if large else [])]


def forward(setup: Setup) -> list[Row]:
    """Evaluations as a sampler makes them, all networks in float32 and in bfloat16; ratios to MONAI in float32."""
    networks, rows = _networks(setup.device), []
    for side, batch in _cases(setup, large=True):
        x = torch.randn(batch, 1, side, side, device=setup.device)
        t = torch.full((batch,), 300, device=setup.device)
        functions: dict[str, Callable[[], Tensor]] = {}
        for amp in precisions(setup):
            for name, network in networks.items():
                functions[f"{name}, {'bf16' if amp else 'fp32'}"] = _evaluation(
                    network.eval(), x, t, amp, "zoo" in name
                )
        with torch.inference_mode():
            right = functions["MONAI default, fp32"]()
            remarks = {
                name: f"relative error {float((functions[name]() - right).norm() / right.norm()):.1e}"
                for name in functions
                if "same weights" in name
            }
            case = f"forward, {side} px, batch {batch}"
            found = compare("denoiser", case, functions, setup, reference="MONAI default, fp32", remarks=remarks)
            rows += [_with_floor(row, functions[row.name], setup) for row in found]
    return rows


def _evaluation(network: nn.Module, x: Tensor, t: Tensor, amp: bool, ours: bool) -> Callable[[], Tensor]:
    if ours:
        denoiser = Denoiser(network, _SCHEDULE, clip=None, amp=amp)
        return lambda: denoiser(x, 300).eps

    def evaluate() -> Tensor:
        with autocast(x.device, amp):
            return _plain(network, x, t).float()

    return evaluate


def training_step(setup: Setup) -> list[Row]:
    """Forward, backward and AdamW on the squared error, as the trainers of the bundles do it; ratios as above."""
    networks, rows = _networks(setup.device), []
    for side, batch in _cases(setup):
        x = torch.randn(batch, 1, side, side, device=setup.device)
        t = torch.randint(1000, (batch,), device=setup.device)
        functions = {}
        for amp in precisions(setup):
            for name, network in networks.items():
                label = f"{name}, {'bf16' if amp else 'fp32'}"
                functions[label] = _step(copy.deepcopy(network).train(), x, t, amp, "zoo" in name)
        case = f"training step, {side} px, batch {batch}"
        rows += compare("denoiser", case, functions, setup, reference="MONAI default, fp32")
    return rows


def _step(network: nn.Module, x: Tensor, t: Tensor, amp: bool, ours: bool) -> Callable[[], None]:
    if ours:
        channels_last(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    target = torch.randn_like(x)

    def step() -> None:
        with autocast(x.device, amp):
            output = _plain(network, x, t)
        optimizer.zero_grad(set_to_none=True)
        nn.functional.mse_loss(output.float(), target).backward()
        optimizer.step()

    return step


def _with_floor(row: Row, function: Callable[[], Any], setup: Setup) -> Row:
    remark = floor(function, row.value / 1000, setup, torch.bfloat16 if "bf16" in row.name else torch.float32)
    return Row(**{**vars(row), "remark": "; ".join(each for each in (row.remark, remark) if each)})
