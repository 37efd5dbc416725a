"""Perceptual distance: by the features of a bundle's own denoiser, or by LPIPS where its weights are at hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.diffusion import to_model_range
from common.errors import InputError

__all__ = ["FeatureDistance", "LpipsDistance"]

_LPIPS_BACKBONE = "squeezenet1_1-b8a52dc0.pth"


class FeatureDistance:
    """Distance of two images in the feature space of a denoiser: needs no other weights, works offline.

    As in LPIPS (Zhang et al. 2018, eq. 1), features of each level are scaled to unit length along channels, and
    their squared differences are summed, brought to the size of the image, and averaged over levels; levels weigh
    equally, since there is no perceptual data set to learn weights from. The result lies in [0, 4].

    Args:
        features: ``(x in the model's range, timesteps) -> list of (B, C, …)``, e.g. ``DenoisingUNet.features``.
        level: noise level that the network is told.
    """

    def __init__(self, features: Callable[[Tensor, Tensor], list[Tensor]], level: int = 0) -> None:
        self.features, self.level = features, level
        self._reference: tuple[Tensor, list[Tensor]] | None = None

    def __call__(self, image: Tensor, healthy: Tensor) -> Tensor:
        """Return the distance (B, 1, …) of two images (B, C, …) in [0, 1].

        Called again with the same ``image`` (the object; it must not have been changed), it does not look at it anew.
        """
        if self._reference is None or self._reference[0] is not image:
            self._reference = image, self._unit_features(image)
        mode = "bilinear" if image.ndim == 4 else "trilinear"
        total = torch.zeros_like(image[:, :1])
        levels = self._unit_features(healthy)
        for ours, theirs in zip(self._reference[1], levels, strict=True):
            distance = (ours - theirs).square().sum(dim=1, keepdim=True)
            total += F.interpolate(distance, size=image.shape[2:], mode=mode, align_corners=False)
        return total / len(levels)

    def _unit_features(self, image: Tensor) -> list[Tensor]:
        """Features of each level, of unit length along channels."""
        timesteps = torch.full((image.shape[0],), self.level, device=image.device)
        return [F.normalize(each.float(), dim=1) for each in self.features(to_model_range(image), timesteps)]


class LpipsDistance:
    """Spatial LPIPS (squeeze) of 2-D images, for numbers that compare with the papers.

    Nothing is downloaded: the backbone's weights must lie in torch's hub folder already.

    Args:
        device: to compute on.

    Raises:
        InputError: the package or the weights are not on this machine.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.model = _lpips_model(str(device))

    def __call__(self, image: Tensor, healthy: Tensor) -> Tensor:
        """Return the distance (B, 1, H, W) of two images (B, C, H, W) in [0, 1]; channels are averaged."""
        grey = [to_model_range(each.mean(dim=1, keepdim=True)).expand(-1, 3, -1, -1) for each in (image, healthy)]
        with torch.no_grad():
            return self.model(grey[0], grey[1]).float()


@lru_cache(maxsize=2)
def _lpips_model(device: str) -> Any:
    """Read once: an inferer asks for its map for every batch."""
    remedy = "use the map 'feature', which needs no other weights"
    try:
        import lpips
    except ImportError as error:
        needs = "needs the packages lpips and torchvision"
        raise InputError("anomaly map 'lpips'", needs, f"install them, or {remedy}") from error
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_BACKBONE
    if not weights.is_file():
        raise InputError(weights, "LPIPS weights are not on this machine", f"put them there, or {remedy}")
    return lpips.LPIPS(net="squeeze", spatial=True, verbose=False).to(device).eval()
