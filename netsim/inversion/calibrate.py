"""Choose the precision in which a network is inverted, once, on a few images."""

import logging
import time

import torch
from torch import Tensor

from netsim.errors import NetworkError
from netsim.inversion.engine import Engine, relative_distance
from netsim.inversion.precision import Dtype, Precision, PrecisionName, fast_precisions
from netsim.networks import Network
from netsim.networks.ambient import plain_torch

logger = logging.getLogger(__name__)

MAX_CHANGE = 0.01
"""Largest change of a representation by a half precision, relative to its length: a tenth of the usual tolerance."""


@plain_torch()
def choose_precision(network: Network, setting: PrecisionName, images: Tensor) -> Precision:
    """Choose the precision of a network's layers, for a setting and the network's device.

    "auto" tries the device's fast precisions on `images`, and takes the fastest that changes no representation by more
    than `MAX_CHANGE`. Only then does the choice depend on a clock. A network in float64 stays in float64.

    Parameters
    ----------
    setting
        `precision` of `netsim.settings.InversionSettings`.
    images
        Sample (n, C, H, W) in [0, 1], on any device.

    Raises
    ------
    NetworkError
        If the network cannot be computed in the precision that `setting` names.
    """
    if setting == "float32" or network.mean.dtype != torch.float32:
        return Precision()
    if setting == "auto":
        return _fastest(network, images)
    grouped: Dtype = "float32" if network.mean.device.type == "cpu" else setting
    if setting not in fast_precisions(network.mean.device):
        logger.warning("%s is slow on this %s, which has no instructions for it", setting, network.mean.device.type)
    precision = Precision(setting, grouped)
    Engine(network, images, precision=precision, batch_size=1)  # raises if the precision is not possible
    return precision


def _fastest(network: Network, images: Tensor) -> Precision:
    """Return the fastest precision, float32 included, that is exact enough on `images`."""
    batch_size = Engine(network, images).batch_size
    halves = fast_precisions(network.mean.device)
    candidates = [Precision(), *(Precision(half, grouped) for half in halves for grouped in (half, "float32"))]
    seconds = {
        precision: _seconds(network, precision, images, batch_size)
        for precision in candidates
        if _is_exact(network, precision, images, batch_size)
    }
    fastest = min(seconds, key=seconds.__getitem__)
    timings = "; ".join(f"{1000 * duration:.0f} ms in {precision}" for precision, duration in seconds.items())
    logger.info("%s: inverting in %s (one iteration of %d images: %s)", network.name, fastest, len(images), timings)
    return fastest


def _is_exact(network: Network, precision: Precision, images: Tensor, batch_size: int) -> bool:
    """Return True if `precision` changes the representation of no image by more than `MAX_CHANGE`."""
    if precision == Precision():
        return True
    try:
        engine = Engine(network, images, precision=precision, batch_size=batch_size)
    except NetworkError as error:
        logger.info("%s", error)
        return False
    change = relative_distance(engine.represent_all(images), engine.represent_exactly(images))
    return bool((change <= MAX_CHANGE).all())  # False for NaN


def _seconds(network: Network, precision: Precision, images: Tensor, batch_size: int, *, repeats: int = 3) -> float:
    """Time one iteration: the fastest of `repeats`, after a warm-up."""
    images = images.to(network.mean.device)
    engine = Engine(network, images, precision=precision, batch_size=batch_size)
    target = engine.represent_exactly(images.flip(0).roll(1, dims=-1))
    durations = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        engine.loss_and_descent(images, target)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - start)
    return min(durations[1:])
