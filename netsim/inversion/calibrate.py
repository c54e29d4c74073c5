"""Choose the precision in which a network is inverted, once, on a few images."""

import logging
import time

import torch
from torch import Tensor

from netsim.errors import NetworkError
from netsim.inversion.engine import Engine, relative_distance
from netsim.inversion.precision import Dtype, Precision, PrecisionName, fast_precisions
from netsim.networks import Network

logger = logging.getLogger(__name__)

EXACT_ENOUGH = 0.01
"""Most that a half precision may change a representation, relative to its length: a tenth of the usual tolerance."""


def choose_precision(network: Network, setting: PrecisionName, images: Tensor) -> Precision:
    """The precision for a setting, on the network's device.

    "auto" tries, on `images` (n, C, H, W), those that the device has, and takes the fastest that changes no
    representation by more than `EXACT_ENOUGH`; only then does the answer depend on the clock.

    A network in float64 stays in it. Raises NetworkError for one that cannot be computed in the precision asked for.
    """
    if setting == "float32" or network.mean.dtype != torch.float32:
        return Precision()
    if setting != "auto":
        grouped: Dtype = "float32" if network.mean.device.type == "cpu" else setting
        if setting not in fast_precisions(network.mean.device):
            logger.warning("%s is slow on this %s: it has no instructions for it", setting, network.mean.device.type)
        precision = Precision(setting, grouped)
        Engine(network, images, precision=precision, batch_size=1)  # or it could not be computed, which is said here
        return precision
    halves = fast_precisions(network.mean.device)
    candidates = [Precision(), *(Precision(half, grouped) for half in halves for grouped in (half, "float32"))]
    timed = {
        precision: _seconds(network, precision, images)
        for precision in candidates
        if _is_exact(network, precision, images)
    }
    chosen = min(timed, key=timed.__getitem__)
    tried = "; ".join(f"{precision}: {1000 * seconds:.0f} ms" for precision, seconds in timed.items())
    logger.info(
        "%s: inverting in %s (an iteration of %d images takes, in %s)", network.name, chosen, len(images), tried
    )
    return chosen


def _is_exact(network: Network, precision: Precision, images: Tensor) -> bool:
    if precision == Precision():
        return True
    with torch.no_grad():
        images = images.to(network.mean.device)
        exact = network.represent(images)
        try:
            rounded = Engine(network, images, precision=precision, batch_size=len(images)).represent(images)
        except NetworkError as error:
            logger.info("%s", error)
            return False
    return bool((relative_distance(rounded, exact) <= EXACT_ENOUGH).all())  # false for NaN


def _seconds(network: Network, precision: Precision, images: Tensor, *, repeats: int = 3) -> float:
    """The least of some iterations, after one that does not count."""
    images = images.to(network.mean.device)
    engine = Engine(network, images, precision=precision, batch_size=len(images))
    target = engine.represent_exactly(images.flip(0).roll(1, dims=-1))
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        engine.loss_and_descent(images, target)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])
