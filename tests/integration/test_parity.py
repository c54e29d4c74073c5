"""The same numbers as the published recipe, run by the real `robustness` library, in float64 on a small warmed network.

The recipe is in benchmarks/published.py: robustness's own attack loop, driven with a step and a loss of its own.

One thing has to be said about torch. `InputNormalize` clamps its input to [0, 1] on the way into the network. That
does nothing to an image, but torch 2.14 began to give `clamp` a derivative of zero *at* the bounds, where it had been
one. The recipe itself puts pixels exactly there, and now they never come off again. So "published" means here: with
the derivative that clamp had when the recipe was published; and a test shows what the newer one does to it.
"""

import numpy as np
import pytest
import torch

from benchmarks.published import published, robustness
from netsim.inversion.invert import invert_batches, invert_images
from netsim.networks import as_network
from netsim.networks.adversarial import attack
from netsim.settings import AdversarialSettings, InversionSettings

ITERATIONS = 30
STEP_SIZE = 1 / 8
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # robustness goes to CUDA by itself where there is one


def published_path(model, seed, target, *, use_best, iterations=ITERATIONS):
    """Image found and iterates 0 ... iterations."""
    image, path = published(model, seed, target, iterations=iterations, step_size=STEP_SIZE, use_best=use_best)
    return image.cpu(), torch.stack(path).cpu()


def ours(model, seed, target, *, use_best, iterations=ITERATIONS):
    path = []
    record = invert_batches(
        as_network(model, seed),
        seed,
        target,
        InversionSettings(iterations=iterations, step_size=STEP_SIZE),
        use_best=use_best,
        on_iteration=lambda at: path.append(at.images.clone()),
    )
    return record.images, torch.stack(path).cpu()


@pytest.fixture(scope="module")
def model():
    """A CIFAR ResNet-18 of robustness's own, an eighth as wide, with BatchNorm statistics of images like the tests'."""
    torch.manual_seed(0)
    network = robustness.cifar_models.ResNet18(wm=0.125)
    model, _ = robustness.model_utils.make_and_restore_model(arch=network, dataset=robustness.datasets.CIFAR("unused"))
    model.double().train()
    with torch.no_grad():  # unwarmed, the network sits on the kinks of its ReLUs and rounding decides
        for batch in range(5):
            model(pictures(16, rng_seed=100 + batch))
    return model.eval()


def pictures(n, *, rng_seed, low=0.0, high=1.0):
    """Smooth random images in [low, high], clipped there: some of their pixels are exactly at the bounds."""
    rng = np.random.default_rng(rng_seed)
    coarse = torch.from_numpy(rng.normal(0.5, 0.4, (n, 3, 8, 8)))
    smooth = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear").clamp(0, 1)
    return (smooth * (high - low) + low).to(DEVICE)


class ClampOfItsTime(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward((x >= 0) & (x <= 1))
        return x.clamp(0, 1)

    @staticmethod
    def backward(context, gradient):
        (inside,) = context.saved_tensors
        return gradient * inside


@pytest.fixture
def clamp_of_its_time(monkeypatch):
    def forward(self, x):
        return (ClampOfItsTime.apply(x) - self.new_mean) / self.new_std

    monkeypatch.setattr(robustness.tools.helpers.InputNormalize, "forward", forward)


@pytest.mark.parametrize("use_best", [True, False], ids=["best", "last"])
def test_every_iterate_and_the_final_images_are_those_of_the_published_recipe(model, clamp_of_its_time, use_best):
    seed, target = pictures(4, rng_seed=1), pictures(4, rng_seed=2)
    at_bounds = (seed == 0) | (seed == 1)
    assert at_bounds.flatten(1).any(dim=1).all()

    their_image, their_path = published_path(model, seed, target, use_best=use_best)
    our_image, our_path = ours(model, seed, target, use_best=use_best)

    assert len(our_path) == len(their_path) == ITERATIONS + 1
    assert largest_deviation(our_path, their_path) < 1e-10
    assert largest_deviation(our_image, their_image) < 1e-10
    assert (our_image - seed.cpu()).abs().max() > 0.1  # and that is not because nothing moved


def test_best_is_not_the_last_where_it_matters(model, clamp_of_its_time):
    """Starting beside the target, steps of constant length make it worse: best and last differ, in both."""
    target = pictures(2, rng_seed=3, low=0.2, high=0.8)
    seed = target + 1e-3
    best, last = (published_path(model, seed, target, use_best=use_best)[0] for use_best in (True, False))
    assert largest_deviation(best, last) > 1e-3
    assert largest_deviation(ours(model, seed, target, use_best=True)[0], best) < 1e-10
    assert largest_deviation(ours(model, seed, target, use_best=False)[0], last) < 1e-10


def test_the_public_function_takes_an_attacker_model_and_gives_the_published_images(model, clamp_of_its_time):
    seed, target = pictures(3, rng_seed=4), pictures(3, rng_seed=5)
    theirs, _ = published_path(model, seed, target, use_best=True)
    images = invert_images(model, seed, target, 2, STEP_SIZE, ITERATIONS, True)  # two batches, in published order
    assert largest_deviation(images, theirs) < 1e-10


def test_the_clamp_in_robustness_changes_the_recipe_exactly_where_this_torch_stops_the_gradient_at_the_bounds(model):
    seed, target = pictures(2, rng_seed=1), pictures(2, rng_seed=2)
    pixel = torch.ones(1, requires_grad=True)
    (slope,) = torch.autograd.grad(pixel.clamp(0, 1), pixel)

    _, their_path = published_path(model, seed, target, use_best=True)
    _, our_path = ours(model, seed, target, use_best=True)

    if slope == 0:  # torch >= 2.14
        assert largest_deviation(our_path[1], their_path[1]) > 1e-4  # from the first step on
        stuck = (their_path[0] == 0) | (their_path[0] == 1)
        assert torch.equal(their_path[-1][stuck], their_path[0][stuck])
        assert not torch.equal(our_path[-1][stuck], our_path[0][stuck])
    else:
        assert largest_deviation(our_path, their_path) < 1e-10


def test_away_from_the_bounds_the_clamp_in_robustness_does_not_matter(model):
    seed, target = (pictures(2, rng_seed=k, low=0.35, high=0.65) for k in (6, 7))
    _, their_path = published_path(model, seed, target, use_best=True, iterations=8)
    _, our_path = ours(model, seed, target, use_best=True, iterations=8)
    assert their_path.min() > 0
    assert their_path.max() < 1
    assert largest_deviation(our_path, their_path) < 1e-10


def largest_deviation(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


@pytest.mark.parametrize("start", [False, True], ids=["from the image", "from a random point"])
@pytest.mark.parametrize(("norm", "constraint", "eps"), [("l2", "2", 0.8), ("linf", "inf", 0.1)])
def test_attacks_are_those_of_robustness(model, clamp_of_its_time, norm, constraint, eps, start):
    images, labels = pictures(4, rng_seed=8), torch.tensor([3, 1, 4, 1], device=DEVICE)
    near = AdversarialSettings(norm=norm, eps=eps, steps=5, step_size=eps / 3, random_start=start)
    model.eval()
    drawn = torch.Generator().manual_seed(4)
    made = attack(lambda images: model(images, with_image=False), images, labels, near, generator=drawn)
    torch.manual_seed(4)  # robustness draws starts from the global generator
    options = {"constraint": constraint, "eps": eps, "step_size": near.length, "iterations": 5, "random_start": start}
    _, expected = model(images, labels, make_adv=True, **options)
    assert (made - images).abs().max() > eps / 20
    assert largest_deviation(made, expected) < 1e-8  # robustness adds 1e-10 to gradients of a mean, not of a sum
