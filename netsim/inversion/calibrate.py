"""Choose the precision in which a network is inverted, once, on a few images."""

import logging
import time

import torch
from torch import Tensor

from netsim.errors import NetworkError
from netsim.inversion.engine import Engine, relative_distance
from netsim.inversion.execution import WARM_UP, execution_on
from netsim.inversion.precision import Dtype, Precision, PrecisionName, fast_precisions
from netsim.networks import Network
from netsim.networks.ambient import plain_torch

logger = logging.getLogger(__name__)

MAX_CHANGE = 0.01
"""Largest change of a representation by a lower precision, relative to its length: a tenth of the usual tolerance."""


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
    fast = fast_precisions(network.mean.device)
    if setting == "tf32":
        if setting not in fast:
            logger.warning("this %s has no TF32; inverting in float32", network.mean.device.type)
            return Precision()
        return Precision("tf32", "tf32")
    grouped: Dtype = "float32" if network.mean.device.type == "cpu" else setting
    if setting not in fast:
        logger.warning("%s is slow on this %s, which has no instructions for it", setting, network.mean.device.type)
    precision = Precision(setting, grouped)
    Engine(network, images, precision=precision, batch_size=1)  # raises if the precision is not possible
    return precision


def _fastest(network: Network, images: Tensor) -> Precision:
    """Return the fastest precision, float32 included, that is exact enough on `images`."""
    batch_size = Engine(network, images).batch_size
    halves = fast_precisions(network.mean.device)
    candidates = [Precision(), *(Precision(half, grouped) for half in halves for grouped in _grouped(half))]
    seconds = {
        precision: _seconds(network, precision, images, batch_size)
        for precision in candidates
        if _is_exact(network, precision, images, batch_size)
    }
    fastest = min(seconds, key=seconds.__getitem__)
    timings = "; ".join(f"{1000 * duration:.0f} ms in {precision}" for precision, duration in seconds.items())
    logger.info("%s: inverting in %s (one iteration of %d images: %s)", network.name, fastest, len(images), timings)
    return fastest


def _grouped(dtype: Dtype) -> tuple[Dtype, ...]:
    """Return the precisions of grouped convolutions to try. TF32 is a mode of the device, for all layers."""
    return (dtype,) if dtype == "tf32" else (dtype, "float32")


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
    """Time one iteration, executed as in an inversion: the fastest of `repeats`, after a warm-up."""
    images = images.to(network.mean.device)
    engine = Engine(network, images, precision=precision, batch_size=batch_size)
    target = engine.represent_exactly(images.flip(0).roll(1, dims=-1))
    execution, durations = execution_on(engine.device, network.name), []

    def iterate() -> None:
        engine.loss_and_descent(images, target, retry=not execution.replays)

    for _ in range(1 + WARM_UP + repeats if execution.replays else 1 + repeats):
        start = time.perf_counter()
        execution.run(iterate)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - start)
    execution.reset()
    return min(durations[-repeats:])
