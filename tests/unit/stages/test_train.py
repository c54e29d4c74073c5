"""Networks are trained or checked: checkpoints, classes, and metadata."""

import numpy as np

from netsim.planning import preflight
from netsim.stages import inputs, train
from netsim.stages.work import compute_unit
from netsim.store import provenance
from netsim.store.run import Run
from netsim.store.stages import TRAIN
from support.sweeps import tiny


def test_training_starts_over_from_a_damaged_checkpoint(finished, tmp_path):
    run = Run.create(str(tmp_path / "run"), finished.settings)
    run.files.put("training/vgg.checkpoint", b"damaged")
    compute_unit(run, TRAIN, "vgg", 0)
    assert provenance.weights_hash(run, "vgg") == provenance.weights_hash(finished, "vgg")


def test_a_class_that_only_the_training_images_have_is_learned(tmp_path):
    """Without names of classes, the largest label counts them, and it may differ between splits."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(24, 28, 28), dtype=np.uint8)
    arrays = {"x_train": pixels, "y_train": np.arange(24) % 4, "x_test": pixels, "y_test": np.arange(24) % 3}
    np.savez(tmp_path / "some.npz", **arrays)
    source = {"source": f"npz:{tmp_path}/some.npz"}
    settings = tiny(images=source, networks=["small:vgg", "small:resnet18@none"], pairs={"count": 8, "shard_size": 4})
    preflight.preflight(settings)
    metadata = compute_unit(Run.create(str(tmp_path / "run"), settings), TRAIN, "vgg", 0).facts
    assert metadata["classes"] == 4 and metadata["accuracy"] is not None


def test_training_does_not_resume_from_a_checkpoint_with_a_flipped_bit(tmp_path):
    """It would end in weights that every later check accepts."""
    run = Run.create(str(tmp_path / "run"), tiny())
    train._train(run, "vgg", inputs.untrained_network(run.settings, "small:vgg", classes=10, shape=(1, 28, 28)))
    kept = bytearray(run.files.get("training/vgg.checkpoint"))
    assert train._last_epoch(run, "vgg") == kept[32:]
    kept[-1] ^= 1
    run.files.put("training/vgg.checkpoint", bytes(kept))
    assert train._last_epoch(run, "vgg") is None
