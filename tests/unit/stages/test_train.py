"""Networks are trained or checked: checkpoints, classes, and metadata."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netsim.cancellation import cancellation
from netsim.networks import content_hash, load_network
from netsim.networks.training import accuracy
from netsim.planning import preflight
from netsim.planning.resolve import resolve
from netsim.settings import SweepSettings
from netsim.stages import inputs, train
from netsim.stages.work import compute_unit
from netsim.store import provenance
from netsim.store.metadata import TrainMetadata
from netsim.store.stages import TRAIN
from support.image_formats import png
from support.sweeps import new_run, run_all, tiny
from tasks.prepare import prepare


def test_training_starts_over_from_a_damaged_checkpoint(finished, tmp_path):
    run = new_run(str(tmp_path / "run"), finished.settings)
    run.files.put("training/vgg.checkpoint", b"damaged")
    compute_unit(run, TRAIN, "vgg", 0)
    assert provenance.weights_hash(run, "vgg") == provenance.weights_hash(finished, "vgg")


def noise_settings(folder: Path, **changes: Any) -> SweepSettings:
    """Return the settings of a sweep on 24 images of noise; the training images have one class more."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(24, 28, 28), dtype=np.uint8)
    arrays = {"x_train": pixels, "y_train": np.arange(24) % 4, "x_test": pixels, "y_test": np.arange(24) % 3}
    np.savez(folder / "some.npz", **arrays)
    source, networks = {"source": f"npz:{folder}/some.npz"}, ["small:vgg", "small:resnet18@none"]
    return tiny(images=source, networks=networks, pairs={"count": 8, "shard_size": 4}, **changes)


def test_a_class_that_only_the_training_images_have_is_learned(tmp_path):
    """Without names of classes, the largest label counts them, and it may differ between splits."""
    settings = noise_settings(tmp_path)
    preflight.preflight(resolve(settings, str(tmp_path / "run")))
    metadata = compute_unit(new_run(str(tmp_path / "run"), settings), TRAIN, "vgg", 0).facts
    assert metadata["classes"] == 4 and metadata["accuracy"] is not None


def test_training_does_not_resume_from_a_checkpoint_with_a_flipped_bit(tmp_path):
    """It would end in weights that every later check accepts."""
    run = new_run(str(tmp_path / "run"), tiny())
    network = inputs.untrained_network("small:vgg", classes=10, shape=(1, 28, 28), rng_seed=0)
    train._train(run, "vgg", network, run.settings.training)
    kept = bytearray(run.files.get("training/vgg.checkpoint"))
    assert train._last_epoch(run, "vgg") == kept[32:]
    kept[-1] ^= 1
    run.files.put("training/vgg.checkpoint", bytes(kept))
    assert train._last_epoch(run, "vgg") is None


class StopError(Exception):
    """Raised to interrupt a training."""


def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Of three epochs, one is complete when the training stops."""
    settings = noise_settings(tmp_path, training={"epochs": 3, "batch_size": 8})
    whole, interrupted = (new_run(str(tmp_path / name), settings) for name in ("whole", "interrupted"))
    expected, steps = compute_unit(whole, TRAIN, "vgg", 0), []

    def stop_in_the_second_epoch() -> None:
        if interrupted.files.exists("training/vgg.checkpoint"):
            raise StopError

    with cancellation(stop_in_the_second_epoch), pytest.raises(StopError):
        compute_unit(interrupted, TRAIN, "vgg", 0)
    assert interrupted.done("train") == {}
    monkeypatch.setattr(train, "check_cancelled", lambda: steps.append("step"))
    record = compute_unit(interrupted, TRAIN, "vgg", 0)
    assert record.content == expected.content and record.facts == expected.facts
    assert len(steps) == 1 + 6  # images are read once, and two epochs have three steps each
    assert not interrupted.files.exists("training/vgg.checkpoint")


def test_metadata_of_a_network_that_is_not_trained_are_those_of_the_network(finished):
    metadata = TrainMetadata.of(finished.record("train", "resnet18"))
    network = load_network("small:resnet18@none", num_classes=10, input_shape=(1, 28, 28))
    assert not metadata.trained_here and metadata.training_loss is None
    assert finished.record("train", "resnet18").files == {}
    assert metadata.weights_hash == content_hash(network)
    assert metadata.parameters == sum(weights.numel() for weights in network.parameters())
    assert (metadata.width, metadata.classes) == (network.width, 10)
    assert metadata.accuracy == accuracy(network, inputs.readable_images(finished, "test"))


def test_a_trained_network_is_better_than_an_untrained_one(finished):
    trained, untrained = (TrainMetadata.of(finished.record("train", name)) for name in ("vgg", "resnet18"))
    assert trained.trained_here and trained.accuracy > 0.5 > untrained.accuracy
    assert list(finished.record("train", "vgg").files) == ["weights/vgg.safetensors"]


@pytest.mark.parametrize(("order", "expected"), [("listed", 2 / 12), ("natural", 1.0)])
def test_a_network_trained_on_another_order_of_classes_is_noted(tmp_path, monkeypatch, order, expected):
    """The network sees the number in the first pixel; the folders are called 0 to 11."""
    for number in range(12):
        pixels = np.full((8, 8, 3), 20 * number, dtype=np.uint8)
        (tmp_path / "images" / str(number)).mkdir(parents=True)
        (tmp_path / "images" / str(number) / "x.png").write_bytes(png(pixels))
    (tmp_path / "counting_network.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = tiny(
        images={"source": f"folder:{tmp_path}/images", "size": 8, "class_order": order},
        networks=["python:counting_network:load", "other=python:counting_network:load"],
        pairs={"count": 8, "shard_size": 4},
    )
    run = prepare(settings, str(tmp_path / "run"))
    run_all(run, only=("check", "train"))
    facts = run.record("train", "load").facts
    assert facts["accuracy"] == expected
    assert [("would be 100.0%" in note, "class_order=natural" in note) for note in facts["notes"]] == (
        [(True, True)] if order == "listed" else []
    )


COUNTING = """
import torch
from torch import nn
from netsim import Preprocessing

class First(nn.Module):
    def forward(self, x):
        return torch.exp(-((x[:, 0, :1, 0] * 255 / 20 - torch.arange(12)) ** 2))

def load():
    head = nn.Linear(12, 12, bias=False)
    head.weight.data = torch.eye(12)
    network = nn.Sequential(First(), head)
    network.preprocessing = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=8)
    return network
"""
