"""Other update rules than that of `fast`, under one count of passes: `make bench BENCH=rules`, an hour and a half.

Networks that chose nothing (benchmarks.trained), standard and adversarially trained, are inverted by each rule until
every image has a relative loss of `--stop-loss`. Counted are forward passes and gradients, each as half a pass. A rule
is as good as the published steps if the other networks represent its images alike: the unbiased CKA of the inverted
network to each of the others, minus that on the published steps' images, with a jackknife error over groups of images.

published       the published momentum step of length 1/8; also with steps of 1/2
plateau         the same, from steps of 1 that halve when the loss has not fallen for ten
Nesterov        the same momentum, with gradients at the point ahead (Sutskever et al. 2013)
FISTA           accelerated gradient descent with restarts (Beck, Teboulle 2009; O'Donoghue, Candes 2015)
APGD            steps that halve at checkpoints, from the best image (Croce, Hein 2020, arXiv:2003.01690)
Gauss-Newton    Levenberg-Marquardt on the representation, by conjugate gradients in its space
two-level       `fast` at half the resolution, down to `--coarse`, then `fast` from there
fast            `netsim.inversion.steps.LbfgsPathUpdate`; also with other lengths of a step
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from benchmarks.inversion import processor
from benchmarks.trained import ARCHITECTURES, add_choices, draw_images, image_sets, trained
from flows.cli.console import table_of
from netsim.inversion.invert import invert_batches
from netsim.inversion.steps import TINY, LbfgsPathUpdate, Memory, MomentumUpdate, UpdateRule
from netsim.networks import Network
from netsim.settings import InversionSettings
from netsim.similarity.cka import PairSimilarity, similarity
from netsim.similarity.uncertainty import half_width, jackknife_se

GROUP = 8
"""Images that the jackknife deletes at a time."""

BATCH = 32
"""Images at once."""

PUBLISHED = "published"
"""The rule that the others are compared with."""

AGREES = 0.01
"""Difference of CKA up to which images count as the same."""


class Inverted(NamedTuple):
    """Images by a rule (n, C, H, W), their losses (n,), and the passes that each took (n,)."""

    images: Tensor
    loss: Tensor
    passes: Tensor


Inverter = Callable[[Network, Tensor, Tensor, float, int], Inverted]
"""Network, seeds, targets, loss at which an image stops, passes at most -> images."""


# ---- rules with a gradient at each step


def _images(values: Tensor) -> Tensor:
    """Shape one value for each image (n,) to multiply images."""
    return values[:, None, None, None]


def _unit(descent: Tensor, length: Tensor) -> Tensor:
    return descent / _images(length.clamp_min(TINY))


@dataclass(frozen=True)
class PlateauUpdate:
    """The published step, from `step_size` on, halved when the lowest loss is older than `patience` steps."""

    step_size: float = 1.0
    momentum: float = 0.9
    patience: int = 10

    def initial_memory(self, images: Tensor) -> Memory:
        """Return velocities of zero, the first step size, and no loss yet."""
        each = images.new_zeros(len(images))
        return {
            "velocity": torch.zeros_like(images),
            "step": each + self.step_size,
            "best": each + torch.inf,
            "age": each.clone(),
        }

    def step(self, memory: Memory, images: Tensor, descent: Tensor, length: Tensor, loss: Tensor) -> None:
        """Take the momentum step."""
        memory["age"].copy_(torch.where(loss < memory["best"], 0, memory["age"] + 1))
        memory["best"].copy_(torch.minimum(memory["best"], loss))
        stuck = memory["age"] >= self.patience
        memory["step"].copy_(torch.where(stuck, memory["step"] / 2, memory["step"]))
        memory["age"].masked_fill_(stuck, 0)
        memory["velocity"].mul_(self.momentum).add_(_unit(descent, length), alpha=1 - self.momentum)
        images.add_(memory["velocity"] * _images(memory["step"])).clamp_(0, 1)


@dataclass(frozen=True)
class NesterovUpdate:
    """The published step with the gradient at the point ahead, which `images` are."""

    step_size: float = 1 / 8
    momentum: float = 0.9

    def initial_memory(self, images: Tensor) -> Memory:
        """Return velocities of zero."""
        return {"velocity": torch.zeros_like(images)}

    def step(self, memory: Memory, images: Tensor, descent: Tensor, length: Tensor, loss: Tensor) -> None:
        """Take the step, then look ahead."""
        unit = _unit(descent, length) * (1 - self.momentum)
        memory["velocity"].mul_(self.momentum).add_(unit)
        images.add_(memory["velocity"] * self.momentum + unit, alpha=self.step_size).clamp_(0, 1)


@dataclass(frozen=True)
class FistaUpdate:
    """Accelerated gradient descent on f = loss^2 / 2, with restarts where the loss grows.

    The Lipschitz constant of the gradient is the largest change of the gradient seen, forgotten by a tenth per step.
    """

    reach: float = 4.0

    def initial_memory(self, images: Tensor) -> Memory:
        """Return the seeds as both the last point and the point ahead."""
        each = images.new_zeros(len(images))
        return {
            "point": images.clone(),
            "ahead": images.clone(),
            "gradient": torch.zeros_like(images),
            "lipschitz": each.clone(),
            "t": each.clone(),
            "loss": each + torch.inf,
        }

    def step(self, memory: Memory, images: Tensor, descent: Tensor, length: Tensor, loss: Tensor) -> None:
        """Take a gradient step from the point ahead, then look ahead."""
        gradient, norm = descent * -_images(loss), length * loss
        first = memory["t"] == 0
        moved = (images - memory["ahead"]).flatten(1).norm(dim=1).clamp_min(TINY)
        secant = (gradient - memory["gradient"]).flatten(1).norm(dim=1) / moved
        grown = torch.maximum(0.9 * memory["lipschitz"], secant)
        lipschitz = torch.maximum(torch.where(first, 0, grown), norm / self.reach).clamp_min(TINY)
        restart = first | (loss > memory["loss"])
        t = torch.where(restart, 1, memory["t"])
        following = (1 + torch.sqrt(1 + 4 * t * t)) / 2
        point = (images - gradient / _images(lipschitz)).clamp(0, 1)
        ahead = (point + _images((t - 1) / following) * (point - memory["point"])).clamp(0, 1)
        for name, value in (("ahead", images), ("gradient", gradient), ("lipschitz", lipschitz), ("loss", loss)):
            memory[name].copy_(value)
        memory["point"].copy_(point)
        memory["t"].copy_(following)
        images.copy_(ahead)


@dataclass(frozen=True)
class ApgdUpdate:
    """Auto-PGD: steps halve at checkpoints where less than `progress` of them helped, and go on from the best image."""

    step_size: float = 2.0
    progress: float = 0.75
    first: int = 22
    fewest: int = 6

    def initial_memory(self, images: Tensor) -> Memory:
        """Return the seeds as last and best images."""
        each = images.new_zeros(len(images))
        memory = {name: images.clone() for name in ("last", "best_image")}
        memory |= {name: each.clone() for name in ("age", "helped")}
        memory["best"], memory["loss"], memory["best_before"] = (each + torch.inf for _ in range(3))
        return memory | {"step": each + self.step_size, "period": each + self.first}

    def step(self, memory: Memory, images: Tensor, descent: Tensor, length: Tensor, loss: Tensor) -> None:
        """Take the step, after a checkpoint if one is due."""
        memory["helped"] += loss < memory["loss"]
        memory["loss"].copy_(loss)
        better = loss < memory["best"]
        memory["best"].copy_(torch.minimum(memory["best"], loss))
        memory["best_image"].copy_(torch.where(_images(better), images, memory["best_image"]))
        memory["age"] += 1
        due = memory["age"] >= memory["period"]
        unhelpful = memory["helped"] < self.progress * memory["period"]
        halve = due & (unhelpful | (memory["best"] >= memory["best_before"]))
        memory["step"].copy_(torch.where(halve, memory["step"] / 2, memory["step"]))
        shorter = (memory["period"] - 3).clamp_min(self.fewest)
        memory["period"].copy_(torch.where(due, shorter, memory["period"]))
        memory["best_before"].copy_(torch.where(due, memory["best"], memory["best_before"]))
        for name in ("age", "helped"):
            memory[name].masked_fill_(due, 0)
        towards = _unit(descent, length) * _images(memory["step"])
        moved = images + 0.75 * ((images + towards).clamp(0, 1) - images) + 0.25 * (images - memory["last"])
        memory["last"].copy_(images)
        # a halved image has a gradient elsewhere: it returns to its best, and moves at the next step
        images.copy_(torch.where(_images(halve), memory["best_image"], moved.clamp(0, 1)))
        memory["last"].copy_(torch.where(_images(halve), images, memory["last"]))


def by_steps(rule: UpdateRule) -> Inverter:
    """Return the inverter of an update rule: a forward pass and a gradient at each step."""

    def invert(network: Network, seed: Tensor, target: Tensor, stop_loss: float, most: int) -> Inverted:
        settings = InversionSettings(iterations=most, stop_loss=stop_loss, batch_size=BATCH)
        record = invert_batches(network, seed, target, settings, update_rule=rule)
        return Inverted(record.images, record.final_loss, record.iterations.double())

    return invert


# ---- rules of another kind


def two_level(coarse: float) -> Inverter:
    """Return the inverter that works at half the resolution down to a loss of `coarse`, for a quarter of the passes."""

    def invert(network: Network, seed: Tensor, target: Tensor, stop_loss: float, most: int) -> Inverted:
        small = [functional.avg_pool2d(images, 2) for images in (seed, target)]
        first = by_steps(LbfgsPathUpdate())(network, *small, coarse, most)
        moved = functional.interpolate(first.images - small[0], scale_factor=2, mode="bilinear")
        second = by_steps(LbfgsPathUpdate())(network, (seed + moved).clamp(0, 1), target, stop_loss, most)
        return Inverted(second.images, second.loss, first.passes / 4 + second.passes)

    return invert


def gauss_newton(inner: int) -> Inverter:
    """Return Levenberg-Marquardt with `inner` conjugate gradients per step, in the space of representations.

    Solves (J J' + damping) u = residual, and moves by -J' u, the shortest move of the image for that change. A product
    with J counts as a forward pass, and one with J' as a gradient.
    """

    def invert(network: Network, seed: Tensor, target: Tensor, stop_loss: float, most: int) -> Inverted:
        batches = zip(seed.split(BATCH), target.split(BATCH), strict=True)
        return Inverted(
            *(
                torch.cat(each)
                for each in zip(*(_damped(network, *b, stop_loss, most, inner) for b in batches), strict=True)
            )
        )

    return invert


def _damped(network: Network, seed: Tensor, target: Tensor, stop_loss: float, most: int, inner: int) -> Inverted:
    goal = network.represent(target)
    scale = goal.norm(dim=1)
    images, passes = seed.clone(), torch.zeros(len(seed), dtype=torch.float64)
    representation = network.represent(images)
    loss = (representation - goal).norm(dim=1) / scale
    damping = torch.full_like(loss, torch.nan)
    passes += 0.5
    while (running := (loss > stop_loss) & (passes < most)).any():
        rows = torch.nonzero(running).flatten()
        x = images[rows].requires_grad_()
        with torch.enable_grad():
            y = network.represent(x)
        residual = y.detach() - goal[rows]
        move, damping[rows] = _move(network, x, y, residual, damping[rows], inner)
        tried = (x.detach() + move).clamp(0, 1)
        passes[rows] += inner + 0.5
        reached = (network.represent(tried) - goal[rows]).norm(dim=1) / scale[rows]
        better = reached < loss[rows]
        damping[rows] *= torch.where(better, 0.5, 4.0)
        images[rows] = torch.where(_images(better), tried, images[rows])
        loss[rows] = torch.where(better, reached, loss[rows])
        stuck = rows[damping[rows] > 1e12]
        passes[stuck] = passes[stuck].clamp_min(most)
    return Inverted(images, loss, passes)


def _move(
    network: Network, x: Tensor, y: Tensor, residual: Tensor, damping: Tensor, inner: int
) -> tuple[Tensor, Tensor]:
    """Return the move of the images, and their damping: at first a tenth of the curvature along the residual."""
    move, left = torch.zeros_like(x), residual
    direction, square = left, left.square().sum(dim=1)
    for _ in range(inner):
        (back,) = torch.autograd.grad(y, x, direction, retain_graph=True)
        _, forth = torch.func.jvp(network.represent, (x.detach(),), (back,))
        curvature = (forth * direction).sum(dim=1)
        first = 0.1 * curvature / direction.square().sum(dim=1).clamp_min(TINY)
        damping = torch.where(damping.isnan(), first, damping)
        along = (curvature + damping * direction.square().sum(dim=1)).clamp_min(TINY)
        weight = square / along
        move = move - back * _images(weight)
        left = left - weight[:, None] * (forth + damping[:, None] * direction)
        before, square = square, left.square().sum(dim=1)
        direction = left + (square / before.clamp_min(TINY))[:, None] * direction
    return move, damping


# ---- comparison


def inverters(coarse: float) -> dict[str, Inverter]:
    """Return all rules by name."""
    rules: dict[str, UpdateRule] = {
        PUBLISHED: MomentumUpdate(step_size=1 / 8, momentum=0.9),
        "published, steps of 1/2": MomentumUpdate(step_size=1 / 2, momentum=0.9),
        "plateau": PlateauUpdate(),
        "Nesterov": NesterovUpdate(),
        "FISTA": FistaUpdate(),
        "APGD": ApgdUpdate(),
        "fast": LbfgsPathUpdate(),
        "fast, steps up to 2": LbfgsPathUpdate(reach=2.0),
        "fast, steps up to 6": LbfgsPathUpdate(reach=6.0),
        "fast, steps up to 8": LbfgsPathUpdate(reach=8.0),
    }
    others = {f"Gauss-Newton, {inner} inner": gauss_newton(inner) for inner in (2, 5)}
    return {name: by_steps(rule) for name, rule in rules.items()} | others | {"two-level": two_level(coarse)}


class Result(NamedTuple):
    """Passes of all images of a rule, those above the loss, distances from the seeds, and CKA of each cell."""

    passes: Tensor
    above: Tensor
    distance: Tensor
    cells: dict[tuple[str, str], PairSimilarity]


def measure(
    inverter: Inverter, networks: Mapping[str, Network], seed: Tensor, target: Tensor, stop_loss: float, most: int
) -> Result:
    """Invert through each network, and compare it with the others on the images."""
    passes, above, distance, cells = [], [], [], {}
    for row, network in networks.items():
        with torch.no_grad():
            done = inverter(network, seed, target, stop_loss, most)
            seen = {
                name: torch.cat([each.represent(batch) for batch in done.images.split(BATCH)]).numpy()
                for name, each in networks.items()
            }
        groups = [{name: rows[k : k + GROUP] for name, rows in seen.items()} for k in range(0, len(seed), GROUP)]
        cells |= similarity(groups, [(row, column) for column in networks if column != row])
        passes.append(done.passes)
        above.append(done.loss > stop_loss * 1.001)
        distance.append((done.images - seed).flatten(1).norm(dim=1))
    return Result(torch.cat(passes), torch.cat(above), torch.cat(distance), cells)


def agreement(theirs: Result, ours: Result) -> tuple[list[float], int]:
    """Return the differences of CKA of all cells, and how many have an interval that excludes 0."""
    differences, outside = [], 0
    for cell, reference in theirs.cells.items():
        other = ours.cells[cell]
        difference = other.cka_unbiased - reference.cka_unbiased
        replicates = other.leave_one_out_unbiased - reference.leave_one_out_unbiased
        differences.append(difference)
        outside += abs(difference) > half_width(jackknife_se(replicates), len(replicates) - 1)
    return differences, outside


def main() -> None:
    """Train the networks, unless they are kept, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_choices(parser)
    parser.add_argument("--count", type=int, default=128, help="pairs of images")
    parser.add_argument("--stop-loss", type=float, default=0.1)
    parser.add_argument("--coarse", type=float, default=0.3, help="loss at which two-level changes the resolution")
    parser.add_argument("--passes", type=int, default=1000, help="passes at most per image")
    parser.add_argument("--only", nargs="*", metavar="RULE", help="rules to compare with `published`; default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)

    console = Console(width=150)
    training, test = image_sets(options.images)
    seed, target = draw_images(test, options.count)
    chosen = inverters(options.coarse)
    if options.only is not None:
        chosen = {name: chosen[name] for name in dict.fromkeys([PUBLISHED, *options.only])}
    measured: dict[str, list[Result]] = {}
    for radius in options.radius:
        networks = {name: trained(name, training, radius=radius) for name in ARCHITECTURES}
        for name, inverter in chosen.items():
            result = measure(inverter, networks, seed, target, options.stop_loss, options.passes)
            measured.setdefault(name, []).append(result)
            console.print(f"radius {radius:g}, {name}: {result.passes.mean():.0f} passes")
    table = table_of("rule", *(f"passes, radius {radius:g}" for radius in options.radius))
    for column in ("median", "above", "distance", "differences of CKA", f"within {AGREES:g}", "significant"):
        table.add_column(column, justify="right")
    for name, results in measured.items():
        pairs = [agreement(theirs, ours) for theirs, ours in zip(measured[PUBLISHED], results, strict=True)]
        differences = np.array([difference for values, _ in pairs for difference in values])
        table.add_row(
            name,
            *(f"{result.passes.mean():.0f}" for result in results),
            f"{torch.cat([result.passes for result in results]).median():.0f}",
            f"{torch.cat([result.above for result in results]).double().mean():.1%}",
            f"{torch.cat([result.distance for result in results]).mean():.2f}",
            f"{differences.min():+.3f} to {differences.max():+.3f}",
            f"{int((np.abs(differences) <= AGREES).sum())} of {len(differences)}",
            f"{sum(outside for _, outside in pairs)}",
        )
    console.print(table)
    console.print(f"{date.today()}, every image to {options.stop_loss:g}, {options.count} pairs, {processor()}")


if __name__ == "__main__":
    main()
