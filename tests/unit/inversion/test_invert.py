"""Inversion: the loop against a slow twin, its guards, what it must leave unchanged, and what it refuses."""

import copy
import doctest
from inspect import signature

import numpy as np
import pytest
import torch
from torch import nn

from netsim.errors import DataError, NetworkError, SettingsError
from netsim.inversion.invert import Inversion, inversion_settings, invert, invert_batches, invert_images
from netsim.networks import as_network
from netsim.settings import STOP_REASONS, InversionSettings

SHAPE = (3, 8, 8)


def images(n, *, rng_seed, dtype=torch.float64):
    """Uniform noise, with some pixels exactly at 0 and at 1."""
    rng = np.random.default_rng(rng_seed)
    return torch.from_numpy(rng.uniform(-0.1, 1.1, (n, *SHAPE)).clip(0, 1)).to(dtype)


@pytest.fixture
def classifier():
    """A convolutional classifier of 3x8x8 images in [0, 1], float64, whose BatchNorm has seen a few batches."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 24, 3, stride=2),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 5),
    ).double()
    with torch.no_grad():
        for batch in range(5):
            model(images(32, rng_seed=1000 + batch))
    return model.eval()


@pytest.fixture
def network(classifier):
    return as_network(classifier, images(2, rng_seed=0))


def matrix(rows=20, rng_seed=3):
    return torch.from_numpy(np.random.default_rng(rng_seed).normal(size=(rows, int(np.prod(SHAPE)))))


def linear(weight):
    return lambda x: x.flatten(1) @ weight.T.to(x)


def twin(weight, seed, target, *, iterations, step_size, momentum):
    """Iterates and losses by the equations, in numpy, for one image (pixels,) and a linear representation."""
    x, velocity, path, losses = seed.copy(), np.zeros_like(seed), [], []
    for _ in range(iterations + 1):
        residual = weight @ x - target
        path.append(x)
        losses.append(np.sqrt(np.sum(residual**2)) / np.sqrt(np.sum(target**2)))
        gradient = weight.T @ residual
        velocity = momentum * velocity + (1 - momentum) * -gradient / np.sqrt(np.sum(gradient**2))
        x = np.minimum(np.maximum(x + step_size * velocity, 0), 1)
    return np.array(path), np.array(losses)


# --- the rule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_best", [True, False], ids=["best", "last"])
@pytest.mark.parametrize(("step_size", "momentum"), [(0.125, 0.9), (0.5, 0.0), (2.0, 0.5)])
def test_iterates_and_losses_are_those_of_a_plain_loop(use_best, step_size, momentum):
    weight, seed = matrix(), images(3, rng_seed=1)
    target = linear(weight)(images(3, rng_seed=2))
    path = []
    record = invert(
        linear(weight),
        seed,
        target,
        InversionSettings(iterations=40, step_size=step_size, momentum=momentum),
        use_best=use_best,
        on_iteration=lambda at: path.append((at.k.unique().item(), at.images.clone(), at.losses.clone())),
    )
    assert [k for k, _, _ in path] == list(range(41))
    for i in range(3):
        their_path, their_losses = twin(
            weight.numpy(),
            seed[i].flatten().numpy(),
            target[i].numpy(),
            iterations=40,
            step_size=step_size,
            momentum=momentum,
        )
        np.testing.assert_allclose(torch.stack([x[i].flatten() for _, x, _ in path]), their_path, atol=1e-10)
        np.testing.assert_allclose(record.history[:, i], their_losses, atol=1e-10)
        best = their_losses.argmin()
        assert record.best_iteration[i] == best
        np.testing.assert_allclose(record.images[i].flatten(), their_path[best if use_best else -1], atol=1e-10)


@pytest.mark.parametrize("use_best", [True, False], ids=["best", "last"])
def test_an_iteration_costs_one_forward(network, use_best):
    calls = []
    first = next(part for part in network.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_hook(lambda *_: calls.append(1))

    def forwards(iterations):
        calls.clear()
        invert_batches(
            network,
            images(4, rng_seed=1),
            images(4, rng_seed=2),
            InversionSettings(batch_size=4, iterations=iterations),
            use_best=use_best,
        )
        return len(calls)

    assert forwards(20) - forwards(7) == 13
    target = network.represent(images(4, rng_seed=2))
    calls.clear()
    invert(network.represent, images(4, rng_seed=1), target, InversionSettings(iterations=7), use_best=use_best)
    assert len(calls) == 7 + 1


def test_loss_falls_and_the_record_agrees_with_itself(network):
    seed, target = images(6, rng_seed=1), images(6, rng_seed=2)
    record = invert_batches(network, seed, target, InversionSettings(batch_size=4, iterations=120, step_size=0.1))

    assert record.images.min() >= 0
    assert record.images.max() <= 1
    assert record.history.shape == (121, 6)
    assert torch.equal(record.history[0], record.initial_loss)
    torch.testing.assert_close(record.history.min(dim=0).values, record.final_loss, rtol=1e-10, atol=0)
    assert torch.equal(record.history.argmin(dim=0), record.best_iteration)
    assert (record.final_loss < 0.5 * record.initial_loss).all()
    assert not record.stalled.any()
    assert not record.nonfinite.any()
    torch.testing.assert_close(record.distance, (record.images - seed).flatten(1).norm(dim=1))
    torch.testing.assert_close(measured(network, record.images, target), record.final_loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(measured(network, seed, target), record.initial_loss, rtol=1e-10, atol=0)


def test_without_use_best_the_last_image_is_returned_with_its_own_loss(network):
    target = images(3, rng_seed=2)
    seed = (target + 1e-3).clamp(0, 1)  # steps of a tenth can only lead away
    last = []
    record = invert_batches(
        network,
        seed,
        target,
        InversionSettings(iterations=5, step_size=1.0),
        use_best=False,
        on_iteration=lambda at: last.append(at.images.clone()),
    )
    assert torch.equal(record.images, last[-1])
    torch.testing.assert_close(record.final_loss, record.history[-1], rtol=1e-10, atol=0)
    assert (record.final_loss > record.history[record.best_iteration, range(3)]).all()
    torch.testing.assert_close(measured(network, record.images, target), record.final_loss, rtol=1e-10, atol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_result_does_not_depend_on_batch_size_or_order(network, batch_size):
    seed, target = images(7, rng_seed=1), images(7, rng_seed=2)
    whole = invert_batches(network, seed, target, InversionSettings(batch_size=7, iterations=25))
    order = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    parts = invert_batches(network, seed[order], target[order], InversionSettings(batch_size=batch_size, iterations=25))
    torch.testing.assert_close(parts.images, whole.images[order], rtol=0, atol=1e-9)
    torch.testing.assert_close(parts.history, whole.history[:, order], rtol=0, atol=1e-9)
    assert torch.equal(parts.best_iteration, whole.best_iteration[order])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_an_image_that_reaches_the_stop_loss_goes_the_same_way_as_alone_and_ends_there(network, batch_size):
    seed, target = images(8, rng_seed=1), images(8, rng_seed=2)
    whole = invert_batches(network, seed, target, InversionSettings(batch_size=8, iterations=150, step_size=0.1))
    stop = whole.history[60].median().item()  # some reach it sooner, some later, and some perhaps never
    reached = (whole.history <= stop).int()
    first = torch.where(reached.any(dim=0), reached.argmax(dim=0), 150)
    assert len(first.unique()) > 4

    work = []
    record = invert_batches(
        network,
        seed,
        target,
        InversionSettings(batch_size=batch_size, iterations=150, step_size=0.1, stop_loss=stop),
        on_iteration=lambda at: work.append(len(at.pairs)),
    )
    assert torch.equal(record.iterations, first)
    for i, end in enumerate(first):
        torch.testing.assert_close(record.history[: end + 1, i], whole.history[: end + 1, i], rtol=1e-8, atol=0)
        torch.testing.assert_close(record.history[end:, i].min(), record.history[end:, i].max())
        reason = STOP_REASONS[record.stop_reason[i]]
        assert reason == ("loss" if record.final_loss[i] <= stop else "iterations")
    alone = invert_batches(
        network, seed[2:3], target[2:3], InversionSettings(iterations=150, step_size=0.1, stop_loss=stop)
    )
    torch.testing.assert_close(record.images[2], alone.images[0], rtol=0, atol=1e-9)
    assert sum(work) == (first + 1).sum()  # nothing is evaluated that is finished
    assert max(work) <= batch_size
    assert len(work) < batch_size_loops(first + 1, batch_size) or batch_size in (1, 8)


def batch_size_loops(evaluations, batch_size):
    """How many evaluations of a batch it would take if every batch waited for its slowest image."""
    return sum(int(part.max()) for part in evaluations.split(batch_size))


def test_stopping_leaves_an_image_that_never_gets_there_with_all_its_iterations():
    weight, seed = matrix(), images(2, rng_seed=1)
    target = linear(weight)(images(2, rng_seed=2))
    target[1] += 1e4  # out of reach
    record = invert(linear(weight), seed, target, InversionSettings(iterations=300, stop_loss=0.1))
    assert [STOP_REASONS[reason] for reason in record.stop_reason] == ["loss", "iterations"]
    assert record.iterations[0] < 300
    assert record.iterations[1] == 300


def test_with_a_stop_loss_a_nonfinite_image_does_not_hold_its_place():
    seed, target = images(2, rng_seed=1), linear(matrix())(images(2, rng_seed=2))
    target[0] = 0
    record = invert(linear(matrix()), seed, target, InversionSettings(iterations=50, stop_loss=1e-3))
    assert STOP_REASONS[record.stop_reason[0]] == "nonfinite"
    assert record.iterations[0] < 2
    assert torch.equal(record.images[0], seed[0])


def test_the_scale_of_a_representation_changes_nothing():
    weight, seed = matrix(), images(2, rng_seed=1)
    target = linear(weight)(images(2, rng_seed=2))
    plain = invert(linear(weight), seed, target, InversionSettings(iterations=20))
    scaled = invert(linear(weight * 1e30), seed, target * 1e30, InversionSettings(iterations=20))
    torch.testing.assert_close(scaled.images, plain.images, rtol=0, atol=1e-10)
    torch.testing.assert_close(scaled.history, plain.history, rtol=1e-10, atol=0)


def test_a_network_in_half_precision_leaves_images_and_losses_in_float32():
    weight = matrix().float()
    seed, target = images(2, rng_seed=1, dtype=torch.float32), images(2, rng_seed=2, dtype=torch.float32)

    def half(x):
        return linear(weight)(x.bfloat16())

    record = invert(half, seed, half(target), InversionSettings(iterations=20))
    full = invert(linear(weight), seed, linear(weight)(target), InversionSettings(iterations=20))
    assert record.images.dtype == record.history.dtype == torch.float32
    torch.testing.assert_close(record.final_loss, full.final_loss, rtol=0, atol=0.03)


# --- the guards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_best", [True, False], ids=["best", "last"])
def test_a_seed_that_equals_its_target_stays_where_it_is(network, use_best):
    seed, target = images(3, rng_seed=1), images(3, rng_seed=2)
    target[1] = seed[1]
    record = invert_batches(network, seed, target, InversionSettings(iterations=10), use_best=use_best)
    assert torch.equal(record.images[1], seed[1])
    assert record.final_loss[1] == record.distance[1] == record.best_iteration[1] == 0
    assert record.stalled.tolist() == [False, True, False]
    assert not record.nonfinite.any()
    assert (record.final_loss[[0, 2]] < record.initial_loss[[0, 2]]).all()


def test_a_zero_gradient_moves_on_with_momentum_only_and_is_flagged():
    def dying(x):  # falls to zero as the image darkens, and is flat from there on
        return torch.relu(x.flatten(1).mean(dim=1, keepdim=True) - 0.45)

    seed, target = torch.full((1, *SHAPE), 0.5, dtype=torch.float64), torch.tensor([[-1.0]])  # out of reach, below
    path = []
    record = invert(
        dying,
        seed,
        target,
        InversionSettings(iterations=60),
        use_best=False,
        on_iteration=lambda at: path.append(at.images.clone()),
    )
    dead = [bool(dying(x) == 0) for x in path].index(True)
    assert 0 < dead < 40
    before, at, after, later = path[dead - 1 : dead + 3]
    torch.testing.assert_close(after - at, 0.9 * (at - before))
    torch.testing.assert_close(later - after, 0.81 * (at - before))
    assert record.stalled.all()
    assert not record.nonfinite.any()
    assert record.history.isfinite().all()
    assert torch.equal(record.images, path[-1])
    # All images from there on are equally good: the best is the first of them, as only a lower loss replaces it.
    best = invert(dying, seed, target, InversionSettings(iterations=60))
    assert best.best_iteration == dead
    assert torch.equal(best.images, path[dead])


def test_a_network_that_is_dead_from_the_start_returns_the_seed_and_says_so():
    def dead(x):
        return torch.relu(linear(matrix())(x) - 1e6)

    seed = images(2, rng_seed=1)
    record = invert(dead, seed, torch.ones(2, 20), InversionSettings(iterations=5), use_best=False)
    assert torch.equal(record.images, seed)
    assert record.stalled.all()
    assert not record.nonfinite.any()
    assert (record.final_loss == 1).all()


def trap(kind):
    """A linear representation in which the first pixel of an image is a trap, at or near 1."""

    def represent(x):
        pixel = x[:, 0, 0, 0]
        extra = {
            "loss is NaN": torch.where(pixel > 0.9, torch.nan, 0 * pixel),
            "loss is infinite": torch.where(pixel > 0.9, torch.inf, 0 * pixel),
            "gradient is infinite": torch.sqrt(1 - pixel),  # at 1, where clamping ends
        }[kind]
        return linear(matrix())(x) + 20 * pixel[:, None] + extra[:, None]

    return represent


@pytest.mark.parametrize("use_best", [True, False], ids=["best", "last"])
@pytest.mark.parametrize("kind", ["loss is NaN", "loss is infinite", "gradient is infinite"])
def test_a_nonfinite_image_stays_at_its_best_and_its_neighbours_do_not_notice(kind, use_best):
    represent = trap(kind)
    seed, target = images(4, rng_seed=1), linear(matrix())(images(4, rng_seed=2))
    seed[:, 0, 0, 0] = 0.5
    harmless = invert(represent, seed, target, InversionSettings(iterations=40), use_best=use_best)
    assert not harmless.nonfinite.any()

    target[2] = represent(seed[2:3])[0].detach() + 100  # asks for more of the first pixel than there is
    path = []
    record = invert(
        represent,
        seed,
        target,
        InversionSettings(iterations=40),
        use_best=use_best,
        on_iteration=lambda at: path.append(at.images[2].clone()),
    )
    assert record.nonfinite.tolist() == [False, False, True, False]
    for name in ("images", "initial_loss", "final_loss", "best_iteration", "stalled", "distance"):
        assert torch.equal(getattr(record, name)[[0, 1, 3]], getattr(harmless, name)[[0, 1, 3]]), name
    assert torch.equal(record.history[:, [0, 1, 3]], harmless.history[:, [0, 1, 3]])

    best = int(record.best_iteration[2])
    assert 0 < best < 40
    assert record.final_loss[2] < record.initial_loss[2]
    assert torch.equal(record.images[2], path[best])
    assert torch.equal(record.images[2], path[-1])  # it did not leave its best any more
    assert record.images[2].isfinite().all()
    assert record.final_loss[2].isfinite()
    torch.testing.assert_close(relative(represent(record.images)[2:3], target[2:3])[0], record.final_loss[2])

    # A gradient that is not finite is seen before it moves the image, not by what the network makes of NaN.
    assert bool(record.history.isfinite().all()) == (kind == "gradient is infinite")


def test_an_image_whose_very_last_loss_is_not_finite_is_put_back_too():
    represent = trap("loss is NaN")
    seed = images(1, rng_seed=1)
    seed[:, 0, 0, 0] = 0.5
    target = represent(seed) + 100
    lost = (
        invert(represent, seed, target, InversionSettings(iterations=40))
        .history.flatten()
        .isfinite()
        .tolist()
        .index(False)
    )
    record = invert(represent, seed, target, InversionSettings(iterations=lost), use_best=False)
    assert record.nonfinite.all()
    assert record.best_iteration == lost - 1
    assert torch.equal(record.final_loss, record.history[lost - 1])
    torch.testing.assert_close(relative(represent(record.images), target), record.final_loss)


@pytest.mark.parametrize("use_best", [True, False], ids=["best", "last"])
def test_a_target_that_is_represented_by_zeros_is_flagged_and_its_seed_returned(use_best):
    seed, target = images(2, rng_seed=1), linear(matrix())(images(2, rng_seed=2))
    target[0] = 0
    record = invert(linear(matrix()), seed, target, InversionSettings(iterations=5), use_best=use_best)
    assert record.nonfinite.tolist() == [True, False]
    assert torch.equal(record.images[0], seed[0])
    assert record.final_loss[0] == torch.inf
    assert record.best_iteration[0] == 0
    assert record.final_loss[1] < record.initial_loss[1]


# --- what it leaves as it was -----------------------------------------------------------------------------------------


def test_the_users_model_is_in_evaluation_mode_meanwhile_and_untouched_afterwards(classifier):
    classifier.train()
    classifier[1].eval()  # one part of its own mind, as when BatchNorm is frozen
    classifier[3].weight.requires_grad_(False)
    seen = []
    classifier[0].register_forward_hook(lambda part, *_: seen.append((part.training, part.weight.requires_grad)))
    before = snapshot(classifier)

    invert_images(classifier, images(3, rng_seed=1), images(3, rng_seed=2), batch_size=2, iterations=3)

    assert seen
    assert not any(training or differentiated for training, differentiated in seen)
    assert_same(snapshot(classifier), before)


def test_the_users_model_is_untouched_after_an_error_too(classifier):
    classifier.train()

    def breaks(*_):
        raise RuntimeError("out of memory")

    before = snapshot(classifier)
    hook = classifier[3].register_forward_hook(breaks)
    with pytest.raises(Exception, match="out of memory"):
        invert_images(classifier, images(3, rng_seed=1), images(3, rng_seed=2), iterations=3)
    hook.remove()
    assert_same(snapshot(classifier), before)


def test_a_network_in_training_is_evaluated_and_gets_its_flags_back(network):
    seed, target = images(3, rng_seed=1), network.represent(images(3, rng_seed=2)).detach()
    expected = invert(network.represent, seed, target, InversionSettings(iterations=3))
    network.train().requires_grad_(True)
    network.head.eval().requires_grad_(False)
    before = snapshot(network)
    record = invert(network.represent, seed, target, InversionSettings(iterations=3))
    assert_same(snapshot(network), before)
    assert torch.equal(record.images, expected.images)


def test_seed_and_target_images_are_not_written_to(classifier):
    seed, target = images(3, rng_seed=1), images(3, rng_seed=2)
    copies = seed.clone(), target.clone()
    result = invert_images(classifier, seed, target, iterations=3)
    assert torch.equal(seed, copies[0])
    assert torch.equal(target, copies[1])
    assert not result.requires_grad


@pytest.mark.parametrize("surrounding", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_works_inside_any_gradient_mode(classifier, network, surrounding):
    expected = invert_images(classifier, images(2, rng_seed=1), images(2, rng_seed=2), iterations=5)
    with surrounding():
        result = invert_images(classifier, images(2, rng_seed=1), images(2, rng_seed=2), iterations=5)
        record = invert_batches(network, images(2, rng_seed=1), images(2, rng_seed=2), InversionSettings(iterations=5))
    assert torch.equal(result, expected)
    assert torch.equal(record.images, expected)


def test_the_public_function_gives_the_images_of_the_record_and_no_bar_outside_a_terminal(classifier, network, capfd):
    seed, target = images(5, rng_seed=1), images(5, rng_seed=2)
    result = invert_images(classifier, seed, target, 2, 0.25, 9, False)
    record = invert_batches(
        network, seed, target, InversionSettings(batch_size=2, step_size=0.25, iterations=9), use_best=False
    )
    assert isinstance(record, Inversion)
    assert torch.equal(result, record.images)
    assert result.device.type == "cpu"
    assert result.shape == seed.shape
    assert capfd.readouterr() == ("", "")


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"seed_images": torch.zeros(3, 8, 8)},
            DataError,
            r"must have shape \(n, C, H, W\) with n at least 1, got \(3, 8, 8\)",
        ),
        ({"seed_images": torch.zeros(0, *SHAPE)}, DataError, r"n at least 1, got \(0, 3, 8, 8\)"),
        ({"seed_images": np.zeros((2, *SHAPE))}, DataError, r"must be a torch tensor \(n, C, H, W\), got ndarray"),
        (
            {"seed_images": torch.zeros(2, *SHAPE, dtype=torch.uint8)},
            DataError,
            r"got torch\.uint8; divide bytes by 255",
        ),
        (
            {"target_images": torch.zeros(2, *SHAPE, dtype=torch.float16)},
            DataError,
            r"target images must be float32 .*, got torch\.float16",
        ),
        (
            {"target_images": torch.zeros(3, *SHAPE).double()},
            DataError,
            r"same shape and dtype, got \(2, 3, 8, 8\) .* and \(3, 3, 8, 8\)",
        ),
        ({"target_images": torch.zeros(2, *SHAPE)}, DataError, r"torch\.float64.*torch\.float32"),
        ({"seed_images": torch.full((2, *SHAPE), 1.5).double()}, DataError, r"must be in \[0, 1\], got 1\.5 to 1\.5;"),
        (
            {"target_images": torch.full((2, *SHAPE), -0.1).double()},
            DataError,
            r"target images must be in \[0, 1\], got -0\.1",
        ),
        (
            {"seed_images": torch.full((2, *SHAPE), torch.nan).double()},
            DataError,
            "seed images must be finite, got NaN or infinity in 0, 1 of 2",
        ),
        ({"iterations": 0}, SettingsError, "iterations must be greater than 0, got 0"),
        ({"iterations": 2.5}, SettingsError, "iterations must be a valid integer, got 2.5"),
        ({"step_size": 0}, SettingsError, "step_size must be greater than 0, got 0"),
        ({"step_size": float("nan")}, SettingsError, "step_size must be a finite number, got nan"),
        ({"preset": "fats"}, SettingsError, "preset must be 'published' or 'fast', got 'fats'"),
        ({"preset": "fast", "step_size": 0.5}, SettingsError, "step_size requires the preset published, got fast"),
        ({"batch_size": -1}, SettingsError, "batch_size must be greater than 0, got -1"),
        ({"batch_size": 0}, SettingsError, "batch_size must be greater than 0, got 0"),
        ({"model": lambda x: x}, NetworkError, "must be a torch.nn.Module .*, got function"),
    ],
)
def test_unfit_input_is_refused_with_what_came_and_what_fits(classifier, change, error, message):
    fit = {
        "model": classifier,
        "seed_images": images(2, rng_seed=1),
        "target_images": images(2, rng_seed=2),
        "iterations": 2,
    }
    with pytest.raises(error, match=message):
        invert_images(**{**fit, **change})


def test_images_of_a_dtype_that_the_network_cannot_read_are_refused(classifier):
    seed, target = images(2, rng_seed=1), images(2, rng_seed=2)
    doubles = r"must be float64, .* got float32\. Convert the images with \.double\(\), or the network with \.float\(\)"
    with pytest.raises(NetworkError, match=doubles):
        invert_images(classifier, seed.float(), target.float(), iterations=2)
    with pytest.raises(NetworkError, match=r"must be float32, .* got float64\. Convert the images with \.float\(\)"):
        invert_images(classifier.float(), seed, target, iterations=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_that_rounding_puts_outside_are_clipped_and_others_refused(classifier, dtype):
    model, seed, target = classifier.to(dtype), images(2, rng_seed=1, dtype=dtype), images(2, rng_seed=2, dtype=dtype)
    inside = [seed.clone(), target.clone()]
    outside = [torch.where(x == 1, 1 + 9e-7, torch.where(x == 0, -9e-7, x)).to(dtype) for x in inside]
    assert all(x.max() > 1 and x.min() < 0 for x in outside)
    assert torch.equal(invert_images(model, *outside, iterations=2), invert_images(model, *inside, iterations=2))
    target[0, 0, 0, 0] = 1 + 2e-6
    with pytest.raises(DataError, match=r"target images must be in \[0, 1\], got 0 to 1\.00000[12]"):
        invert_images(model, seed, target, iterations=2)
    target[0, 0, 0, 0] = -2e-6
    with pytest.raises(DataError, match=r"got -[12][.0-9]*e-06 to 1;"):
        invert_images(model, seed, target, iterations=2)


def test_a_bilinear_resize_of_white_is_white(classifier):
    sky = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    sky[:, :, :40] = 1
    resized = nn.functional.interpolate(sky, size=(37, 37), mode="bilinear", align_corners=False)
    assert resized.max() > 1
    assert invert_images(classifier.float(), resized, resized.flip(0), iterations=1).max() <= 1


def test_momentum_of_one_is_refused():
    with pytest.raises(SettingsError, match="momentum must be less than 1, got 1"):
        inversion_settings(momentum=1)


def test_a_stop_loss_that_is_no_loss_is_refused():
    for unfit, fit in ((0, "greater than 0"), (-1, "greater than 0"), (float("inf"), "a finite number")):
        with pytest.raises(SettingsError, match=f"stop_loss must be {fit}, got {unfit}"):
            invert_images(torch.nn.Linear(2, 2), images(2, rng_seed=1), images(2, rng_seed=2), stop_loss=unfit)
    with pytest.raises(SettingsError, match="stop_loss must be a finite number, got nan"):
        invert_images(torch.nn.Linear(2, 2), images(2, rng_seed=1), images(2, rng_seed=2), stop_loss=float("nan"))


def test_the_example_of_invert_images_is_true():
    (example,) = doctest.DocTestFinder(recurse=False).find(invert_images, "invert_images")
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=7)


def test_the_published_signature_has_the_defaults_of_the_settings():
    defaults, published = InversionSettings(), signature(invert_images).parameters
    for name in ("iterations", "step_size", "preset", "stop_loss"):
        assert published[name].default == getattr(defaults, name)


def test_numbers_of_numpy_are_numbers():
    assert inversion_settings(iterations=np.int64(7), step_size=np.float32(0.5)) == InversionSettings(
        iterations=7, step_size=0.5
    )


def test_a_target_representation_of_another_network_is_refused_and_never_broadcast():
    for unfit, message in (
        (torch.ones(1, 20), r"must have shape \(2, d\), a row for each seed, got \(1, 20\)"),
        (torch.ones(20), r"must have shape \(2, d\), a row for each seed, got \(20,\)"),
        (torch.ones(2, 21), r"must have the same shape \(n, d\), got \(2, 20\) and \(2, 21\)"),
    ):
        with pytest.raises(DataError, match=message):
            invert(linear(matrix()), images(2, rng_seed=1), unfit, InversionSettings(iterations=2))


def test_a_representation_without_gradient_is_refused():
    with pytest.raises(NetworkError, match="must be differentiable with respect to the images, got no gradient"):
        invert(
            lambda x: linear(matrix())(x).detach(),
            images(2, rng_seed=1),
            torch.ones(2, 20),
            InversionSettings(iterations=2),
        )


# --- helpers ----------------------------------------------------------------------------------------------------------


def relative(representation, target):
    return (representation - target).norm(dim=1) / target.norm(dim=1)


def measured(network, found, target):
    with torch.no_grad():
        return relative(network.represent(found), network.represent(target))


def snapshot(module):
    return {
        "training": [part.training for part in module.modules()],
        "differentiated": [weight.requires_grad for weight in module.parameters()],
        "gradients": [weight.grad for weight in module.parameters()],
        "hooks": [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()],
        "parts": [id(part) for part in module.modules()],
        "state": copy.deepcopy(module.state_dict()),
    }


def assert_same(after, before):
    states = after.pop("state"), before.pop("state")
    assert after == before
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), name
