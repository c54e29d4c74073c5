"""Update rules: the momentum step by hand, those of `fast` against a slow twin, and where they lead."""

import numpy as np
import pytest
import torch

from netsim.errors import SettingsError
from netsim.images import ArrayImages, load_images, to_unit
from netsim.inversion.invert import inversion_settings, invert, invert_batches, invert_images
from netsim.inversion.steps import LbfgsPathUpdate, MomentumUpdate, kept_bytes, update_rule_of
from netsim.networks import load_network
from netsim.networks.training import train_epochs
from netsim.settings import STOP_REASONS, InversionSettings

SHAPE = (2, 5, 5)
SIZE = 50


def images(n, *, rng_seed, shape=SHAPE, low=0.0, high=1.0):
    rng = np.random.default_rng(rng_seed)
    return torch.from_numpy(rng.uniform(low, high, (n, *shape)).clip(0, 1))


def curved(rng_seed=0, width=12):
    """A representation whose curvature changes sign: (represent, gradient of ||rep - t||^2 / 2 in numpy)."""
    rng = np.random.default_rng(rng_seed)
    first, second = rng.normal(size=(30, SIZE)), rng.normal(size=(width, 30)) / 3

    def represent(x):
        return torch.sin(x.flatten(1) @ torch.from_numpy(first).T) @ torch.from_numpy(second).T

    def at(x, target):
        inside = first @ x
        return first.T @ (np.cos(inside) * (second.T @ (second @ np.sin(inside) - target)))

    return represent, at


def slow_twin(at, seed, target, *, iterations, reach, memory):
    """Return the iterates of one image, by the two loops of Nocedal's L-BFGS, and how many pairs were not used."""
    scale = np.sqrt(np.sum(target**2))
    x, before, kept, time, unused, path = seed.copy(), None, [], 0, 0, [seed]
    for _ in range(iterations):
        gradient = at(x, target) / scale
        if before is not None:
            kept = [*kept, (x - before[0], gradient - before[1])][-memory:]
        before = x, gradient
        time += reach / np.sqrt(np.sum(gradient**2))
        rho = 1 / time
        slope = gradient + rho * (x - seed)
        slope[((x <= 0) & (slope > 0)) | ((x >= 1) & (slope < 0))] = 0
        pairs = [(s, c + rho * s) for s, c in kept]
        used = [(s, y) for s, y in pairs if s @ y > 0.5 * rho * (s @ s)]
        unused += len(pairs) - len(used)
        q, alphas = slope.copy(), []
        for s, y in reversed(used):
            alphas.append(s @ q / (s @ y))
            q -= alphas[-1] * y
        q *= min(used[-1][0] @ used[-1][1] / (used[-1][1] @ used[-1][1]), 1 / rho) if used else 1 / rho
        for (s, y), alpha in zip(used, reversed(alphas), strict=True):
            q += (alpha - y @ q / (s @ y)) * s
        move = np.where(slope == 0, 0, -q)
        if move @ slope >= 0:
            move = -slope / rho
        x = np.clip(x + move * min(1, reach / np.sqrt(np.sum(move**2))), 0, 1)
        path.append(x)
    return np.array(path), unused


def test_two_momentum_steps_by_hand():
    """Pixels at 0.5 and 0.75; the gradient points along the first, then along the second, whatever its length."""
    rule, x = MomentumUpdate(step_size=0.5, momentum=0.75), torch.tensor([[[[0.5, 0.75]]]])
    memory = rule.initial_memory(x)
    for descent in ([-8.0, 0.0], [0.0, 2.0]):
        descent = torch.tensor([[[descent]]])
        rule.step(memory, x, descent, descent.flatten(1).norm(dim=1), torch.ones(1))
    # velocity: 0.25 * (-1, 0), then 0.75 * that + 0.25 * (0, 1)
    assert memory["velocity"].flatten().tolist() == [-0.1875, 0.25]
    assert x.flatten().tolist() == [0.5 - 0.5 * 0.25 - 0.5 * 0.1875, 0.75 + 0.5 * 0.25]


def test_a_momentum_step_is_clamped_to_pixels_and_a_zero_gradient_leaves_the_momentum():
    rule, x = MomentumUpdate(step_size=8.0, momentum=0.5), torch.tensor([[[[0.5, 0.5]]]])
    memory = rule.initial_memory(x)
    descent = torch.tensor([[[[3.0, -4.0]]]])
    rule.step(memory, x, descent, torch.tensor([5.0]), torch.ones(1))
    assert x.flatten().tolist() == [1.0, 0.0]
    velocity = memory["velocity"].clone()
    rule.step(memory, x, torch.zeros_like(x), torch.zeros(1), torch.ones(1))
    assert torch.equal(memory["velocity"], 0.5 * velocity)


def test_kept_bytes_are_those_of_the_memory_of_all_images():
    x = torch.zeros(3, 2, 5, 5)
    assert kept_bytes(MomentumUpdate(step_size=0.125, momentum=0.9), x) == x.nbytes
    m = 2
    per_image = 8 + 4 + (3 + 2 * m) * SIZE * 4 + (2 * m) ** 2 * 8  # k, time, three images and 2 m changes, products
    assert kept_bytes(LbfgsPathUpdate(memory=m), x) == 3 * per_image


def test_iterates_are_those_of_the_two_loops():
    represent, at = curved()
    seed, unused = images(4, rng_seed=1, low=-0.2, high=1.2), 0
    target = 2 * represent(images(4, rng_seed=2))  # out of reach: residuals, and what they bend, stay large
    for settings in (
        {"reach": 4.0, "memory": 10},
        {"reach": 0.5, "memory": 3},
        {"reach": 8.0, "memory": 1},
    ):
        path = []
        invert(
            represent,
            seed,
            target,
            InversionSettings(iterations=25),
            update_rule=LbfgsPathUpdate(**settings),
            on_iteration=lambda it, path=path: path.append(it.images.flatten(1).clone()),
        )
        for i in range(4):
            theirs, missing = slow_twin(at, seed[i].flatten().numpy(), target[i].numpy(), iterations=25, **settings)
            np.testing.assert_allclose(torch.stack(path)[:, i], theirs, atol=1e-7)
            unused += missing
    assert unused > 0  # pairs of negative curvature came up
    assert LbfgsPathUpdate() == LbfgsPathUpdate(reach=4.0, memory=10)


def test_the_path_ends_where_the_nearest_image_is_that_is_represented_as_the_target():
    """Least squares: the limit for rho -> 0 is the seed plus the pseudoinverse of what is missing."""
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(rng.normal(size=(8, SIZE)))
    seed, goal = images(3, rng_seed=1, low=0.45, high=0.55), images(3, rng_seed=2, low=0.45, high=0.55)

    def represent(x):
        return x.flatten(1) @ weight.T

    found = invert(
        represent, seed, represent(goal), InversionSettings(iterations=20), update_rule=LbfgsPathUpdate(reach=0.25)
    )
    nearest = seed + ((represent(goal) - represent(seed)) @ torch.linalg.pinv(weight).T).view_as(seed)
    assert (nearest > 0).all() and (nearest < 1).all()  # the bounds are out of play
    torch.testing.assert_close(found.images, nearest, rtol=0, atol=1e-6)
    assert found.final_loss.max() < 1e-6


def test_a_pixel_that_would_leave_the_bounds_stays_at_one():
    seed = torch.full((1, 1, 1, 2), 0.5).double()
    wanted = torch.tensor([[2.0, 0.7]]).double()  # the first pixel cannot get there
    found = invert(
        lambda x: x.flatten(1),
        seed,
        wanted,
        InversionSettings(iterations=60),
        update_rule=LbfgsPathUpdate(),
        use_best=False,
    )
    torch.testing.assert_close(found.images.flatten(), torch.tensor([1.0, 0.7]).double(), rtol=0, atol=2e-3)


def test_a_seed_that_equals_its_target_stays():
    represent, _ = curved()
    seed = images(2, rng_seed=1)
    found = invert(
        represent, seed, represent(seed), InversionSettings(iterations=5), update_rule=LbfgsPathUpdate(), use_best=False
    )
    assert torch.equal(found.images, seed)
    assert not found.nonfinite.any()


@pytest.fixture(scope="module")
def network():
    """Trained a little: images of networks as they are drawn have almost the same representation."""
    network, training = load_network("small:resnet18@none"), load_images("fashion-mnist", "train", None)
    first = ArrayImages("some", training.read(range(1500)), training.labels[:1500], training.classes)
    train_epochs(network, first, epochs=2, batch_size=100, learning_rate=0.2, weight_decay=1e-2, rng_seed=0)
    return network.double()


def pairs(n):
    """Seeds and targets: an image and the next one, of another class."""
    test = load_images("fashion-mnist", "test", None)
    return to_unit(test.read(range(n))).double(), to_unit(test.read(range(1, n + 1))).double()


def test_each_image_goes_its_own_way_whatever_is_in_its_batch(network):
    seed, target = pairs(7)
    settings = {"preset": "fast", "stop_loss": 0.05, "iterations": 60}
    whole = invert_batches(network, seed, target, InversionSettings(batch_size=7, **settings))
    refilled = invert_batches(network, seed, target, InversionSettings(batch_size=3, **settings))
    alone = invert_batches(network, seed[4:5], target[4:5], InversionSettings(batch_size=1, **settings))
    assert whole.iterations.unique().numel() > 1  # so that places in the batch were left and taken
    assert torch.equal(whole.iterations, refilled.iterations)
    torch.testing.assert_close(refilled.images, whole.images, rtol=0, atol=1e-9)
    torch.testing.assert_close(alone.images[0], whole.images[4], rtol=0, atol=1e-9)


def test_fast_reaches_a_loss_in_far_fewer_iterations(network):
    seed, target = pairs(5)
    settings = {"batch_size": 5, "stop_loss": 0.1, "iterations": 600}
    published = invert_batches(network, seed, target, InversionSettings(**settings))
    fast = invert_batches(network, seed, target, InversionSettings(preset="fast", **settings))
    for record in (published, fast):
        assert {STOP_REASONS[reason] for reason in record.stop_reason} == {"loss"}
        assert record.final_loss.max() <= 0.1 + 1e-12
    assert 2 * fast.iterations.median() < published.iterations.median()


def test_an_image_that_is_lost_takes_no_other_with_it():
    represent, _ = curved()
    seed, target = images(3, rng_seed=1), represent(images(3, rng_seed=2))
    target[1] = 0  # the relative loss of this one is infinite
    found = invert(represent, seed, target, InversionSettings(iterations=20), update_rule=LbfgsPathUpdate())
    kept = [0, 2]
    without = invert(
        represent, seed[kept], target[kept], InversionSettings(iterations=20), update_rule=LbfgsPathUpdate()
    )
    assert found.nonfinite.tolist() == [False, True, False]
    torch.testing.assert_close(found.images[kept], without.images, rtol=0, atol=1e-9)


def test_presets_by_name(network):
    assert update_rule_of(InversionSettings()) == MomentumUpdate(step_size=1 / 8, momentum=0.9)
    other = InversionSettings(step_size=0.5, momentum=0)
    assert update_rule_of(other) == MomentumUpdate(step_size=0.5, momentum=0)
    seed, target = pairs(2)
    named = invert_images(network, seed, target, iterations=5, preset="fast")
    assert torch.equal(
        named,
        invert_batches(network, seed, target, InversionSettings(iterations=5), update_rule=LbfgsPathUpdate()).images,
    )
    assert not torch.equal(named, invert_images(network, seed, target, iterations=5))
    with pytest.raises(SettingsError, match="preset must be 'published' or 'fast', got 'fsat'"):
        inversion_settings(preset="fsat")
    with pytest.raises(SettingsError, match="momentum requires the preset published, got fast"):
        inversion_settings(preset="fast", momentum=0.5)
