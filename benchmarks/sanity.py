"""Measures of similarity where the answer is known: `make bench BENCH=sanity`, half an hour on two cores.

Layers: ten networks of one architecture are trained from ten random seeds. For each layer of one of them, which layer
of another is the most similar? The right answer is the same layer (Kornblith et al. 2019, arXiv:1905.00414, section
6.1), and the table has how often each measure gives it.

Relations: a network should resemble one that only a training seed tells apart more than one of another width, that one
more than one of another architecture, and that one more than one trained on random labels (after Klabunde et al. 2025,
ReSi, arXiv:2408.00531). For each network, all pairs of others in different relations to it are ordered by each measure,
and the table has the share that is ordered as expected; 0.5 is chance.

Both on natural images, which are the targets, and on images that were inverted through the one network. Standard errors
are over networks: a jackknife that leaves out one at a time. Networks are trained on the Fashion-MNIST that is shipped,
and they and their inversions are kept under runs/benchmarks, from which the next call continues.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise, permutations
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from benchmarks.trained import KEPT
from benchmarks.trained import vgg as plain
from flows.cli.console import table_of
from netsim.images import ArrayImages, ImageSet, load_images, to_unit
from netsim.images.pairs import draw_pairs
from netsim.inversion.invert import invert_batches
from netsim.networks import Network, Preprocessing
from netsim.networks.sources.small import GREY, SMALL, SmallResNet
from netsim.networks.training import accuracy, train_epochs
from netsim.report.svg import to_png, to_svg
from netsim.settings import InversionSettings
from netsim.similarity.cka import linear_cka
from netsim.similarity.measures import Measure, Sides, measures
from netsim.similarity.retraining import retrained_scores
from netsim.similarity.uncertainty import jackknife_se

SHARD = 64
"""Images in a shard, for measures that are computed from shards."""

INVERSION = InversionSettings(preset="fast", iterations=200, batch_size=32)

RELATIONS = ("training seed", "width", "architecture", "random labels")
"""From the most similar to the least."""

DIVERGENCES = ("jensen_shannon",)
"""Measures that are low where networks are similar."""

NO_SIMILARITY = ("cka_influence",)
"""Measures that say something else than how similar two networks are."""

SLOW = ("rsa_spearman",)
"""Measures that are left out of the 14,580 comparisons of layers: it takes as long as all others."""

Similarity = Callable[[np.ndarray, np.ndarray], float]


def narrow(num_classes: int = 10) -> nn.Module:
    """Build a ResNet-10 of 8 to 64 channels."""
    return SmallResNet(BasicBlock, [1, 1, 1, 1], divisor=8, num_classes=num_classes)


def wide(num_classes: int = 10) -> nn.Module:
    """Build a ResNet-10 of 16 to 128 channels."""
    return SmallResNet(BasicBlock, [1, 1, 1, 1], divisor=4, num_classes=num_classes)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": partial(plain, 1, 10),
    "narrow": narrow,
    "wide": wide,
    "vgg": SMALL["vgg"],
    "mobilenet": SMALL["mobilenet"],
}


@dataclass(frozen=True)
class Trained:
    """A network by what it is trained from, and where it is kept."""

    model: str
    rng_seed: int
    random_labels: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}-{self.rng_seed}{'-random' if self.random_labels else ''}"

    def kept(self, kind: str, options: argparse.Namespace) -> Path:
        return KEPT / f"sanity-{options.epochs}-{options.pairs}/{self.name}.{kind}.safetensors"

    def relation(self, other: "Trained") -> str | None:
        """Return the relation of another network to this one; None if it is of none that is compared."""
        models = {self.model, other.model}
        if other.random_labels:
            return "random labels" if len(models) == 1 else None
        if len(models) == 1:
            return "training seed"
        return "width" if models == {"narrow", "wide"} else "architecture"


# ---- what both parts need: networks, images, representations


def make(network: Trained, options: argparse.Namespace) -> float:
    """Train a network, invert through it, and keep both; return its accuracy on test images."""
    torch.set_num_threads(1)
    loaded, test = load(network, options), load_images("fashion-mnist", "test")
    kept = network.kept("inverted", options)
    if not kept.exists() and not network.random_labels:
        seeds, targets = natural(options)
        inversion = invert_batches(loaded, seeds, targets, INVERSION)
        above = float((inversion.final_loss > INVERSION.tolerance).double().mean())
        _keep(kept, {"images": inversion.images, "above": torch.tensor(above)})
    return accuracy(loaded, test)


def load(network: Trained, options: argparse.Namespace) -> Network:
    """Load a network that is kept, or train it."""
    training = load_images("fashion-mnist", "train")
    with torch.random.fork_rng():
        torch.manual_seed(network.rng_seed)
        model = MODELS[network.model]()
    loaded = Network(
        model,
        to_unit(training.read([0])),
        name=network.name,
        reference=f"benchmarks:{network.name}",
        preprocessing=Preprocessing(GREY.mean, GREY.std),
    )
    kept = network.kept("weights", options)
    if kept.exists():
        loaded.load_state_dict(safetensors.torch.load_file(kept))
        return loaded
    train_epochs(
        loaded,
        _with_random_labels(training) if network.random_labels else training,
        epochs=options.epochs,
        batch_size=128,
        learning_rate=0.1,
        weight_decay=0.015,
        rng_seed=network.rng_seed,
    )
    _keep(kept, loaded.state_dict())
    return loaded


def _with_random_labels(images: ImageSet) -> ImageSet:
    labels = np.random.default_rng(0).permutation(images.labels)
    return ArrayImages(images.name, images.read(np.arange(len(images))), labels, images.classes)


def _keep(path: Path, tensors: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished)
    unfinished.replace(path)


def natural(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Draw seeds and targets (n, 1, 28, 28)."""
    test = load_images("fashion-mnist", "test")
    drawn = draw_pairs(test.labels, options.pairs, rng_seed=0)
    return to_unit(test.read(drawn.seed)), to_unit(test.read(drawn.target))


def labels_of_targets(options: argparse.Namespace) -> np.ndarray:
    """Return the labels (n,) of the targets."""
    return draw_pairs(load_images("fashion-mnist", "test").labels, options.pairs, rng_seed=0).target_label


def inverted(network: Trained, options: argparse.Namespace) -> Tensor:
    """Read the images that were inverted through a network."""
    return safetensors.torch.load_file(network.kept("inverted", options))["images"]


def similarity_of(measure: Measure) -> Similarity:
    """Return a measure as a function of two arrays that is high where networks are similar."""
    sign = -1 if measure.name in DIVERGENCES else 1
    if not measure.streams:
        return lambda x, y: sign * float(measure.compute(x, y))

    def shards(x: np.ndarray, y: np.ndarray) -> list[Callable[[], Sides]]:
        return [partial(_rows, x, y, start) for start in range(0, len(x), SHARD)]

    return lambda x, y: sign * float(measure.compute(shards(x, y))[0])


def _rows(x: np.ndarray, y: np.ndarray, start: int) -> Sides:
    return x[start : start + SHARD], y[start : start + SHARD]


def linear(estimator: str) -> Similarity:
    """Return linear CKA by an estimator."""
    return lambda x, y: float(linear_cka(x, y, estimator="biased" if estimator == "biased" else "unbiased"))


# ---- layers


PLAIN = tuple(Trained("plain", seed) for seed in range(10))

LAYER_MEASURES: dict[str, Similarity] = {
    "linear CKA (unbiased)": linear("unbiased"),
    "linear CKA (biased)": linear("biased"),
    **{
        each.title: similarity_of(each)
        for name, each in measures().items()
        if each.takes == "representations" and name not in (*NO_SIMILARITY, *SLOW)
    },
}


def layer_outputs(network: Network, images: Tensor) -> list[np.ndarray]:
    """Compute the output (n, channels) of every ReLU, averaged over positions."""
    outputs: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.clone()))
        for module in network.body.modules()
        if isinstance(module, nn.ReLU)
    ]
    with torch.no_grad():
        network.represent(images)
    for hook in hooks:
        hook.remove()
    return [(output.mean(dim=(2, 3)) if output.dim() == 4 else output).double().numpy() for output in outputs]


def identified(first: Trained, second: Trained, options: argparse.Namespace) -> dict[tuple[str, str], np.ndarray]:
    """Find, by (set, measure), which layers of the first have the same layer of the second as the most similar one."""
    torch.set_num_threads(1)
    networks = [load(each, options) for each in (first, second)]
    sets = {"natural": natural(options)[1], "inverted": inverted(first, options)}
    found = {}
    for name, images in sets.items():
        layers, others = (layer_outputs(network, images) for network in networks)
        for title, measure in LAYER_MEASURES.items():
            values = np.array([[measure(x, y) for y in others] for x in layers])
            found[name, title] = recognised(values)
    return found


def recognised(values: np.ndarray) -> np.ndarray:
    """Return which rows of similarities (layers, layers) are largest on the diagonal; what is undefined is not.

    >>> recognised(np.array([[0.9, 0.1], [0.8, 0.7]])).tolist()
    [True, False]
    """
    known = np.where(np.isnan(values), -np.inf, values)
    alone = (known == known.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return np.asarray(alone & (known.argmax(axis=1) == np.arange(len(known))))


def layer_rows(found: Mapping[tuple[Trained, Trained], Mapping[tuple[str, str], np.ndarray]]) -> list[list[str]]:
    """Make the rows of the table of layers: measure, share on natural and on inverted images with standard errors."""
    rows = []
    for title in LAYER_MEASURES:
        row = [title]
        for name in ("natural", "inverted"):
            shares = {pair: float(by[name, title].mean()) for pair, by in found.items()}
            value, error = left_out(PLAIN, partial(_mean_share, shares))
            row += [f"{value:.6f}", f"{error:.6f}"]
        rows.append(row)
    return rows


def _mean_share(shares: Mapping[tuple[Trained, Trained], float], networks: Sequence[Trained]) -> float:
    return float(np.mean([share for pair, share in shares.items() if set(pair) <= set(networks)]))


# ---- relations


RELATED = (
    *(Trained(model, seed) for model in ("narrow", "wide") for seed in range(3)),
    *(Trained(model, seed) for model in ("vgg", "mobilenet") for seed in range(2)),
    *(Trained(model, seed, random_labels=True) for model in ("narrow", "wide") for seed in range(2)),
)

ANCHORS = RELATED[:6]
"""Networks that have others in every relation."""

RELATION_MEASURES: dict[str, Measure | str] = {
    "linear CKA (unbiased)": "unbiased",
    "linear CKA (biased)": "biased",
    **{each.title: each for name, each in measures().items() if name not in NO_SIMILARITY},
}

Cells = dict[tuple[str, str, Trained], float]
"""Similarity by (set, measure, other network)."""


def similarities(anchor: Trained, options: argparse.Namespace) -> Cells:
    """Compare a network with all that are related to it, by every measure, on both sets."""
    torch.set_num_threads(1)
    networks = {each: load(each, options) for each in RELATED if each == anchor or anchor.relation(each)}
    sets = {"natural": natural(options)[1], "inverted": inverted(anchor, options)}
    labels = labels_of_targets(options).reshape(-1, SHARD)
    looks = {}
    for name, images in sets.items():
        for each, network in networks.items():
            with torch.no_grad():
                represented = network.represent(images)
                logits = network.head(represented).double().numpy()
            rows = represented.double().numpy()
            retrained = retrained_scores(rows.reshape(-1, SHARD, rows.shape[1]), labels)
            looks[name, each] = {
                "representations": rows,
                "predictions": logits,
                "retrained predictions": retrained.reshape(len(rows), -1),
            }
    cells: Cells = {}
    for name in sets:
        for title, measure in RELATION_MEASURES.items():
            for other in networks.keys() - {anchor}:
                if isinstance(measure, str):
                    sides = [looks[name, each]["representations"] for each in (anchor, other)]
                    cells[name, title, other] = linear(measure)(*sides)
                elif measure.takes != "two sets":
                    sides = [looks[name, each][measure.takes] for each in (anchor, other)]
                    cells[name, title, other] = similarity_of(measure)(*sides)
                elif name == "inverted":
                    sides = [looks[each, other]["representations"] for each in sets]
                    cells[name, title, other] = similarity_of(measure)(*sides)
    return cells


def ordered(values: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]]) -> float:
    """Return how often a value of the first relation of a pair is above one of the second; ties count half.

    >>> ordered({"width": [0.9, 0.5], "architecture": [0.5]}, [("width", "architecture")])
    0.75
    """
    shares = [
        np.mean([1.0 if x > y else 0.5 if x == y else 0.0 for x in values[near] for y in values[far]])
        for near, far in pairs
    ]
    return float(np.mean(shares))


def relation_rows(cells: Mapping[Trained, Cells]) -> list[list[str]]:
    """Make the rows of the table of relations: measure, set, share with error, and the share of each step."""
    steps = [tuple(combinations(RELATIONS, 2)), *(((near, far),) for near, far in pairwise(RELATIONS))]
    rows = []
    for title in RELATION_MEASURES:
        for name in ("natural", "inverted"):
            if (name, title, RELATED[1]) not in cells[RELATED[0]]:
                continue
            row = [title, name]
            for pairs in steps:
                value, error = left_out(RELATED, partial(_mean_ordered, cells, name, title, pairs))
                row += [f"{value:.6f}", f"{error:.6f}"]
            rows.append(row)
    return rows


def _mean_ordered(
    cells: Mapping[Trained, Cells],
    name: str,
    title: str,
    pairs: Sequence[tuple[str, str]],
    networks: Sequence[Trained],
) -> float:
    shares = []
    for anchor in (each for each in ANCHORS if each in networks):
        values: dict[str, list[float]] = {relation: [] for relation in RELATIONS}
        for other in networks:
            relation = anchor.relation(other)
            if other != anchor and relation:
                values[relation].append(cells[anchor][name, title, other])
        shares.append(ordered(values, pairs))
    return float(np.mean(shares))


def left_out(networks: Sequence[Trained], share: Callable[[Sequence[Trained]], float]) -> tuple[float, float]:
    """Return a share over networks, and its standard error by a jackknife that leaves out one of them at a time."""
    without = [share([each for each in networks if each != left]) for left in networks]
    return share(networks), float(jackknife_se(np.array(without)))


# ---- the command


def main() -> None:
    """Train, invert, compare, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=512, help=f"a multiple of {SHARD}")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--output", type=Path, help="folder for the tables as CSV, and a figure")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        networks = (*PLAIN, *RELATED)
        accuracies = dict(zip(networks, pool.map(make, networks, [options] * len(networks)), strict=True))
        pairs = list(permutations(PLAIN, 2))
        found = pool.map(identified, *zip(*pairs, strict=True), [options] * len(pairs))
        cells = pool.map(similarities, ANCHORS, [options] * len(ANCHORS))
        layers = layer_rows(dict(zip(pairs, found, strict=True)))
        relations = relation_rows(dict(zip(ANCHORS, cells, strict=True)))
    tables = {
        "networks": (["network", "accuracy", "images above the tolerance"], list(network_rows(accuracies, options))),
        "layers": (["measure", "natural", "natural_se", "inverted", "inverted_se"], layers),
        "relations": (["measure", "images", *_relation_columns()], relations),
    }
    for title, (columns, rows) in tables.items():
        table = table_of(*columns)
        for row in rows:
            table.add_row(*(_rounded(cell) for cell in row))
        Console(width=200).print(title, table)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        for title, (columns, rows) in tables.items():
            with (options.output / f"{title}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows([columns, *rows])
        figure = picture(layers, relations)
        (options.output / "sanity.svg").write_text(to_svg(figure), encoding="utf-8")
        (options.output / "sanity.png").write_bytes(to_png(figure))


def _relation_columns() -> Iterator[str]:
    steps = ["all", *(f"{near} over {far}" for near, far in pairwise(RELATIONS))]
    for step in steps:
        yield from (step, f"{step}, se")


def network_rows(accuracies: Mapping[Trained, float], options: argparse.Namespace) -> Iterator[list[str]]:
    """Make the rows of the table of networks; those trained on random labels are not inverted."""
    for network, accurate in accuracies.items():
        kept = network.kept("inverted", options)
        above = f"{float(safetensors.torch.load_file(kept)['above']):.6f}" if not network.random_labels else ""
        yield [network.name, f"{accurate:.6f}", above]


def _rounded(cell: str) -> str:
    try:
        return f"{float(cell):.3f}"
    except ValueError:
        return cell


def picture(layers: Sequence[Sequence[str]], relations: Sequence[Sequence[str]]) -> Figure:
    """Draw both tables as dots with their standard errors, natural beside inverted."""
    panels = {
        "Layers recognised": {(row[0], name): row[at : at + 2] for row in layers for name, at in SIDES.items()},
        "Relations in order": {(row[0], row[1]): row[2:4] for row in relations},
    }
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        titles = list(dict.fromkeys(measure for measure, _ in values))
        for shift, (name, colour) in zip((0.15, -0.15), (("natural", "#4c72b0"), ("inverted", "#dd8452")), strict=True):
            points = [(at, values[measure, name]) for at, measure in enumerate(titles) if (measure, name) in values]
            heights = [len(titles) - at + shift for at, _ in points]
            shares, errors = ([float(pair[k]) for _, pair in points] for k in (0, 1))
            axes.errorbar(shares, heights, xerr=errors, fmt="o", color=colour, markersize=4, label=f"{name} images")
        axes.set_yticks([len(titles) - at for at in range(len(titles))], titles, fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.set_xlim(0, 1.02)
        axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    return figure


SIDES = {"natural": 1, "inverted": 3}
"""Columns of the table of layers that have the share on each set."""


if __name__ == "__main__":
    main()
