"""The cost of one network on this machine, measured by the code that a sweep runs.

It is measured in a process of its own (`netsim.planning.prober`): new, because peak memory counts everything since its
start, and separate, because a network that does not fit into memory then ends that process only.
"""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from netsim.allocator import retaining_memory
from netsim.images import ArrayImages, ImageSet, ListedImages, to_unit
from netsim.images.decoding import Unreadable
from netsim.images.pairs import FEWEST_PAIRS, draw_pairs
from netsim.inversion.calibrate import choose_precision
from netsim.inversion.engine import Engine
from netsim.inversion.flops import forward_flops
from netsim.inversion.invert import invert_batches
from netsim.inversion.precision import Precision
from netsim.inversion.steps import kept_bytes, update_rule_of
from netsim.networks import Network, content_hash, load_once
from netsim.networks.batches import evaluation_batches, forward_bytes
from netsim.networks.training import accuracy, train_epochs
from netsim.networks.weights import weight_bytes
from netsim.planning.preflight import build_network
from netsim.settings import InversionSettings, SweepSettings, TrainingSettings, parse_settings
from netsim.similarity.streaming import pair_hsic
from netsim.stages import inputs, train

# Images that are inverted at once if one iteration with as many as in a sweep takes longer than MAX_ITERATION_SECONDS.
FEW_IMAGES = 8
MAX_ITERATION_SECONDS = 4.0

# Minimum seconds that the iterations of one measurement take together, if there are more than three.
MIN_SECONDS = 0.5

REPEATS = 3
TRAINING_STEPS = 4

# Representations that are compared.
ROWS = 1024

# Bytes per pixel of a shard, as the difference between workers with shards of 128 and of 32 images: seed, target and
# result as float32, what is computed from them, and what of the previous shard is still being written.
SHARD_BYTES_PER_PIXEL = 29

# Bytes per pixel of the images that the probe inverts, which are already counted in its peak memory.
PROBE_BYTES_PER_PIXEL = 8


@dataclass(frozen=True)
class ProbeRequest:
    """One measurement.

    Attributes
    ----------
    settings
        Settings of the sweep, as JSON values.
    name
        Name of one of its networks, as the settings have it.
    threads
        Threads of a worker.
    timed
        True to measure seconds; False for memory and FLOPs only.
    """

    settings: dict[str, Any]
    name: str
    threads: int = 1
    timed: bool = True


@dataclass(frozen=True)
class Probe:
    """The cost of one network. Seconds are those of one process, and 0 if they were not requested.

    Attributes
    ----------
    name, parameters, width, input_shape
        The network: its name, number of parameters, length of a representation, and shape of an image.
    flops
        Floating-point operations of representing one image.
    asked
        True if the network has one output per class of the images, so that its accuracy is measured.
    precision
        Numeric precision of its inversion.
    batch_size
        Images that a sweep inverts at once.
    host_bytes
        Peak memory of a worker that inverts this network only.
    weight_bytes, device_bytes
        Size of the weights, and peak size of all tensors on the device, weights included; on a CPU, `host_bytes`
        contains both.
    load
        Seconds to load the network.
    read, look
        Seconds per image to read it, and to represent it.
    train
        Seconds per image and epoch of training; 0 for networks that come with weights.
    ask
        Seconds per image to test the accuracy.
    begin, iteration
        Seconds per image of an inversion without its iterations, and per iteration, once for each measurement.
    multiplications
        Multiplications per second of comparing representations.
    """

    name: str
    parameters: int
    width: int
    input_shape: tuple[int, int, int]
    flops: int
    asked: bool
    precision: str
    batch_size: int
    host_bytes: int
    weight_bytes: int
    device_bytes: int
    load: float = 0.0
    read: float = 0.0
    train: float = 0.0
    ask: float = 0.0
    look: float = 0.0
    begin: float = 0.0
    iteration: tuple[float, ...] = (0.0,)
    multiplications: float = 0.0


@retaining_memory
def probe(request: ProbeRequest) -> Probe:
    """Measure the cost of one network in this process.

    Raises
    ------
    NetsimError
        For a network, images or pairs that cannot be used.
    """
    torch.set_num_threads(request.threads)
    settings = parse_settings(request.settings)
    sets = inputs.used_images(settings)
    images, classes = _skipping_unreadable(sets["test"], settings), inputs.count_classes(sets.values())
    member = next(m for m in (*settings.members, *settings.observing) if m.name == request.name)
    load, network = timed(lambda: _load(member.reference, images, classes))
    network.eval().to(inputs.device())
    sample = to_unit(images.read(np.arange(min(train.CALIBRATION_IMAGES, len(images)))))
    precision = choose_precision(network, settings.inversion.precision, sample)
    batch_size, inversion_bytes, forward_bytes_of = _memory(network, sample[:1], settings, precision)
    on_gpu = network.mean.is_cuda
    read, (seed, target) = timed(lambda: _read_pairs(settings, images, batch_size))
    inversion = _Inversion(network, seed, target, settings.inversion, precision)
    # with as many images as in a sweep, so that the peak includes the memory of libraries besides tensors
    first, _ = timed(lambda: inversion(1))
    peak = host_bytes()
    flops = forward_flops(network, network.mean.new_zeros(1, *images.shape))
    weights = weight_bytes(network)
    shard_bytes = int(np.prod(images.shape)) * (
        SHARD_BYTES_PER_PIXEL * settings.pairs.shard_size - PROBE_BYTES_PER_PIXEL * batch_size
    )
    evaluated = min(evaluation_batches(network, sample).size, settings.pairs.shard_size)
    tensors = max(inversion_bytes(batch_size), forward_bytes_of(evaluated))
    if first > MAX_ITERATION_SECONDS and not on_gpu:  # only small networks are faster with more images at once
        inversion = _Inversion(network, seed[:FEW_IMAGES], target[:FEW_IMAGES], settings.inversion, precision)
    seconds: dict[str, Any] = {}
    if request.timed:
        seconds = inversion.seconds() | _label_seconds(member.training, network, images, classes)
    return Probe(
        name=request.name,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        width=network.width,
        input_shape=images.shape,
        flops=flops,
        asked=network.num_classes == classes,
        precision=str(precision),
        batch_size=batch_size,
        host_bytes=peak + shard_bytes + (0 if on_gpu else tensors - inversion_bytes(batch_size)),
        weight_bytes=weights,
        device_bytes=weights + tensors,
        load=load,
        read=read / (2 * batch_size),
        multiplications=_multiplications_per_second(settings, network),
        **seconds,
    )


class _ReplacingUnreadable(ListedImages):
    """Images of which unreadable ones are replaced by others: a sweep that skips them draws others, too."""

    def read(self, indices: ArrayLike) -> np.ndarray:
        images = list(self._decoded(np.asarray(indices, dtype=np.int64)))
        readable = cycle([image for image in images if not isinstance(image, Unreadable)])
        try:
            return np.stack([next(readable) if isinstance(image, Unreadable) else image for image in images])
        except StopIteration:
            return super().read(indices)  # raises the error with names and causes


def _skipping_unreadable(images: ImageSet, settings: SweepSettings) -> ImageSet:
    """Return the images as the settings want them read."""
    if settings.images.unreadable == "stop" or not isinstance(images, ListedImages):
        return images
    return _ReplacingUnreadable(**{field.name: getattr(images, field.name) for field in fields(images)})


def _load(reference: str, images: ImageSet, classes: int) -> Network:
    """Load a network and hash its weights, as a worker does. Random weights cost as much as others."""
    network = build_network(reference, images, classes, load=load_once)
    content_hash(network)
    return network


def _read_pairs(settings: SweepSettings, images: ImageSet, count: int) -> tuple[Tensor, Tensor]:
    """Return `count` seeds and targets."""
    drawn = draw_pairs(images.labels, max(count, FEWEST_PAIRS), rng_seed=settings.pairs.rng_seed)
    seed, target = to_unit(images.read(np.concatenate([drawn.seed[:count], drawn.target[:count]]))).split(count)
    return seed, target


# Peak bytes of tensors, given the number of images at once.
Bytes = Callable[[int], int]


def _memory(
    network: Network, example: Tensor, settings: SweepSettings, precision: Precision
) -> tuple[int, Bytes, Bytes]:
    """Return how many images a sweep inverts at once, and the peak bytes of inverting and of evaluating images."""
    requested = settings.inversion.batch_size
    kept = kept_bytes(update_rule_of(settings.inversion), example)
    engine = Engine(network, example, precision=precision, batch_size=requested, kept_bytes=kept)
    batch_size = min(engine.batch_size, settings.pairs.shard_size)
    example = example.to(engine.device)
    iteration, forward = (
        _linear(bytes_of, example) for bytes_of in (engine.iteration_bytes, partial(forward_bytes, network))
    )
    return batch_size, lambda count: iteration(count) + kept * count, forward


def _linear(bytes_of: Callable[[Tensor], int], example: Tensor) -> Bytes:
    """Extrapolate the bytes of any number of images from those of one and of two."""
    one, two = (bytes_of(example.expand(count, -1, -1, -1)) for count in (1, 2))
    return lambda count: one + (count - 1) * (two - one)


@dataclass
class _Inversion:
    """Inversion of some images, as in a sweep; call it with the number of iterations."""

    network: Network
    seed: Tensor
    target: Tensor
    inversion: InversionSettings
    precision: Precision

    def __call__(self, iterations: int) -> None:
        short = {"iterations": iterations, "batch_size": len(self.seed), "stop_loss": None}
        invert_batches(
            self.network,
            self.seed,
            self.target,
            self.inversion.model_copy(update=short),
            precision=self.precision,
        )
        for images in (self.seed, self.target):
            inputs.represent(self.network, images)

    def seconds(self) -> dict[str, Any]:
        """Return `iteration` and `begin` of a Probe, from alternating short and longer inversions, and `look`."""
        short = best(lambda: self(1))
        more = max(2, int(MIN_SECONDS / short))
        each = []
        for _ in range(REPEATS):
            few, many = timed(lambda: self(1))[0], timed(lambda: self(1 + more))[0]
            each.append(max(many - few, 0.0) / more / len(self.seed))
        begin = max(short / len(self.seed) - float(np.median(each)), 0.0)
        look = best(lambda: inputs.represent(self.network, self.target)) / len(self.target)
        return {"iteration": tuple(each), "begin": begin, "look": look}


def _label_seconds(
    training: TrainingSettings | None, network: Network, images: ImageSet, classes: int
) -> dict[str, float]:
    """Return `train` and `ask` of a Probe: seconds per image of training and testing. Changes the weights."""
    count = min(4 * FEW_IMAGES if training is None else TRAINING_STEPS * training.batch_size, len(images))
    indices = np.arange(count)
    some = ArrayImages(images.name, images.read(indices), images.labels[indices], images.classes)
    seconds = {"ask": best(lambda: accuracy(network, some)) / count} if network.num_classes == classes else {}
    times = [time.perf_counter()]
    if training is not None:
        train_epochs(
            network,
            some,
            epochs=1,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            rng_seed=0,
            augmentation=training.augmentation,
            adversarial=training.adversarial,
            precision=training.precision,
            on_step=lambda: times.append(time.perf_counter()),
        )
        seconds["train"] = float(np.median(np.diff(times))) / min(training.batch_size, count)
    return seconds


def _multiplications_per_second(settings: SweepSettings, network: Network) -> float:
    """Return the speed of comparing representations of this width."""
    pairs = settings.pairs
    count = min(pairs.count, max(ROWS, 2 * pairs.shard_size))  # of whole shards
    rows = np.random.default_rng(0).normal(size=(count, network.width)).astype(np.float32)
    bounds = range(0, len(rows) + 1, pairs.shard_size)
    shards = [{0: rows[start:stop]} for start, stop in pairwise(bounds)]
    seconds = best(lambda: pair_hsic(shards, [(0, 0)], space="gram"))
    return len(rows) ** 2 * network.width // 2 / seconds


def best(work: Callable[[], Any]) -> float:
    """Return the fewest seconds of three calls."""
    return min(timed(work)[0] for _ in range(REPEATS))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, GPU work included, and its result."""
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def host_bytes() -> int:
    """Return the peak memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
