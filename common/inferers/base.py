"""The frame of every method: from images (or volumes) and a network to anomaly maps and pseudo-healthy images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor
from tqdm import tqdm

from common.anomaly import AnomalyMap, FeatureDistance, LpipsDistance, get_map
from common.diffusion import (
    Clip,
    Noise,
    NoiseSchedule,
    PredictionType,
    StaticClip,
    case_seed,
    get_noise,
    run_generator,
    sampling_levels,
)
from common.errors import InputError
from common.networks import Denoiser
from common.options import choice, flag, whole_number
from common.samplers import Callback

__all__ = ["AnomalyInferer", "Restored", "check_perceptual"]

_CLIP = StaticClip()
_DARKEST = 1e-30  # in [-1, 1] it is -1 to every bit, so that networks see no difference


class Restored(NamedTuple):
    """What a method makes of slices (B, C, …) in [0, 1].

    Raw maps (B, 1, …), not negative, or None for the map ``anomaly_map`` between slice and pseudo-healthy image;
    pseudo-healthy images (B, C, …); and, of a method that knows how sure it is, a variance (B, 1, …), mean over
    channels, of whatever its ``uncertainty_of`` names.
    """

    anomaly_map: Tensor | None
    pseudo_healthy: Tensor
    uncertainty: Tensor | None = None


class AnomalyInferer(Inferer):
    """Base of all methods: a method is a subclass with ``restore``, which sets ``timesteps`` when it is made.

    A 2-D method takes volumes too: slices along the last axis, empty ones left out, in batches. Randomness comes from
    one generator a slice, so a result depends neither on the batch size nor on the neighbours.

    Args:
        schedule: the network's.
        prediction_type: what the network outputs.
        clip: keeps x̂_0 in the model's range.
        anomaly_map: name of a map, or a product of names (``common.anomaly.get_map``); besides the fixed ones
            ``feature`` (the denoiser's own features) and ``lpips``.
        noise: kind of noise, or its name.
        batch_size: slices (or volumes of a 3-D method) at a time, each run and mirrored slice counted.
        num_restorations: independent runs a slice, with noise of their own, of which the mean image is compared (and
            maps of the method's own are averaged). A run that invents structure does so elsewhere each time, so
            several short ones may beat a long one.
        antithetic: runs come in pairs with opposite noise, which takes out of their mean most of what the noise did;
            of a method that makes several estimates of one level, these, and not the runs. One that is left over has
            noise of its own.
        mirror: do the same with the slice mirrored along x, left and right of the head, and take the mean of both, at
            twice the evaluations. A network is never quite symmetric: its errors differ between the two.
        seed: of cases that come without one.
        spatial_dims: of the network.
        output: ``dict``, or ``anomaly_map`` for the map alone, as MONAI Label and MONAI Deploy want it.
        amp: run the network in bfloat16 where the device can.
        progress: show a bar over the network evaluations (on a terminal).

    Attributes:
        timesteps: the levels that the sampler visits.
        evaluations: network evaluations since the inferer was made, counted once a slice.
        slices: slices that were not empty since then.

    Raises:
        InputError: unknown option, at construction.
    """

    timesteps: Sequence[int]
    uncertainty_of: ClassVar[Literal["anomaly_map", "pseudo_healthy"] | None] = None
    """Of which of its results a method knows the variance."""

    def __init__(
        self,
        *,
        schedule: NoiseSchedule,
        prediction_type: PredictionType = "epsilon",
        clip: Clip | None = _CLIP,
        anomaly_map: str = "residual",
        noise: str | Noise = "gaussian",
        batch_size: int = 16,
        num_restorations: int = 1,
        antithetic: bool = False,
        mirror: bool = False,
        seed: int = 0,
        spatial_dims: int = 2,
        output: Literal["dict", "anomaly_map"] = "dict",
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__()
        choice("output", output, ("dict", "anomaly_map"))
        get_map(anomaly_map, {"feature": _unbound, "lpips": _unbound})
        self.schedule, self.prediction_type, self.clip = schedule, prediction_type, clip
        self.map_name, self.noise = anomaly_map, get_noise(noise)
        self.batch_size, self.seed, self.spatial_dims = whole_number("batch_size", batch_size, 1), seed, spatial_dims
        self.num_restorations = whole_number("num_restorations", num_restorations, 1)
        self.antithetic, self.mirror = flag("antithetic", antithetic), flag("mirror", mirror)
        self.output, self.amp, self.progress = output, flag("amp", amp), flag("progress", progress)
        self.evaluations = self.slices = 0

    def levels(self, start: int, count: int | None, spacing: str) -> list[int]:
        """The levels to visit from ``start`` down to the image: ``count`` of them, or every one with ``None``.

        Raises:
            InputError: levels that the schedule does not have, more steps than levels, or an unknown spacing.
        """
        self.check_levels([start])
        steps = start + 1 if count is None else whole_number("number of steps", count, 1)
        return sampling_levels(start, steps, spacing)

    def check_levels(self, levels: Sequence[int]) -> list[int]:
        """Levels to noise to, as they were given.

        Raises:
            InputError: no list, an empty one, or a level that the schedule does not have.
        """
        if not isinstance(levels, Sequence) or not levels:
            raise InputError(f"noise_levels {levels!r}", "are no list of levels", "give at least one, e.g. [499]")
        for level in levels:
            self.schedule.alpha_bar(whole_number("level", level, 0))
        return list(levels)

    @property
    def evaluations_per_slice(self) -> int:
        """Calls of the callback for a slice, the length of the progress bar: one a step between ``timesteps``."""
        return len(self.timesteps) - 1

    @property
    def pairs_estimates(self) -> bool:
        """Whether ``antithetic`` makes pairs within a run; runs that are opposite besides would only repeat them."""
        return False

    @abstractmethod
    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """The method itself, on a batch of slices (B, C, …) in [0, 1] of a size that the network takes.

        Args:
            image: the slices, above 0 wherever the region is.
            denoiser: of the network, counts its evaluations.
            generator: one a slice.
            callback: to hand to the sampler.
        """

    def restore_runs(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """The mean of all runs of slices (B, C, …), with one generator a run, those of a slice side by side.

        A method whose runs have something in common overrides this, to compute it once a slice.
        """
        runs = self.num_restorations
        result = self.restore(image.repeat_interleave(runs, dim=0), denoiser, generator, callback)
        return self._mean(*(None if each is None else each.unflatten(0, (-1, runs)).movedim(1, 0) for each in result))

    @torch.no_grad()
    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Tensor],
        *args: Any,
        brain_mask: Tensor | None = None,
        seeds: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor] | Tensor:
        """Run the method.

        Args:
            inputs: images (B, C, …) in [0, 1], zero outside the brain or body; a 2-D method also takes (B, C, x, y, z).
            network: called as ``network(x, timesteps=t)``.
            *args: not used; evaluators may pass some.
            brain_mask: (B, 1, …); without it, the region is where any channel is above 0.
            seeds: one a case (B); without them, from ``seed`` and the place in the batch.
            **kwargs: not used.

        Returns:
            ``anomaly_map`` (B, 1, …), raw, zero outside the region, and ``pseudo_healthy`` (B, C, …) in [0, 1], the
            input itself outside; of some methods ``uncertainty`` (B, 1, …); as ``MetaTensor`` where the input is one;
            or the map alone.

        Raises:
            InputError: wrong dimensions, values that are not finite or not in [0, 1], seeds that do not fit, or results
                that are not finite.
        """
        self._check(inputs, brain_mask, seeds)
        image = torch.as_tensor(inputs).as_subclass(Tensor).float()
        region = (image > 0).any(dim=1, keepdim=True) if brain_mask is None else torch.as_tensor(brain_mask) > 0
        region = region.as_subclass(Tensor).to(image.device)
        if seeds is None:
            seeds = [case_seed(self.seed, index) for index in range(image.shape[0])]

        volume = image.ndim == self.spatial_dims + 3
        slices, regions = (_to_slices(image), _to_slices(region)) if volume else (image, region)
        depth = image.shape[-1] if volume else 1
        slice_seeds = [case_seed(seed, index) for seed in seeds for index in range(depth)]
        outputs = {"anomaly_map": torch.zeros_like(slices[:, :1]), "pseudo_healthy": slices.clone()}
        if self.uncertainty_of is not None:
            outputs["uncertainty"] = torch.zeros_like(slices[:, :1])
        occupied = regions.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
        denoiser = Denoiser(network, self.schedule, self.prediction_type, self.clip, self.amp)
        self.build_map(denoiser)  # what the network or a missing package does not allow is told before the sampling
        at_once = max(1, self.batch_size // (self.num_restorations * (1 + self.mirror)))
        batches = [occupied[i : i + at_once] for i in range(0, len(occupied), at_once)]
        with tqdm(
            total=len(batches) * self.evaluations_per_slice, desc="Sampling", disable=None if self.progress else True
        ) as bar:
            for batch in batches:
                padded, undo = pad_to(slices[batch], getattr(network, "size_divisor", 1))
                inside, _ = pad_to(regions[batch], getattr(network, "size_divisor", 1))
                batch_seeds = [slice_seeds[index] for index in batch]
                result = self.restore_and_compare(padded, inside, denoiser, batch_seeds, lambda _: bar.update())
                assert result.anomaly_map is not None
                outputs["anomaly_map"][batch] = undo(result.anomaly_map) * regions[batch]
                outputs["pseudo_healthy"][batch] = undo(result.pseudo_healthy)
                if result.uncertainty is not None:
                    outputs["uncertainty"][batch] = undo(result.uncertainty) * regions[batch]
        if not all(bool(torch.isfinite(each).all()) for each in outputs.values()):  # a mask would mark nothing there
            remedy = "check the weights, or leave --amp away"
            raise InputError(_source(inputs), "has a result that is not finite", remedy)
        self.evaluations += denoiser.evaluations
        self.slices += len(occupied)

        if volume:
            outputs = {key: _to_volumes(value, image.shape[0]) for key, value in outputs.items()}
        if isinstance(inputs, MetaTensor):
            outputs = {key: _with_geometry(value, inputs) for key, value in outputs.items()}
        return outputs["anomaly_map"] if self.output == "anomaly_map" else outputs

    def restore_and_compare(
        self, image: Tensor, region: Tensor, denoiser: Denoiser, seeds: Sequence[int], callback: Callback
    ) -> Restored:
        """The mean of all runs, mirrored ones too, and the map; outside the region the slice itself.

        Args:
            image: slices (B, C, …) in [0, 1] of a size that the network takes.
            region: (B, 1, …), boolean.
            denoiser: of the network.
            seeds: one a slice; the first run is the one that a single run would be.
            callback: to hand to the sampler.
        """
        # The darkest of the brain may be exactly 0, which methods take for what lies outside.
        image = torch.where(region, image.clamp(min=_DARKEST), image)
        runs, views = self.num_restorations, image
        numbers = [range(runs)]
        if self.mirror:
            views = torch.cat([image, image.flip(2)])
            second = runs + runs % 2  # a pair would not cancel between a slice and its mirror image
            numbers.append(range(second, second + runs))
        pairs = self.antithetic and not self.pairs_estimates
        drawn = [run_generator(seed, run, pairs) for view in numbers for seed in seeds for run in view]
        result = self.restore_runs(views, denoiser, drawn, callback)
        if self.mirror:
            result = self._mean(*(None if each is None else _both_views(each) for each in result))
        maps, healthy, uncertainty = result
        healthy = torch.where(region, healthy, image)
        return Restored(self.build_map(denoiser)(image, healthy) if maps is None else maps, healthy, uncertainty)

    def _mean(self, maps: Tensor | None, healthy: Tensor | None, variance: Tensor | None) -> Restored:
        """The mean of several results, stacked (K, B, …); a variance grows by that of the results among each other."""
        assert healthy is not None
        if variance is not None:
            known = maps if self.uncertainty_of == "anomaly_map" else healthy
            assert known is not None
            variance = variance.mean(dim=0) + known.var(dim=0, correction=0).mean(dim=1, keepdim=True)
        return Restored(None if maps is None else maps.mean(dim=0), healthy.mean(dim=0), variance)

    def build_map(self, denoiser: Denoiser, name: str | None = None) -> AnomalyMap:
        """The inferer's map (or another one by ``name``), with the distances that belong to the network."""
        name = name or self.map_name
        extra: dict[str, AnomalyMap] = {}
        if "feature" in name:
            features = getattr(denoiser.network, "features", None)
            if features is None:
                raise InputError("anomaly map 'feature'", "needs a network with features()", "use DenoisingUNet")
            extra["feature"] = FeatureDistance(features)
        if "lpips" in name:
            extra["lpips"] = LpipsDistance(next(denoiser.network.parameters()).device)  # type: ignore[attr-defined]
        return get_map(name, extra)

    def _check(self, inputs: Tensor, brain_mask: Tensor | None, seeds: Sequence[int] | None) -> None:
        name = _source(inputs)
        dims = inputs.ndim - 2
        if dims not in ({2, 3} if self.spatial_dims == 2 else {3}) or 0 in inputs.shape:
            wanted = f"give (batch, channel, …) for a {self.spatial_dims}-D method"
            raise InputError(name, f"has shape {tuple(inputs.shape)}", wanted)
        if not torch.isfinite(inputs).all():
            raise InputError(name, "has values that are not finite", "mend the image, or mask them out")
        low, high = float(inputs.min()), float(inputs.max())
        if low < -1e-3 or high > 1 + 1e-3:
            raise InputError(name, f"has values from {low:.3g} to {high:.3g}", "scale it to [0, 1] as the bundle does")
        if brain_mask is not None and brain_mask.shape != (inputs.shape[0], 1, *inputs.shape[2:]):
            raise InputError(name, f"does not fit its brain mask {tuple(brain_mask.shape)}", "give (B, 1, …)")
        if seeds is not None and len(seeds) != inputs.shape[0]:
            raise InputError(name, f"has {inputs.shape[0]} cases and {len(seeds)} seeds", "give one seed a case")


def check_perceptual(name: str) -> None:
    """Stop unless ``name`` is that of a perceptual distance.

    Raises:
        InputError: it is not.
    """
    choice("perceptual", name, ("feature", "lpips"))


def _source(inputs: Tensor) -> str:
    """What to call inputs in a message."""
    return str(inputs.meta.get("filename_or_obj", "input")) if isinstance(inputs, MetaTensor) else "input"


def _both_views(values: Tensor) -> Tensor:
    """(2 B, …), the second half mirrored, to (2, B, …)."""
    straight, mirrored = values.chunk(2)
    return torch.stack([straight, mirrored.flip(2)])


def _unbound(image: Tensor, healthy: Tensor) -> Tensor:
    raise AssertionError("stands for a map that needs the network")


def _to_slices(x: Tensor) -> Tensor:
    """(B, C, x, y, z) to (B z, C, x, y)."""
    return x.movedim(-1, 1).flatten(0, 1)


def _to_volumes(x: Tensor, cases: int) -> Tensor:
    """(B z, C, x, y) to (B, C, x, y, z)."""
    return x.unflatten(0, (cases, -1)).movedim(1, -1)


def pad_to(x: Tensor, divisor: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Pad with background to sizes divisible by ``divisor``; also how to undo it."""
    sizes = x.shape[2:]
    missing = [(-size) % divisor for size in sizes]
    padding = [part for lack in reversed(missing) for part in (lack // 2, lack - lack // 2)]
    window = (..., *(slice(lack // 2, lack // 2 + size) for lack, size in zip(missing, sizes, strict=True)))
    return F.pad(x, padding), lambda y: y[window]


def _with_geometry(values: Tensor, inputs: MetaTensor) -> MetaTensor:
    result = MetaTensor(values)
    result.copy_meta_from(inputs)  # also of a batch, whose metadata the constructor would not take
    return result
