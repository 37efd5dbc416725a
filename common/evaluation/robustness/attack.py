"""A small change of the image that is made to mislead a method: lesions hidden, healthy tissue marked.

Method: projected gradient descent (Madry et al., ICLR 2018) on the anomaly map; where no gradient passes, random search
by squares (after Andriushchenko et al., Square Attack, ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.diffusion import case_seed
from common.errors import InputError
from common.inferers import AnomalyInferer
from common.inferers.base import pad_to
from common.networks import Denoiser

__all__ = ["Attack", "describe", "equal_noise", "path_of"]

_STEPS, _QUERIES = 10, 100
Loss = Callable[[Tensor], Tensor]


@dataclass
class Attack:
    """Attacks on a method whose noise the attacker knows: the worst case.

    Args:
        inferer: of the method, or a variant of it with fewer steps.
        network: the method's.
        seed: of the run, as ``InferenceBatch`` has it.
        steps: of gradient descent, each 2.5 ε / steps long.
        queries: of the random search, where there is no gradient.
    """

    inferer: AnomalyInferer
    network: Callable[..., Tensor]
    seed: int = 0
    steps: int = _STEPS
    queries: int = _QUERIES
    has_gradient: bool = True

    def __call__(self, image: Tensor, region: Tensor, truth: Tensor, case: str, epsilon: float) -> Tensor:
        """Return a changed image that differs by at most ``epsilon`` at each pixel of the region.

        Args:
            image: (C, x, y, z) in [0, 1].
            region: (1, x, y, z), where to change it.
            truth: (1, x, y, z), the lesions.
            case: its name, from which the seeds of the method derive.
            epsilon: largest change.
        """
        device = next(iter(getattr(self.network, "parameters", list)()), image).device
        image, region, truth = (torch.as_tensor(each).as_subclass(Tensor).float() for each in (image, region, truth))
        image, region, truth = (each.to(device) for each in (image, region, truth))
        changed = image.clone()
        seed = case_seed(self.seed, case)
        for z in range(image.shape[-1]):
            inside = region[None, ..., z] > 0
            if inside.any():
                loss = self._loss(inside, truth[None, ..., z] > 0, case_seed(seed, z))
                generator = torch.Generator().manual_seed(case_seed(seed, z, "attack"))
                changed[..., z] = self._slice(image[None, ..., z], inside, loss, epsilon, generator)[0]
        return changed.cpu()

    def _loss(self, inside: Tensor, lesion: Tensor, seed: int) -> Loss:
        """Mean of the map in lesions minus that outside: what a method wants high and an attacker low."""
        denoiser = Denoiser(
            self.network, self.inferer.schedule, self.inferer.prediction_type, self.inferer.clip, amp=False
        )
        lesion, healthy = lesion & inside, inside & ~lesion
        region, _ = pad_to(inside, getattr(self.network, "size_divisor", 1))

        def loss(image: Tensor) -> Tensor:
            padded, undo = pad_to(image, getattr(self.network, "size_divisor", 1))
            result = self.inferer.restore_and_compare(padded, region, denoiser, [seed], lambda _: None)
            assert result.anomaly_map is not None
            found = undo(result.anomaly_map)
            hit = found[lesion].mean() if lesion.any() else found.new_zeros(())
            return hit - found[healthy].mean() if healthy.any() else hit

        return loss

    def _slice(
        self,
        image: Tensor,
        inside: Tensor,
        loss: Callable[[Tensor], Tensor],
        epsilon: float,
        generator: torch.Generator,
    ) -> Tensor:
        if self.has_gradient:
            changed = self._descend(image, inside, loss, epsilon, generator)
            if changed is not None:
                return changed
            self.has_gradient = False
        return self._search(image, inside, loss, epsilon, generator)

    def _descend(
        self,
        image: Tensor,
        inside: Tensor,
        loss: Callable[[Tensor], Tensor],
        epsilon: float,
        generator: torch.Generator,
    ) -> Tensor | None:
        """Gradient descent; nothing where the gradient is missing, zero or not finite."""
        change = epsilon * (2 * torch.rand(image.shape, generator=generator).to(image.device) - 1) * inside
        best, lowest = None, float("inf")
        for step in range(self.steps + 1):
            change = ((image + change).clamp(0, 1) - image) * inside
            with torch.enable_grad():
                leaf = (image + change).requires_grad_()
                value = loss(leaf)
                (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True) if value.requires_grad else (None,)
            if float(value.detach()) < lowest:
                best, lowest = image + change, float(value.detach())
            if step == self.steps:
                break
            if gradient is None or not bool(torch.isfinite(gradient).all()) or not bool(gradient.any()):
                return None
            change = (change - 2.5 * epsilon / self.steps * gradient.sign()).clamp(-epsilon, epsilon)
        return best

    @torch.no_grad()
    def _search(
        self,
        image: Tensor,
        inside: Tensor,
        loss: Callable[[Tensor], Tensor],
        epsilon: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Random search: squares of one sign, ever smaller, are kept if they lower the loss."""

        def draw(high: int) -> int:
            return int(torch.randint(high, (1,), generator=generator))

        rows, columns = image.shape[-2:]
        signs = 2.0 * torch.randint(2, (*image.shape[:2], 1, columns), generator=generator).to(image.device) - 1
        best = ((image + epsilon * signs).clamp(0, 1) - image) * inside + image
        lowest = float(loss(best))
        for query in range(self.queries):
            side = max(2, round(0.4 * min(rows, columns) * 0.5 ** (6 * query / self.queries)))
            x, y = draw(max(1, rows - side)), draw(max(1, columns - side))
            tried = best.clone()
            square = (..., slice(x, x + side), slice(y, y + side))
            tried[square] = torch.where(inside[square], image[square] + epsilon * (2 * draw(2) - 1), image[square])
            value = float(loss(tried.clamp_(0, 1)))
            if value < lowest:
                best, lowest = tried, value
        return best


def equal_noise(image: Tensor, changed: Tensor, region: Tensor, seed: int) -> Tensor:
    """The image with random signs in place of a change, as far from it in the Euclidean norm, and within [0, 1].

    Args:
        image: (C, x, y, z).
        changed: by an attack.
        region: (1, x, y, z), where to change it.
        seed: of the signs.
    """
    image, changed, region = (torch.as_tensor(each).as_subclass(Tensor).float() for each in (image, changed, region))
    signs = 2.0 * torch.randint(2, image.shape, generator=torch.Generator().manual_seed(seed)) - 1
    # Where a sign would leave [0, 1] the other one does not.
    size = (changed - image).norm() / signs.mul(region > 0).norm().clamp_min(1e-12)
    signs = torch.where((image + size * signs).clamp(0, 1) == image + size * signs, signs, -signs)
    return (image + size * signs * (region > 0)).clamp(0, 1)


def path_of(inferer: Any, short: Any | None, most: int = 8) -> tuple[Any, str]:
    """The inferer through which to attack, and what that means in words.

    Args:
        inferer: the bundle's own.
        short: a variant of it with one step; none where the method has no such setting.
        most: evaluations through which a gradient is affordable.

    Raises:
        InputError: not an inferer of slices.
    """
    if not isinstance(inferer, AnomalyInferer) or inferer.spatial_dims != 2:
        raise InputError("attack", "needs an AnomalyInferer of slices", "give --attack_cases 0")
    if short is None or len(getattr(inferer, "timesteps", ())) <= most:
        return inferer, "through the whole method"
    return short, "through the method with a single step, carried over to the whole method"


def describe(attack: Attack, path: str) -> str:
    """What kind of attack it has been."""
    if attack.has_gradient:
        return f"projected gradient descent, {attack.steps} steps, {path}"
    return f"random search by squares, {attack.queries} queries (no usable gradient), {path}"
