"""Slots: results have the bits of the obvious loop, called or replayed, and nothing in an iteration waits."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from netsim.inversion.engine import Engine, loss_and_descent
from netsim.inversion.execution import Plain
from netsim.inversion.invert import invert, invert_batches
from netsim.inversion.slots import Slots
from netsim.inversion.steps import update_rule_of
from netsim.networks import as_network
from netsim.settings import STOP_REASONS, InversionSettings
from unit.inversion.examples import HALF, Scaled, convolutional, images
from unit.inversion.slow_loop import slow_invert
from unit.inversion.tape import Tapes

N = 9
FIELDS = ("images", "final_loss", "iterations", "stop_reason", "stalled", "nonfinite", "history")


@pytest.fixture(scope="module")
def network():
    return convolutional()


@pytest.fixture(scope="module")
def pairs():
    return images(N, rng_seed=1), images(N, rng_seed=2)


def settings_of(preset, stop_loss, batch_size):
    return InversionSettings(preset=preset, iterations=16, stop_loss=stop_loss, batch_size=batch_size)


def slow(network, pairs, settings, **options):
    seed, target = pairs
    engine = Engine(network, seed, batch_size=settings.batch_size)
    with torch.no_grad():
        goal = engine.represent_all(target)
        rule = update_rule_of(settings)
        return slow_invert(
            engine.loss_and_descent, seed, goal, settings, rule, batch_size=settings.batch_size, **options
        )


def differing(result, expected, *, but=("final_loss",)):
    """Names of the fields with other bits. `invert_batches` evaluates the final loss again."""
    return [
        name
        for name in set(FIELDS) - set(but)
        if not torch.equal(torch.nan_to_num(getattr(result, name)), torch.nan_to_num(getattr(expected, name)))
    ]


@pytest.mark.parametrize("execution", [Plain, Tapes], ids=["called", "replayed"])
@pytest.mark.parametrize("batch_size", [1, 4, N])
@pytest.mark.parametrize(("preset", "stop_loss"), [("published", None), ("published", 0.2), ("fast", 0.02)])
def test_results_have_the_bits_of_the_obvious_loop(network, pairs, preset, stop_loss, batch_size, execution):
    settings = settings_of(preset, stop_loss, batch_size)
    expected = slow(network, pairs, settings)
    result = invert_batches(network, *pairs, settings, execution=execution())
    if stop_loss:
        assert len(expected.iterations.unique()) > 2  # images end at different times
    # A replay evaluates images that are finished, and a convolution rounds by the number of its images.
    exact = execution is Plain or stop_loss is None
    if exact:
        assert differing(result, expected) == []
    else:
        assert torch.equal(result.iterations, expected.iterations)
        torch.testing.assert_close(result.images, expected.images, rtol=0, atol=1e-4)


def test_a_replay_has_the_bits_of_calls_that_look_as_rarely(network, pairs):
    settings = settings_of("fast", 0.02, 4)
    called, replayed = Tapes(warm_up=10_000), Tapes()
    expected = invert_batches(network, *pairs, settings, execution=called)
    result = invert_batches(network, *pairs, settings, execution=replayed)
    assert differing(result, expected, but=()) == []
    assert called.recorded == 0
    assert replayed.recorded >= 4  # both bodies, and again with fewer slots
    assert replayed.replayed > 2 * replayed.recorded


@pytest.mark.parametrize("use_best", [True, False], ids=["best", "last"])
def test_images_that_end_while_the_host_does_not_look_change_no_more(use_best):
    """Each image by itself: some reach the loss, one has no gradient, one no finite loss, one a NaN on its way."""

    def represent(x):
        values = x.flatten(1) @ weight
        return values + torch.where(x[:, 0, 0, :1] > 0.9, torch.nan, 0)

    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(3 * 16 * 16, 12))).float()
    seed = images(N, rng_seed=1)
    seed[:, 0, 0, 0] = 0.2
    target = represent(images(N, rng_seed=2)).nan_to_num(1.0)
    target[2] = represent(seed[2:3])[0]
    target[3] = 0
    target[4] = represent(seed[4:5])[0] + 300 * weight[0]
    settings = InversionSettings(iterations=40, stop_loss=0.05)
    rule = update_rule_of(settings)
    with torch.no_grad():

        def evaluate(x, goal, **options):
            return loss_and_descent(represent, x, goal, **options)

        expected = slow_invert(evaluate, seed, target, settings, rule, batch_size=N, use_best=use_best)
    assert {STOP_REASONS[reason] for reason in expected.stop_reason} == {"loss", "nonfinite", "iterations"}
    for execution in (Plain(), Tapes(), Tapes(look_every=7, shrink_at=0)):
        result = invert(represent, seed, target, settings, use_best=use_best, execution=execution)
        assert torch.equal(result.iterations, expected.iterations)
        assert torch.equal(result.stop_reason, expected.stop_reason)
        assert torch.equal(result.stalled, expected.stalled)
        torch.testing.assert_close(result.images, expected.images, rtol=0, atol=1e-4)
        torch.testing.assert_close(result.final_loss, expected.final_loss, rtol=1e-3, atol=1e-6)


def test_a_gradient_that_overflows_in_a_graph_is_taken_again_outside_of_it(pairs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Scaled(10), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
    network = as_network(model.eval(), pairs[0][:2])
    settings = InversionSettings(iterations=6, batch_size=4)
    expected = invert_batches(network, *pairs, settings, precision=HALF)
    result = invert_batches(network, *pairs, settings, precision=HALF, execution=Tapes())
    assert not expected.nonfinite.any()
    assert differing(result, expected, but=()) == []


def test_buffers_are_allocated_once(network, pairs):
    addresses = set()
    invert_batches(
        network,
        *pairs,
        settings_of("published", 0.2, 3),
        on_iteration=lambda at: addresses.add((at.images.data_ptr(), at.losses.data_ptr())),
    )
    assert len(addresses) == 1


def test_images_in_progress_are_those_that_the_host_does_not_know_to_be_finished(network, pairs):
    settings, shown = settings_of("published", 0.2, 4), []

    def show(at):
        assert len(at.pairs) == len(at.k) == len(at.images) == len(at.losses) <= 4
        shown.extend(zip(at.pairs.tolist(), at.k.tolist(), at.images.clone(), strict=True))

    result = invert_batches(network, *pairs, settings, execution=Tapes(look_every=5), on_iteration=show)
    in_time = [(pair, k) for pair, k, _ in shown if k <= result.iterations[pair]]
    assert sorted(in_time) == [(pair, k) for pair in range(N) for k in range(int(result.iterations[pair]) + 1)]
    assert len(in_time) < len(shown) <= len(in_time) + 4 * N
    assert max(k for _, k, _ in shown) <= settings.iterations
    late = [(pair, image) for pair, k, image in shown if k > result.iterations[pair]]
    assert all(torch.equal(image, result.images[pair]) for pair, image in late)  # they change no more


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch knows no CUDA")
@pytest.mark.parametrize("preset", ["published", "fast"])
def test_an_iteration_stays_on_its_device(preset):
    """With tensors of a GPU that have no values: what needs a value raises, and so does what mixes devices."""
    settings = InversionSettings(preset=preset, iterations=9, stop_loss=0.1)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        device = torch.device("cuda")
        weight = torch.rand(75, 6, device=device)

        def evaluate(x, goal, *, with_descent):
            """Differentiate by hand: autograd asks for the real device."""
            residual = goal - x.flatten(1) @ weight
            return residual.norm(dim=1) / goal.norm(dim=1), (residual @ weight.T).view_as(x)

        slots = Slots(
            evaluate,
            torch.rand(5, 3, 5, 5),
            torch.rand(5, 6),
            settings,
            update_rule_of(settings),
            count=4,
            device=device,
            use_best=False,
        )
        for _ in range(3):
            slots.evaluate()
            slots.step()
        assert slots.images.device.type == slots.finished.device.type == slots.history.device.type == "cuda"
