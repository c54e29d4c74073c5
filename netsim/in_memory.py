"""Two networks compared in memory, without a store: what a sweep of both would measure. n = pairs, G = shards."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from tqdm import tqdm

from netsim.allocator import release_memory, retaining_memory
from netsim.errors import DataError, SettingsError
from netsim.images.pairs import draw_pairs
from netsim.inversion.invert import Inversion, Iteration, inversion_settings, invert_batches
from netsim.networks import Network, as_network
from netsim.networks.ambient import plain_torch
from netsim.networks.batches import evaluation_batches
from netsim.results.findings import percent, with_error
from netsim.results.results import MAX_ABOVE
from netsim.similarity.cka import similarity
from netsim.similarity.uncertainty import Estimate, jackknife

MOST_PAIRS = 256
"""Pairs that are drawn by default, if there are so many images."""

SIDES = ("a", "b")
"""The two networks, in the order in which they are given."""


@dataclass(frozen=True)
class Comparison:
    """Similarity of two networks by unbiased CKA, with errors over images (jackknife over shards).

    Attributes
    ----------
    natural
        Similarity on the target images.
    through_a, through_b
        Similarity on images inverted through the first network, as seen by the second, and the other way round.
    inverted
        Mean of both.
    difference
        `natural` minus `inverted`, paired.
    final_loss
        "a", "b" -> relative loss of each inverted image, (n,): 0 is perfect.
    tolerance
        Loss up to which an image counts as converged.
    n, shards
        Numbers of pairs, and of shards.
    """

    natural: Estimate
    through_a: Estimate
    through_b: Estimate
    inverted: Estimate
    difference: Estimate
    final_loss: dict[str, np.ndarray]
    tolerance: float
    n: int
    shards: int

    @property
    def warnings(self) -> list[str]:
        """Reasons not to trust the numbers."""
        above = {side: float((losses > self.tolerance).mean()) for side, losses in self.final_loss.items()}
        return [
            f"Not converged: {percent(share)} of the images inverted through {side} have a final relative loss above "
            f"the tolerance of {self.tolerance:g}, so that similarity through it may be too high or too low: increase "
            "iterations."
            for side, share in above.items()
            if share > MAX_ABOVE
        ]

    def __str__(self) -> str:
        means = ("natural", "inverted", "difference")
        text = ", ".join(f"{name} {with_error(getattr(self, name))}" for name in means)
        rows = f"through a {with_error(self.through_a)}, through b {with_error(self.through_b)}"
        lines = [f"{text} ({rows}; unbiased CKA, n = {self.n} images in {self.shards} shards)"]
        return "\n".join([*lines, *(f"WARNING  {warning}" for warning in self.warnings)])


@retaining_memory
@plain_torch()
def compare(
    network_a: nn.Module,
    network_b: nn.Module,
    images: Tensor,
    labels: ArrayLike | None = None,
    *,
    pairs: int | None = None,
    shards: int = 8,
    preset: str = "fast",
    iterations: int = 200,
    tolerance: float = 0.1,
    batch_size: int | None = None,
    rng_seed: int = 0,
) -> Comparison:
    """Measure how similar two networks are, on natural images and on images inverted through each of them.

    Nothing is stored. For more networks, resumption, controls, and errors over networks, run a sweep.

    Parameters
    ----------
    network_a, network_b
        Classifiers of images in [0, 1], as `netsim.invert_images` takes them; each stays on its own device.
    images
        Different pictures, (images, C, H, W), float32 in [0, 1], of which seeds and targets are drawn.
    labels
        (images,) whole numbers: seeds are then of other classes than their targets, as published. Default: a seed is
        any other image.
    pairs
        Number of pairs n, a multiple of `shards`. Default: as many as there are images, 256 at most.
    shards
        Number of shards, which the jackknife deletes one at a time.
    preset, iterations, tolerance, batch_size
        As in the settings `inversion` of a sweep; "published" with 2000 iterations is the published recipe.
    rng_seed
        Seed of the draw of pairs.

    Returns
    -------
    Comparison
        Prints as a sentence.

    Raises
    ------
    DataError
        If images or labels are invalid, or too few.
    SettingsError
        If a setting is out of range.
    NetworkError
        If a network cannot be cut or inverted: `netsim.networks.gate`.

    References
    ----------
    Jones, Springer, Kenyon, Moore 2022, "If you've trained one you've trained them all: inter-architecture similarity
    increases with robustness", UAI, PMLR 180:928-937.

    Examples
    --------
    >>> import netsim, torch
    >>> vgg, resnet = (netsim.load_network(f"small:{name}@none") for name in ("vgg", "resnet18"))
    >>> images = torch.rand(32, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    >>> found = netsim.compare(vgg, resnet, images, iterations=5)
    >>> found.n, found.shards, found.inverted.value < 1
    (32, 8, True)
    """
    if not isinstance(images, Tensor) or images.ndim != 4:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"images must be a tensor (n, C, H, W), got {shape}")
    labelled = np.arange(len(images)) if labels is None else np.asarray(labels)
    if len(labelled) != len(images):
        raise DataError(f"labels must be one for each of the {len(images)} images, got {len(labelled)}")
    count = _pairs(len(images), pairs, shards)
    settings = inversion_settings(preset=preset, iterations=iterations, tolerance=tolerance, batch_size=batch_size)
    networks = {side: as_network(model, images[:2]) for side, model in zip(SIDES, (network_a, network_b), strict=True)}
    drawn = draw_pairs(labelled, count, rng_seed=rng_seed, seed_labels="any" if labels is None else "other")
    seeds, targets = images[drawn.seed], images[drawn.target]
    with tqdm(total=2 * count * (iterations + 1), unit="it", desc="inverting", disable=None) as bar:

        def advance(iteration: Iteration) -> None:
            bar.update(len(iteration.pairs))

        inversions = {
            side: invert_batches(network, seeds, targets, settings, on_iteration=advance)
            for side, network in networks.items()
        }
    release_memory()  # the caller may have other work for it
    return _compared(networks, targets, inversions, shards=shards, tolerance=settings.tolerance)


def _pairs(images: int, pairs: int | None, shards: int) -> int:
    """Return the number of pairs, in whole shards."""
    if shards < 2:
        raise SettingsError(f"shards must be at least 2, got {shards}: the standard error requires two")
    if pairs is None:
        pairs = min(images, MOST_PAIRS) // shards * shards
    if pairs % shards:
        raise SettingsError(f"pairs must be a multiple of {shards} shards, got {pairs}")
    if not 0 < pairs <= images:
        raise DataError(f"images must be at least {max(pairs, shards)}, got {images}; lower pairs or shards")
    return pairs


def _compared(
    networks: dict[str, Network], targets: Tensor, inversions: dict[str, Inversion], *, shards: int, tolerance: float
) -> Comparison:
    sets = {"natural": targets} | {side: inversion.images for side, inversion in inversions.items()}
    by_set = {}
    for name, images in sets.items():
        seen = {side: np.split(_represent(network, images), shards) for side, network in networks.items()}
        by_shard = [dict(zip(seen, rows, strict=True)) for rows in zip(*seen.values(), strict=True)]
        cell = similarity(by_shard, [SIDES])[SIDES]
        by_set[name] = np.array([cell.cka_unbiased, *cell.leave_one_out_unbiased])
    by_set["inverted"] = (by_set["a"] + by_set["b"]) / 2
    by_set["difference"] = by_set["natural"] - by_set["inverted"]
    estimates = {name: jackknife(float(values[0]), values[1:]) for name, values in by_set.items()}
    return Comparison(
        natural=estimates["natural"],
        through_a=estimates["a"],
        through_b=estimates["b"],
        inverted=estimates["inverted"],
        difference=estimates["difference"],
        final_loss={side: inversion.final_loss.numpy() for side, inversion in inversions.items()},
        tolerance=tolerance,
        n=len(targets),
        shards=shards,
    )


def _represent(network: Network, images: Tensor) -> np.ndarray:
    with torch.no_grad():
        return evaluation_batches(network, images).evaluate(network.represent, images).cpu().numpy()
