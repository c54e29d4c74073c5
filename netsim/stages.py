"""The stages of a sweep. Each piece of work takes a run, a name and a shard, reads the store, and writes the store.

    check      the images                 which can't be read, content hash
    train      a network                  weights, content hash, test accuracy
    draw       pairs, a shard             indices, labels, seed and target images
    invert     a network, a shard         inverted images, losses
    embed      a set, a shard             what every observer says of the set's images
    aggregate  a row of a matrix          the sums its CKA is made of, over all shards and with each left out
    report     the run                    one page, figures, tables (netsim/sweep.py)

A set is `natural` (the targets) or `inverted/<through>`. Arrays pass between stages only through the store, so any
piece runs on any machine, alone, again. Nothing here knows who schedules it.
"""

import logging
import platform
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from blake3 import blake3

from netsim.errors import DataError, NetsimError, NetworkError, StoreError
from netsim.images import ImageSet, ListedImages, Split, load_images, to_unit
from netsim.images.pairs import draw_pairs
from netsim.inversion.calibrate import choose_plan
from netsim.inversion.engine import relative_distance
from netsim.inversion.flops import forward_flops, peak_flops
from netsim.inversion.invert import Inversion, OnIteration, invert_batches
from netsim.inversion.precision import Plan
from netsim.inversion.steps import Steps, preset_steps
from netsim.networks import Network, Shape, content_hash, load_network, load_weights, needs_training, weights_to_bytes
from netsim.networks.training import accuracy, train_epochs
from netsim.references import has_photographs
from netsim.settings import InversionSettings, SweepSettings
from netsim.similarity.hsic import Hsic
from netsim.similarity.streaming import pair_hsic
from netsim.storage.stopwatch import Stopwatch
from netsim.store import stages
from netsim.store.arrays import ArraySpec
from netsim.store.layout import (
    MOMENTS,
    NATURAL,
    PAIR_COLUMNS,
    QUANTITIES,
    checkpoint_path,
    to_stored,
    weights_path,
    aggregate_arrays,
    draw_arrays,
    embed_arrays,
    from_stored,
    history_iterations,
    invert_arrays,
    inverted,
    moments_path,
    representation_path,
    row_pairs,
    row_parts,
)
from netsim.store.provenance import check_weights, made_from, weights_hash
from netsim.store.records import Record
from netsim.store.run import Run
from netsim.store.stages import Unit, Units

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What came of one unit: arrays and files by their path in the store, and facts for its record."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    obsolete: tuple[str, ...] = ()  # files that are not needed once the record is there


@dataclass(frozen=True)
class Stage:
    """A kind of work: its units, the arrays it fills, and how the work of one unit is computed."""

    units: Units
    arrays: Callable[[Run], list[ArraySpec]]
    compute: Callable[[Run, str, int], Work]

    @property
    def name(self) -> str:
        return self.units.stage

    def missing(self, run: Run) -> list[tuple[str, int]]:
        return self.units.missing(run)

    def prepare(self, run: Run) -> None:
        """Create the arrays this stage fills. Once, before its work fans out."""
        run.create_arrays(self.arrays(run))

    def work(self, run: Run, name: str, shard: int) -> Record:
        """Compute a unit and commit it."""
        watch = Stopwatch()
        return self.commit(run, name, shard, self.compute(run, name, shard), watch())

    def commit(self, run: Run, name: str, shard: int, work: Work, seconds: float) -> Record:
        """Make a unit done that took `seconds` to compute."""
        record = run.commit(
            self.name, name, shard, arrays=work.arrays, files=work.files, facts=work.facts, seconds=seconds
        )
        for path in work.obsolete:
            run.files.remove(path)
        return record


class ShardError(Exception):
    """What nobody foresaw happened in the work of one shard: stage, name, shard, and the traceback as text."""

    def __init__(self, stage: str, name: str, shard: int, traceback: str) -> None:
        super().__init__(stage, name, shard, traceback)
        self.unit: Unit = (stage, name, shard)
        self.traceback = traceback
        self.worker: str | None = None  # its address, where there is one

    def __str__(self) -> str:
        return f"{' '.join(map(str, self.unit))}: {self.traceback.strip().splitlines()[-1]}"


def work_through(
    run: Run,
    stage: Stage,
    name: str,
    shards: Iterable[int],
    *,
    may_begin: Callable[[int], bool] = lambda _: True,
    took: Callable[[float], None] = lambda _: None,
) -> Iterator[Record]:
    """Compute those of the shards that are not done; each is committed while the next is computed.

    Two shards' values are in memory at a time, and both are computed again if the process is killed just then. Before
    each shard, `may_begin` is asked with its number, and the work ends where it says no; `took` is told the seconds of
    each that was computed. Raises NetsimError, or ShardError for what nobody foresaw.
    """
    with ThreadPoolExecutor(1) as writer:
        writing: tuple[int, Future[Record]] | None = None
        for shard in shards:
            if run.is_done(stage.name, name, shard):
                continue
            if not may_begin(shard):
                break
            with _of_shard(stage, name, shard):
                watch = Stopwatch()
                work = stage.compute(run, name, shard)
                seconds = watch()
            took(seconds)
            if writing:
                yield _written(run, stage, name, *writing)
            writing = shard, writer.submit(stage.commit, run, name, shard, work, seconds)
        if writing:
            yield _written(run, stage, name, *writing)


@contextmanager
def _of_shard(stage: Stage, name: str, shard: int) -> Iterator[None]:
    try:
        yield
    except NetsimError:
        raise
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        raise ShardError(stage.name, name, shard, text) from error


def _written(run: Run, stage: Stage, name: str, shard: int, writing: Future[Record]) -> Record:
    with _of_shard(stage, name, shard):
        watch = Stopwatch()
        record = writing.result()
        run.seconds_waited += watch()
        return record


# ---- check


def check_images(run: Run, name: str, shard: int) -> Work:
    """Decode every photograph that the run may use, once. Records which can't be read, and what there is without them.

    Raises DataError that names and counts those, unless `images.unreadable` is `skip`; or if too few are left.
    """
    settings = run.settings.images
    found: dict[Split, tuple[ListedImages, dict[int, str]]] = {}
    for split in used_splits(run.settings):
        images = _load_images(settings.source, split, settings.size)
        assert isinstance(images, ListedImages)
        found[split] = images, images.unreadable(partial(_say_progress, run, split, len(images)))
    complaints = [images.complain(faults, of=len(images)) for images, faults in found.values() if faults]
    if complaints and settings.unreadable == "stop":
        raise DataError(
            f"{'; '.join(complaints)}. Mend or remove them; or, in another --store, leave them out: "
            "--set images.unreadable=skip"
        )
    for complaint in complaints:
        logger.warning("%s; left out", complaint)
    test, faults = found["test"]
    draw_pairs(test.without(list(faults)).labels, run.settings.pairs.count)
    return Work(facts={split: _checked_facts(*checked) for split, checked in found.items()})


def used_splits(settings: SweepSettings) -> list[Split]:
    """The test images, and those that networks without weights are trained on."""
    trained = any(needs_training(settings.reference(name)) for name in settings.names)
    return ["test", "train"] if trained else ["test"]


def used_images(settings: SweepSettings) -> dict[Split, ImageSet]:
    """All that is listed in those splits, listed anew."""
    of = settings.images
    return {split: load_images(of.source, split, of.size) for split in used_splits(settings)}


def _say_progress(run: Run, split: Split, total: int, done: int) -> None:
    run.pulse()
    if done % PROGRESS == 0:
        logger.info("%d of %d %s images looked at", done, total, split)


PROGRESS = 5000
"""Images between two lines of the log."""


def _checked_facts(images: ListedImages, faults: Mapping[int, str]) -> dict[str, Any]:
    return {
        "listed": len(images),
        "listed_hash": images.content_hash(),
        "unreadable": [{"index": index, "name": images.names[index], "why": why} for index, why in faults.items()],
        "images_hash": images.without(list(faults)).content_hash(),
    }


# ---- train


def train_network(run: Run, name: str, shard: int) -> Work:
    """Train a network that has no weights, going on where an earlier try ended; of any other, record what it is.

    Raises NetworkError if weights do not fit, DataError if the network and the images do not.
    """
    reference, test = run.settings.reference(name), _images(run, "test")
    trained_here, of = needs_training(reference), run.settings.images
    classes = classes_of(_load_images(of.source, split, of.size) for split in used_splits(run.settings))
    files: dict[str, bytes] = {}
    facts: dict[str, Any] = {}
    if trained_here:
        network = _untrained(run.settings, reference, classes=classes, shape=test.shape).to(device())
        facts["training_loss"] = _train(run, name, network)
        files[weights_path(name)] = weights_to_bytes(network)
    else:
        network = load_network(reference, input_shape=test.shape).to(device())
        check_classes(network, test)
    facts |= {
        "reference": reference,
        "trained_here": trained_here,
        # labels of other classes say nothing about a network
        "accuracy": accuracy(network, test) if network.num_classes == classes else None,
        "parameters": sum(p.numel() for p in network.parameters()),
        "width": network.width,
        "weights_hash": content_hash(network),
        "images_hash": _images_hash(run),
        "input_shape": list(test.shape),
        "preprocessing": network.preprocessing.as_facts(),
        "origin": dict(network.origin),
        "classes": classes,
        "plan": asdict(_plan(run.settings, network, test)),
        **_where(),
    }
    return Work(files=files, facts=facts, obsolete=(checkpoint_path(name),))


def classes_of(sets: Iterable[ImageSet]) -> int:
    """Classes that networks are trained for. Where they have no names, the last may be in one of the splits only."""
    return max(len(images.classes) for images in sets)


def _plan(settings: SweepSettings, network: Network, images: ImageSet) -> Plan:
    """The precision this network is inverted in: chosen once, so that every worker's shards are computed alike."""
    sample = np.arange(min(CALIBRATION_IMAGES, len(images)))
    return choose_plan(network, settings.inversion.precision, to_unit(images.read(sample)))


CALIBRATION_IMAGES = 8


def _train(run: Run, name: str, network: Network) -> float | None:
    """Train the network in place, keeping every epoch in the store; returns the last epoch's loss."""
    training, losses = run.settings.training, []

    def keep(_epoch: int, loss: float, state: bytes) -> None:
        losses.append(loss)
        run.files.put(checkpoint_path(name), blake3(state).digest() + state)

    train_epochs(
        network,
        _images(run, "train"),
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        rng_seed=training.rng_seed,
        state=_last_epoch(run, name),
        on_epoch=keep,
        on_step=run.pulse,
    )
    return losses[-1] if losses else None


def _last_epoch(run: Run, name: str) -> bytes | None:
    """Where an interrupted training goes on. A damaged file is as good as none: training begins anew."""
    kept = run.files.find(checkpoint_path(name)) or b""
    digest, state = kept[: blake3.digest_size], kept[blake3.digest_size :]
    return state if digest == blake3(state).digest() else None


def _untrained(settings: SweepSettings, reference: str, *, classes: int, shape: Shape) -> Network:
    seed = settings.training.rng_seed
    return load_network(f"{reference}@none", num_classes=classes, input_shape=shape, rng_seed=seed)


def check_classes(network: Network, images: ImageSet) -> None:
    """Raises DataError if the images have labels that the network has no output for."""
    if network.num_classes < len(images.classes):
        raise DataError(
            f"{network.reference} tells {network.num_classes} classes apart, the images have {len(images.classes)}"
        )


def network(run: Run, name: str) -> Network:
    """The network called `name`, exactly as the run recorded it; loaded once in a process.

    Raises StoreError if the weights behind its reference are no longer those the run began with.
    """
    return _network(run.url, name, weights_hash(run, name))


NETWORKS_KEPT = 64
"""By a worker, more than a sweep has: what does not fit would be loaded again for every shard."""


@lru_cache(maxsize=NETWORKS_KEPT)
def _network(url: str, name: str, weights_hash: str) -> Network:
    run = Run.open(url)
    record = run.record("train", name)
    reference, shape = run.settings.reference(name), tuple(record.facts["input_shape"])
    if record.facts["trained_here"]:
        loaded = _untrained(run.settings, reference, classes=record.facts["classes"], shape=shape)
        load_weights(loaded, run.read_file(record, weights_path(name)))
    else:
        loaded = load_network(reference, input_shape=shape)
    if content_hash(loaded) != weights_hash:
        raise StoreError(
            f"the weights of {reference} are not those this run began with; changed weights need a new --store"
        )
    return loaded.eval().to(device())


def device() -> torch.device:
    """A GPU where there is one. Its convolutions then work in float32 as they say, not in TF32."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def _where() -> dict[str, Any]:
    """What the last bits of a result may depend on."""
    name = torch.cuda.get_device_name() if device().type == "cuda" else platform.machine()
    return {"device": f"{device().type} {name}", "threads": torch.get_num_threads()}


@lru_cache(maxsize=4)
def _load_images(source: str, split: Split, size: int | None) -> ImageSet:
    return load_images(source, split, size)


@lru_cache(maxsize=4)
def _readable(source: str, split: Split, size: int | None, listed_hash: str, left_out: tuple[int, ...]) -> ImageSet:
    """Those images of a list that was looked at which can be read. Raises StoreError for another list."""
    images = _load_images(source, split, size)
    assert isinstance(images, ListedImages)
    if images.content_hash() != listed_hash:
        raise _changed(images)
    return images.without(left_out)


def _images(run: Run, split: Split) -> ImageSet:
    """The images that the run uses: all of them that were found to be readable."""
    settings = run.settings.images
    if not has_photographs(settings.source):
        return _load_images(settings.source, split, settings.size)
    checked = _checked(run)[split]
    left_out = tuple(image["index"] for image in checked["unreadable"])
    return _readable(settings.source, split, settings.size, checked["listed_hash"], left_out)


@lru_cache(maxsize=4)
def _hash(source: str, size: int | None) -> str:
    return _load_images(source, "test", size).content_hash()


def _images_hash(run: Run) -> str:
    """Of the test images that the run uses."""
    settings = run.settings.images
    if not has_photographs(settings.source):
        return _hash(settings.source, settings.size)
    _images(run, "test")  # they are still those that were looked at
    return str(_checked(run)["test"]["images_hash"])


def _checked(run: Run) -> dict[str, Any]:
    if not run.checked:
        run.checked = run.record("check", "images").facts
    return run.checked


def _changed(images: ImageSet) -> StoreError:
    return StoreError(f"the images of {images.name} changed since this run began; changed images need a new --store")


# ---- draw


def draw_shard(run: Run, name: str, shard: int) -> Work:
    """Draw a shard's pairs and keep their images, so that no later stage needs the image source.

    Raises StoreError if the images are no longer those that the networks were trained or checked with.
    """
    images, pairs = _images(run, "test"), run.settings.pairs
    if run.record("train", run.settings.names[0]).facts["images_hash"] != _images_hash(run):
        raise _changed(images)
    drawn = draw_pairs(images.labels, pairs.shard_size, rng_seed=pairs.rng_seed, start=shard * pairs.shard_size)
    arrays = {f"pairs/{column}": getattr(drawn, column) for column in PAIR_COLUMNS}
    arrays |= {"images/seed": images.read(drawn.seed), "images/target": images.read(drawn.target)}
    facts = {"source": images.name, "images_hash": _images_hash(run), "classes": list(images.classes)}
    return Work(arrays, facts=facts)


# ---- invert


def invert_shard(run: Run, name: str, shard: int) -> Work:
    """Invert the network on a shard's pairs. The final loss is measured again on the images as they are stored."""
    drawn, inversion = run.record("draw", "pairs", shard), run.settings.inversion
    images = run.read_some(drawn, ["images/seed", "images/target"])
    seed, target = (to_unit(images[f"images/{kind}"]) for kind in ("seed", "target"))
    through, plan = network(run, name), Plan(**run.record("train", name).facts["plan"])
    result = invert_by(through, seed, target, inversion, plan, on_iteration=lambda _: run.pulse())
    stored = to_stored(result.images, inversion.stored_as)
    final = relative_distance(look(through, from_stored(stored)), look(through, target))
    columns = {name: getattr(result, name).numpy() for name in QUANTITIES if name != "final_loss"}
    columns |= {"final_loss": final.numpy(), "nonfinite": columns["nonfinite"] | ~np.isfinite(final.numpy())}
    history = result.history[history_iterations(inversion.iterations)].T.numpy()
    arrays = {
        f"{inverted(name)}/image": stored,
        f"{inverted(name)}/history": history.astype(np.float32),
        f"{inverted(name)}/losses": np.stack([columns[key].astype(np.float32) for key in QUANTITIES], axis=1),
    }
    median = float(final.median())
    facts = {
        "weights": {name: weights_hash(run, name)},
        "made_from": made_from([drawn.content]),
        "median_loss": median if np.isfinite(median) else None,
        "precision": str(plan),
        "batch_size": result.batch_size,
        "iterations": int(result.iterations.sum()),
        "flops": 2 * _flops_of_one(run.url, name, weights_hash(run, name)) * int(result.iterations.sum()),
        "peak_flops": peak_flops(str(device()), plan.dtype),
    }
    return Work(arrays, facts=facts | _where())


def invert_by(
    network: Network,
    seed: torch.Tensor,
    target: torch.Tensor,
    inversion: InversionSettings,
    plan: Plan,
    *,
    on_iteration: OnIteration | None = None,
) -> Inversion:
    """Invert pairs of images as settings say."""
    return invert_batches(
        network,
        seed,
        target,
        batch_size=inversion.batch_size,
        iterations=inversion.iterations,
        steps=steps_of(inversion),
        stop_loss=inversion.stop_loss,
        plan=plan,
        use_best=True,
        on_iteration=on_iteration,
    )


def steps_of(inversion: InversionSettings) -> Steps:
    return preset_steps(inversion.preset, step_size=inversion.step_size, momentum=inversion.momentum)


@lru_cache(maxsize=NETWORKS_KEPT)
def _flops_of_one(url: str, name: str, weights_hash: str) -> int:
    """Of representing one image."""
    one = _network(url, name, weights_hash)
    return forward_flops(one, one.mean.new_zeros(1, *Run.open(url).record("train", name).facts["input_shape"]))


def look(network: Network, images: torch.Tensor) -> torch.Tensor:
    """The representation (n, d), on the CPU."""
    with torch.no_grad():
        return torch.cat([network.represent(batch.to(device())).cpu() for batch in images.split(LOOK_BATCH)])


LOOK_BATCH = 32
"""Images that a network looks at at once: shards may be larger than memory."""


# ---- embed


def embed_shard(run: Run, name: str, shard: int) -> Work:
    """What every network says of a shard of the set `name`. Raises NetworkError for values that are not finite."""
    images, source = set_images(run, name, shard)
    arrays = {}
    for observer in run.settings.names:
        representation = look(network(run, observer), images).numpy().astype(np.float32)
        if not np.isfinite(representation).all():
            raise NetworkError(f"{observer} represents images of {name}, shard {shard}, by values that are not finite")
        arrays[representation_path(name, observer)] = representation
    weights = {observer: weights_hash(run, observer) for observer in run.settings.names}
    return Work(arrays, facts={"weights": weights, "made_from": made_from([source.content]), **_where()})


def set_images(run: Run, set_name: str, shard: int) -> tuple[torch.Tensor, Record]:
    """A shard's images of a set (n, C, H, W), float32 in [0, 1], and the record that covers them.

    Raises StoreError if they are missing or damaged.
    """
    if set_name == NATURAL:
        record = run.record("draw", "pairs", shard)
        return to_unit(run.read(record, "images/target")), record
    record = run.record("invert", set_name.removeprefix("inverted/"), shard)
    check_weights(run, record)
    return from_stored(run.read(record, f"{set_name}/image")), record


# ---- aggregate


def aggregate_row(run: Run, name: str, shard: int) -> Work:
    """The sums that CKA of a row of a matrix is made of, over all shards, and with each left out.

    Raises StoreError unless every shard of the set is done and unharmed.
    """
    set_name, _ = row_parts(name)
    pairs = row_pairs(run.settings.names, name)
    needed = tuple(dict.fromkeys(network for pair in pairs for network in pair))
    records = run.records("embed", set_name, range(run.settings.pairs.shards))
    for record in records:
        check_weights(run, record)
    found = pair_hsic([partial(_representations, run, record, needed) for record in records], pairs)
    moments = np.array([[getattr(found[pair], moment) for moment in MOMENTS] for pair in pairs])
    return Work({moments_path(name): moments}, facts={"made_from": made_from(record.content for record in records)})


def row_sums(run: Run, row: str) -> dict[tuple[str, str], Hsic]:
    """What `aggregate_row` stored, by model pair."""
    record, pairs = run.record("aggregate", row), run.settings.pairs
    n = np.array([pairs.count, *[pairs.count - pairs.shard_size] * pairs.shards])
    moments = run.read(record, moments_path(row))
    return {pair: Hsic(n, *own) for pair, own in zip(row_pairs(run.settings.names, row), moments, strict=True)}


def _representations(run: Run, record: Record, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    paths = {name: representation_path(record.name, name) for name in names}
    found = run.read_some(record, list(paths.values()))
    return {name: found[path] for name, path in paths.items()}


# ---- the stages


CHECK = Stage(stages.CHECK, lambda run: [], check_images)
TRAIN = Stage(stages.TRAIN, lambda run: [], train_network)
DRAW = Stage(stages.DRAW, draw_arrays, draw_shard)
INVERT = Stage(stages.INVERT, invert_arrays, invert_shard)
EMBED = Stage(stages.EMBED, embed_arrays, embed_shard)
AGGREGATE = Stage(stages.AGGREGATE, aggregate_arrays, aggregate_row)
