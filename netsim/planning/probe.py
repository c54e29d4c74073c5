"""What a network costs on this machine, measured in a process of its own by the very code of a sweep.

`python -m netsim.planning.probe` reads an `Asked` from its input and writes a `Probe` to its output, both as JSON. It
is a fresh process because memory is measured, which remembers whatever was there before; and because where a network
does not fit into memory, the process ends and nothing else does.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib import import_module
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from netsim.errors import NetsimError
from netsim.images import ArrayImages, ImageSet, ListedImages, to_unit
from netsim.images.decoding import Unreadable
from netsim.images.pairs import FEWEST_PAIRS, draw_pairs
from netsim.inversion.calibrate import choose_precision
from netsim.inversion.engine import Engine
from netsim.inversion.flops import forward_flops
from netsim.inversion.memory import LiveBytes, peak_bytes
from netsim.inversion.precision import Precision
from netsim.inversion.steps import kept_bytes
from netsim.networks import Network, content_hash, needs_training
from netsim.networks.training import accuracy, train_epochs
from netsim.planning.preflight import build
from netsim.settings import InversionSettings, SweepSettings, parse_settings
from netsim.similarity.streaming import gram_cost, pair_hsic
from netsim.stages import inputs, invert, train

IMAGES = 8
"""Inverted at a time where more would take too long;"""

SLOW = 4.0
"""seconds of one iteration with as many images as a sweep has at a time, above which it does."""

LONG = 2.0
"""Seconds that the iterations of one measurement take at least, if there are more than three."""

REPEATS = 3
TRAINING_STEPS = 4
ROWS = 1024  # of representations that are compared

BYTES_A_VALUE = 29
"""Of a pixel of a shard, as a worker with shards of 128 images grew beyond one with shards of 32: seed, target and
result as float32, what is made of them, and what of the shard before is still being written."""

BYTES_HERE = 8
"""Of a pixel of those images that are inverted here."""


@dataclass(frozen=True)
class Asked:
    """Settings, the name of one of its networks, threads and modules of a worker, and whether seconds are wanted."""

    settings: dict[str, Any]
    name: str
    threads: int = 1
    timed: bool = True
    imports: Sequence[str] = ()  # they take memory


@dataclass(frozen=True)
class Probe:
    """Of one network. Seconds are those of one process, and 0 where they were not asked for."""

    name: str
    parameters: int
    width: int
    input_shape: tuple[int, int, int]
    flops: int  # of representing one image
    asked: bool  # whether its labels are those of the images, so that its accuracy is looked at
    precision: str
    batch_size: int  # images that a sweep inverts at a time
    host_bytes: int  # most that a worker holds while it inverts this network alone
    weight_bytes: int
    device_bytes: int  # most that tensors hold on the device, weights among them; on a CPU they are in `host_bytes` too
    load: float = 0.0
    read: float = 0.0  # one image
    train: float = 0.0  # one image, one epoch; 0 for networks that have weights
    ask: float = 0.0  # one image whose label it is asked for
    look: float = 0.0  # one image
    begin: float = 0.0  # one image, what inverting it takes besides its iterations
    iteration: tuple[float, ...] = (0.0,)  # one image, one iteration: as often as it was measured
    multiplications: float = 0.0  # a second, comparing representations


def probe(asked: Asked) -> Probe:
    """Measure it. Raises NetsimError for a network, images or pairs that can't be had."""
    for module in asked.imports:
        import_module(module)
    torch.set_num_threads(asked.threads)
    settings = parse_settings(asked.settings)
    sets = inputs.used_images(settings)
    images, classes = _as_a_sweep_reads(sets["test"], settings), inputs.classes_of(sets.values())
    load, network = timed(lambda: _loaded(settings.reference(asked.name), images, classes))
    network.eval().to(inputs.device())
    sample = to_unit(images.read(np.arange(min(train.CALIBRATION_IMAGES, len(images)))))
    precision = choose_precision(network, settings.inversion.precision, sample)
    batch_size, inverting, looking = _memory(network, sample[:1], settings, precision)
    on_gpu = network.mean.is_cuda
    read, (seed, target) = timed(lambda: _pairs(settings, images, batch_size))
    invert = _Inverting(network, seed, target, settings.inversion, precision)
    first, _ = timed(lambda: invert(1))  # as many as in a sweep: what libraries take beside tensors is seen so
    peak = host_bytes()
    flops = forward_flops(network, network.mean.new_zeros(1, *images.shape))
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    in_shard = int(np.prod(images.shape)) * (BYTES_A_VALUE * settings.pairs.shard_size - BYTES_HERE * batch_size)
    tensors = max(inverting(batch_size), looking(min(inputs.REPRESENT_BATCH, settings.pairs.shard_size)))
    found: dict[str, Any] = {}
    if asked.timed:
        if first > SLOW and not on_gpu:  # it takes its time, and small networks alone are faster with more at a time
            invert = _Inverting(network, seed[:IMAGES], target[:IMAGES], settings.inversion, precision)
        found |= invert.seconds()
        found |= {"look": best(lambda: inputs.represent(network, invert.target)) / len(invert.target)}
        learns = needs_training(settings.reference(asked.name))
        found |= _labelling(settings, network, images, classes, learns=learns)  # last: it may change the weights
    return Probe(
        name=asked.name,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        width=network.width,
        input_shape=images.shape,
        flops=flops,
        asked=network.num_classes == classes,
        precision=str(precision),
        batch_size=batch_size,
        host_bytes=peak + in_shard + (0 if on_gpu else tensors - inverting(batch_size)),
        weight_bytes=weights,
        device_bytes=weights + tensors,
        load=load,
        read=read / (2 * batch_size),
        multiplications=_comparing(settings, network),
        **found,
    )


class _Forgiving(ListedImages):
    """For images that can't be read, others are given: a sweep that leaves them out draws others, too."""

    def read(self, indices: ArrayLike) -> np.ndarray:
        found = list(self._decoded(np.asarray(indices, dtype=np.int64)))
        fine = cycle([image for image in found if not isinstance(image, Unreadable)])
        try:
            return np.stack([next(fine) if isinstance(image, Unreadable) else image for image in found])
        except StopIteration:
            return super().read(indices)  # says which, and why


def _as_a_sweep_reads(images: ImageSet, settings: SweepSettings) -> ImageSet:
    if settings.images.unreadable == "stop" or not isinstance(images, ListedImages):
        return images
    return _Forgiving(**{part.name: getattr(images, part.name) for part in fields(images)})


def _loaded(reference: str, images: ImageSet, classes: int) -> Network:
    """As a worker has it: its weights are hashed. Random ones cost as much."""
    network = build(reference, images, classes)
    content_hash(network)
    return network


def _pairs(settings: SweepSettings, images: ImageSet, count: int) -> tuple[Tensor, Tensor]:
    """Seeds and targets."""
    drawn = draw_pairs(images.labels, max(count, FEWEST_PAIRS), rng_seed=settings.pairs.rng_seed)
    seed, target = to_unit(images.read(np.concatenate([drawn.seed[:count], drawn.target[:count]]))).split(count)
    return seed, target


Bytes = Callable[[int], int]  # of tensors that so many images at a time have in memory at once


def _memory(
    network: Network, example: Tensor, settings: SweepSettings, precision: Precision
) -> tuple[int, Bytes, Bytes]:
    """Images that a sweep inverts at a time; the bytes of inverting so many, and of looking at them."""
    asked, most = settings.inversion.batch_size, settings.pairs.shard_size
    kept = kept_bytes(invert.update_rule_of(settings.inversion), example)
    engine = Engine(network, example, precision=precision, batch_size=asked, kept_bytes=kept)
    chosen = min(engine.batch_size, most)
    engine.batch_size = 2
    example = example.to(engine.device)

    def looked_at(images: Tensor) -> int:
        with LiveBytes() as live:
            inputs.represent(network, images)
        return live.peak

    iteration, looking = (_growing(work, example) for work in (partial(peak_bytes, engine), looked_at))
    return chosen, lambda count: iteration(count) + kept * count, looking


def _growing(bytes_of: Callable[[Tensor], int], example: Tensor) -> Bytes:
    one, two = (bytes_of(example.expand(count, -1, -1, -1)) for count in (1, 2))
    return lambda count: one + (count - 1) * (two - one)


@dataclass
class _Inverting:
    """Some images, as a sweep inverts a shard."""

    network: Network
    seed: Tensor
    target: Tensor
    inversion: InversionSettings
    precision: Precision

    def __call__(self, iterations: int) -> None:
        short = {"iterations": iterations, "batch_size": len(self.seed), "stop_loss": None}
        invert.invert_by(self.network, self.seed, self.target, self.inversion.model_copy(update=short), self.precision)
        for images in (self.seed, self.target):
            inputs.represent(self.network, images)

    def seconds(self) -> dict[str, Any]:
        """`iteration` and `begin`: a short inversion and a longer one, by turns."""
        short = best(lambda: self(1))
        more = max(2, int(LONG / short))
        each = []
        for _ in range(REPEATS):
            few, many = timed(lambda: self(1))[0], timed(lambda: self(1 + more))[0]
            each.append(max(many - few, 0.0) / more / len(self.seed))
        begin = max(short / len(self.seed) - float(np.median(each)), 0.0)
        return {"iteration": tuple(each), "begin": begin}


def _labelling(
    settings: SweepSettings, network: Network, images: ImageSet, classes: int, *, learns: bool
) -> dict[str, float]:
    """`train` and `ask`: seconds for an image whose label the network learns, or is asked for."""
    training = settings.training
    count = min(TRAINING_STEPS * training.batch_size, len(images)) if learns else min(4 * IMAGES, len(images))
    drawn = np.arange(count)
    some = ArrayImages(images.name, images.read(drawn), images.labels[drawn], images.classes)
    found = {"ask": best(lambda: accuracy(network, some)) / count} if network.num_classes == classes else {}
    times = [time.perf_counter()]
    if learns:
        train_epochs(
            network,
            some,
            epochs=1,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            rng_seed=0,
            on_step=lambda: times.append(time.perf_counter()),
        )
        found["train"] = float(np.median(np.diff(times))) / min(training.batch_size, count)
    return found


def _comparing(settings: SweepSettings, network: Network) -> float:
    """Multiplications a second with which representations of this width are compared."""
    pairs = settings.pairs
    count = min(pairs.count, max(ROWS, 2 * pairs.shard_size))  # of whole shards
    rows = np.random.default_rng(0).normal(size=(count, network.width)).astype(np.float32)
    bounds = range(0, len(rows) + 1, pairs.shard_size)
    shards = [{0: rows[start:stop]} for start, stop in pairwise(bounds)]
    seconds = best(lambda: pair_hsic(shards, [(0, 0)], space="gram"))
    return gram_cost(len(rows), {0: network.width}, [(0, 0)]) / seconds


def best(work: Callable[[], Any]) -> float:
    """The least seconds of some tries."""
    return min(timed(work)[0] for _ in range(REPEATS))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, found


def host_bytes() -> int:
    """Most that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    asked = Asked(**json.load(sys.stdin))
    try:
        print(json.dumps(asdict(probe(asked))))
    except NetsimError as error:
        print(json.dumps({"error": [type(error).__name__, str(error)]}))


if __name__ == "__main__":
    main()
