"""train: weights for networks that have none; metadata of all networks."""

import logging
from dataclasses import asdict
from typing import Any

import numpy as np
from blake3 import blake3

from netsim.cancellation import check_cancelled
from netsim.images import ImageSet, to_unit
from netsim.images.classes import describe_order
from netsim.inversion.calibrate import choose_precision
from netsim.inversion.precision import Precision
from netsim.networks import Network, content_hash, load_network, weights_to_bytes
from netsim.networks.adversarial import robust_accuracy
from netsim.networks.training import predict, train_epochs
from netsim.settings import SweepSettings, TrainingSettings
from netsim.stages.inputs import (
    computed_on,
    count_classes,
    device,
    hash_of_test_images,
    listed_images,
    readable_images,
    require_matching,
    splits_of,
    untrained_network,
)
from netsim.stages.work import StageResult
from netsim.store.layout import (
    checkpoint_path,
    weights_path,
)
from netsim.store.metadata import TrainMetadata
from netsim.store.run import Run

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 8
"""Images that a precision is tried on."""


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Train a network that has no weights, resuming from the last checkpoint if there is one; record metadata of all.

    Raises
    ------
    NetworkError
        If weights do not match the network.
    DataError
        If the network and the images do not match.
    """
    stored, test = run.sweep.network(name), readable_images(run, "test")
    reference, training_settings = stored.reference, stored.training
    splits = splits_of(trained=training_settings is not None)
    classes = count_classes(listed_images(run.settings.images, split) for split in splits)
    files: dict[str, bytes] = {}
    training: dict[str, Any] = {}
    if training_settings is not None:
        seed = training_settings.rng_seed
        network = untrained_network(reference, classes=classes, shape=test.shape, rng_seed=seed).to(device())
        training["training_loss"] = _train(run, name, network, training_settings)
        if training_settings.adversarial is not None:
            withstood = robust_accuracy(network, test, training_settings.adversarial, on_batch=check_cancelled)
            training["robust"] = asdict(withstood)
        files[weights_path(name)] = weights_to_bytes(network)
    else:
        network = load_network(reference, input_shape=test.shape).to(device())
        require_matching(network, test)
    # labels of other classes say nothing about a network
    predicted = predict(network, test) if network.num_classes == classes else None
    notes = [] if predicted is None else describe_order(predicted, test, run.settings.images.class_order)
    for note in notes:
        logger.warning("%s: %s", name, note)
    metadata = TrainMetadata(
        **training,
        notes=[f"{name}: {note}" for note in notes],
        reference=reference,
        identity=stored.identity,
        trained_here=training_settings is not None,
        accuracy=None if predicted is None else float((predicted == test.labels).mean()),
        parameters=sum(p.numel() for p in network.parameters()),
        width=network.width,
        weights_hash=content_hash(network),
        images_hash=hash_of_test_images(run),
        input_shape=test.shape,
        preprocessing=network.preprocessing.to_json(),
        origin=dict(network.origin),
        classes=classes,
        plan=asdict(_precision(run.settings, network, test)),
        **computed_on(),
    )
    return StageResult(files=files, metadata=metadata, obsolete=(checkpoint_path(name),))


def _precision(settings: SweepSettings, network: Network, images: ImageSet) -> Precision:
    """Choose the precision a network is inverted in, once, so that all workers compute their shards alike."""
    sample = np.arange(min(CALIBRATION_IMAGES, len(images)))
    return choose_precision(network, settings.inversion.precision, to_unit(images.read(sample)))


def _train(run: Run, name: str, network: Network, training: TrainingSettings) -> float | None:
    """Train the network in place, keeping a checkpoint of every epoch in the store. Return the last epoch's loss."""
    losses = []

    def keep(_epoch: int, loss: float, state: bytes) -> None:
        losses.append(loss)
        run.files.put(checkpoint_path(name), blake3(state).digest() + state)

    train_epochs(
        network,
        readable_images(run, "train"),
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        rng_seed=training.rng_seed,
        augmentation=training.augmentation,
        adversarial=training.adversarial,
        precision=training.precision,
        state=_last_epoch(run, name),
        on_epoch=keep,
        on_step=check_cancelled,
    )
    return losses[-1] if losses else None


def _last_epoch(run: Run, name: str) -> bytes | None:
    """Read the checkpoint that an interrupted training left. A damaged one counts as none: training starts over."""
    checkpoint = run.files.get_or_none(checkpoint_path(name)) or b""
    digest, state = checkpoint[: blake3.digest_size], checkpoint[blake3.digest_size :]
    return state if digest == blake3(state).digest() else None
