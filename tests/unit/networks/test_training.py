"""Training: it learns, it is the same every time, and it goes on where it stopped to the same bits."""

import numpy as np
import pytest
import torch

from netsim.errors import DataError, NetworkError, SettingsError
from netsim.images import ArrayImages, load_images
from netsim.images.formats.fashion_mnist import CLASSES
from netsim.networks import content_hash, load_network, training
from netsim.networks.batches import Batches
from netsim.networks.training import accuracy, augmented, one_cycle, train_epochs
from netsim.settings import AdversarialSettings


def first(count: int) -> ArrayImages:
    images = load_images("fashion-mnist", "train")
    return ArrayImages("few", images.read(range(count)), images.labels[:count], CLASSES)


SETTINGS = {"epochs": 3, "batch_size": 32, "learning_rate": 0.05, "weight_decay": 1e-3, "rng_seed": 0}


def trained(name: str, images: ArrayImages, **changes) -> str:
    """The hash of a network's weights after training."""
    network = load_network(f"small:{name}")
    train_epochs(network, images, **(SETTINGS | changes))
    return content_hash(network)


def test_training_beats_chance_by_far():
    network, test = load_network("small:vgg"), load_images("fashion-mnist")
    assert 0 <= accuracy(network, test) < 0.3
    losses = []
    train_epochs(
        network,
        load_images("fashion-mnist", "train"),
        **(SETTINGS | {"epochs": 2}),
        on_epoch=lambda epoch, loss, state: losses.append(loss),
    )
    assert losses[1] < losses[0] < np.log(10) + 0.1
    assert accuracy(network, test) > 0.7


@pytest.mark.parametrize("name", ["vgg", "mobilenet"])  # both with dropout
def test_a_training_that_was_stopped_ends_with_the_bits_of_one_that_was_not(name):
    images = first(100)
    states = []
    whole = trained(name, images, on_epoch=lambda epoch, loss, state: states.append(state))
    assert len(states) == 3
    for state in states:
        assert trained(name, images, state=state) == whole


def test_epochs_are_counted_from_one_and_over_a_restart():
    seen = []
    trained("vgg", first(100), on_epoch=lambda epoch, loss, state: seen.append((epoch, state)))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    again = []
    trained("vgg", first(100), state=seen[0][1], on_epoch=lambda epoch, loss, state: again.append((epoch, state)))
    assert again == seen[1:]


def test_training_is_a_function_of_its_settings():
    images = first(100)
    hashes = [trained("vgg", images), trained("vgg", images, rng_seed=1), trained("vgg", images, weight_decay=0.1)]
    assert len(set(hashes)) == 3
    torch.manual_seed(7)  # nor of the random numbers around it
    assert trained("vgg", images) == hashes[0]


def test_training_leaves_the_random_numbers_around_it_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    trained("vgg", first(64), epochs=1)
    assert torch.rand(1) == expected


def test_a_trained_network_evaluates_and_asks_for_no_weight_gradients():
    network = load_network("small:vgg")
    train_epochs(network, first(64), **(SETTINGS | {"epochs": 1}))
    assert not any(module.training for module in network.modules())
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())


def test_weight_decay_acts_on_every_parameter():
    network = load_network("small:vgg")
    before = {name: p.clone() for name, p in network.named_parameters()}
    images = ArrayImages("black", np.zeros((64, 1, 28, 28), np.uint8), np.zeros(64, np.int64), CLASSES)
    train_epochs(network, images, **(SETTINGS | {"epochs": 1, "weight_decay": 1.0}))
    gains = [name for name, p in before.items() if p.ndim == 1 and bool((p == 1).all())]
    assert len(gains) == 5  # BatchNorm's
    assert all(bool((network.get_parameter(name).abs() < 1).all()) for name in gains)


def test_images_of_fewer_than_a_batch_are_one_batch():
    assert trained("vgg", first(20), batch_size=1000, epochs=1) == trained("vgg", first(20), batch_size=20, epochs=1)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    rates = np.array([one_cycle(k / 1000) for k in range(1000)])
    assert 0 < rates[0] < 0.1 and rates.max() == pytest.approx(1, abs=1e-2) and 0 <= rates[-1] < 1e-4
    peak = rates.argmax()
    assert 240 <= peak <= 260
    assert (np.diff(rates[:peak]) > 0).all() and (np.diff(rates[peak:]) < 0).all()


def test_accuracy_is_the_share_of_right_answers_however_many_images_are_read_and_evaluated_at_once(monkeypatch):
    network, images = load_network("small:vgg"), first(50)
    with torch.no_grad():
        answers = network(torch.from_numpy(images.pixels).float() / 255).argmax(dim=1).numpy()
    expected = float(np.mean(answers == images.labels))
    for size in (1, 7, 50, 64, training.READ_AT_ONCE):
        monkeypatch.setattr(training, "READ_AT_ONCE", size)
        monkeypatch.setattr(
            training, "evaluation_batches", lambda network, _, size=size: Batches(network, 1 + size // 2)
        )
        assert accuracy(network, images) == expected


def test_a_network_with_too_few_answers_is_refused():
    network = load_network("small:vgg", num_classes=3)
    for use in (lambda: accuracy(network, first(10)), lambda: train_epochs(network, first(10), **SETTINGS)):
        with pytest.raises(DataError, match="vgg must have an output for each of the 10 classes of few, got 3"):
            use()


def test_a_training_that_explodes_says_so():
    with pytest.raises(NetworkError, match=r"training vgg diverged in epoch \d. Lower the learning rate"):
        trained("vgg", first(100), learning_rate=1e18)


def test_a_state_of_another_network_is_refused():
    states = []
    trained("vgg", first(64), epochs=1, on_epoch=lambda epoch, loss, state: states.append(state))
    with pytest.raises(SettingsError, match="the training state must be of resnet18, got another network"):
        trained("resnet18", first(64), state=states[0])


def test_images_that_fit_in_memory_are_decoded_once_and_others_in_every_epoch(monkeypatch):
    class Decoded:
        """Images that are decoded when they are read, as photographs are."""

        def __init__(self, images):
            self._images, self.read_of = images, []
            self.name, self.labels, self.classes, self.shape = images.name, images.labels, images.classes, images.shape

        def __len__(self):
            return len(self._images)

        def read(self, indices):
            self.read_of.extend(np.asarray(indices).tolist())
            return self._images.read(indices)

    small, large = Decoded(first(96)), Decoded(first(96))
    expected = trained("vgg", first(96))
    assert trained("vgg", small) == expected
    assert sorted(small.read_of) == list(range(96))
    monkeypatch.setattr(training, "HELD_BYTES", 96 * 28 * 28 - 1)
    assert trained("vgg", large) == expected
    assert len(large.read_of) == 3 * 96


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_adversarial_training_that_was_stopped_ends_with_the_bits_of_one_that_was_not(precision):
    attacked = {"adversarial": AdversarialSettings(eps=0.5, steps=2, random_start=True), "augmentation": "crop"}
    attacked |= {"precision": precision}
    images, states = first(96), []
    whole = load_network("small:vgg")
    train_epochs(whole, images, **SETTINGS, **attacked, on_epoch=lambda epoch, loss, state: states.append(state))
    resumed = load_network("small:vgg")
    train_epochs(resumed, images, **SETTINGS, **attacked, state=states[0])
    assert content_hash(resumed) == content_hash(whole) != trained("vgg", images)


def test_a_step_in_bfloat16_is_that_of_autocast_and_changes_weights_of_float32():
    images = first(32)
    once = SETTINGS | {"epochs": 1, "weight_decay": 0.0, "augmentation": "none"}
    network, full = load_network("small:resnet18"), load_network("small:resnet18")
    train_epochs(network, images, **once, precision="bfloat16")
    train_epochs(full, images, **once)

    slow = load_network("small:resnet18").requires_grad_(True)
    before = {name: weight.detach().clone() for name, weight in slow.named_parameters()}
    order = np.random.default_rng([once["rng_seed"], 0]).permutation(32)
    slow.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = slow.head(slow.body(slow.normalised(torch.from_numpy(images.pixels[order]).float() / 255)))
    torch.nn.functional.cross_entropy(logits.float(), torch.from_numpy(images.labels[order])).backward()
    rate = once["learning_rate"] * one_cycle(0)
    float32 = dict(full.named_parameters())
    for name, weight in network.named_parameters():
        gradient = dict(slow.named_parameters())[name].grad
        expected = before[name] - rate * (1 + training.MOMENTUM) * gradient  # the first step with Nesterov's momentum
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-7)
    assert any((weight != float32[name]).any() for name, weight in network.named_parameters())
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}


def test_images_are_mirrored_and_moved_by_an_eighth_of_their_side_at_most():
    rng = np.random.default_rng(0)
    images = rng.integers(1, 255, (200, 2, 16, 24), dtype=np.uint8)
    assert augmented(images, "none", rng) is images
    mirrored = augmented(images, "mirror", np.random.default_rng(1))
    same = (mirrored == images).all(axis=(1, 2, 3))
    assert 70 < same.sum() < 130
    np.testing.assert_array_equal(mirrored[~same], images[~same, :, :, ::-1])
    moved = augmented(images, "crop", np.random.default_rng(1))
    shifts = {_shift(before, after) for before, after in zip(mirrored, moved, strict=True)}
    assert len(shifts) > 25 and shifts <= {(down, right) for down in range(-2, 3) for right in range(-3, 4)}
    assert {down for down, _ in shifts} == set(range(-2, 3)) and {right for _, right in shifts} == set(range(-3, 4))


def _shift(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """By how much an image was moved down and right, with zeros where it does not reach."""
    for down in range(-4, 5):
        for right in range(-4, 5):
            padded = np.pad(before, [(0, 0), (4, 4), (4, 4)])
            if (np.roll(padded, (down, right), axis=(1, 2))[:, 4:-4, 4:-4] == after).all():
                return down, right
    raise AssertionError("not a shift")
