"""The update rules that `fast` is compared with (benchmarks/rules.py): what each solves, and that all get there."""

import pytest
import torch
from torch import nn

from benchmarks import rules
from netsim.networks import Network, Preprocessing

STOP_LOSS = 0.2


@pytest.fixture(scope="module")
def network() -> Network:
    """A network whose representation of 8 x 8 pixels bends."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Softplus(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    model = nn.Sequential(body, nn.Linear(64, 3))
    return Network(
        model, torch.rand(2, 1, 8, 8), name="bent", reference="tests:bent", preprocessing=Preprocessing([0.5], [0.25])
    )


@pytest.fixture(scope="module")
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return drawn[:8], drawn[8:]


@pytest.mark.parametrize("name", list(rules.inverters(coarse=0.3)))
def test_every_rule_reaches_the_loss_and_counts_its_passes(name, network, pairs):
    done = rules.inverters(coarse=0.3)[name](network, *pairs, STOP_LOSS, 500)
    seen, goal = (network.represent(images) for images in (done.images, pairs[1]))
    loss = (seen - goal).norm(dim=1) / goal.norm(dim=1)
    assert (loss <= STOP_LOSS * 1.001).all() and torch.allclose(loss, done.loss, atol=1e-4)
    assert (done.passes > 0).all() and (done.passes <= 500).all()
    assert (done.images >= 0).all() and (done.images <= 1).all()


def test_passes_of_gauss_newton_are_those_of_the_network(network, pairs, monkeypatch):
    """One image: a forward pass at first, then one in each step and one for each product with J."""
    forward, represent = [], network.represent
    monkeypatch.setattr(network, "represent", lambda images: forward.append(len(images)) or represent(images))
    done = rules.gauss_newton(inner=3)(network, pairs[0][:1], pairs[1][:1], STOP_LOSS, 500)
    steps = (float(done.passes) - 0.5) / 3.5
    assert steps == int(steps) > 0
    # the target; then of each step: the one that J' needs, which the step before it has taken, 3 with J, and the result
    assert len(forward) == 1 + 1 + int(steps) * (1 + 3 + 1)


def test_a_move_of_gauss_newton_solves_the_damped_equations():
    torch.manual_seed(0)
    linear = nn.Linear(16, 5, dtype=torch.float64)
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    residual = torch.rand(3, 5, dtype=torch.float64)
    damping = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)

    class Body:
        def represent(self, images: torch.Tensor) -> torch.Tensor:
            return linear(images.flatten(1))

    body = Body()
    move, kept = rules._move(body, x, body.represent(x), residual, damping, inner=5)  # type: ignore[arg-type]
    weight = linear.weight.detach()
    for k in range(3):
        solved = torch.linalg.solve(weight @ weight.T + damping[k] * torch.eye(5), residual[k])
        assert torch.allclose(move[k].flatten(), -weight.T @ solved, atol=1e-10)
    assert torch.equal(kept, damping)


def test_fista_takes_fewer_passes_than_plain_descent_where_curvatures_differ():
    """f = x' A x / 2 with eigenvalues 1 and 100, from the same point: acceleration is what it is for."""
    scales = torch.tensor([1.0, 100.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    goal = torch.tensor([0.2, 0.9], dtype=torch.float64).reshape(1, 1, 1, 2)

    def steps(accelerated: bool) -> int:
        rule, point = rules.FistaUpdate(reach=0.1), torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
        memory = rule.initial_memory(point)
        for step in range(2000):
            difference = point - goal
            loss = (scales * difference.square()).sum(dim=(1, 2, 3)).sqrt()
            if loss < 1e-3:
                return step
            descent = -scales * difference / loss
            if accelerated:
                rule.step(memory, point, descent, descent.flatten(1).norm(dim=1), loss)
            else:
                point += descent * loss / 100
        return 2000

    assert steps(accelerated=True) < steps(accelerated=False) / 2
