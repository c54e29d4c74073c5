"""What seeds tell of targets, by the number of classes: `make bench BENCH=seeds`.

The label of a seed differs from that of its target. For K classes, an observer that sees nothing but the seed then has
a similarity of 1 / (K - 1)^2 to one that sees nothing but the target, without any inversion. The table has unbiased CKA
of one-hot labels of drawn pairs, and of two small networks that are trained on K classes of Fashion-MNIST, of which one
represents the targets and the other the seeds; both also for seeds of any label.
"""

import argparse

import numpy as np
import torch
from rich.console import Console

from flows.cli.console import table_of
from netsim.images import ArrayImages, ImageSet, load_images, to_unit
from netsim.images.pairs import Pairs, draw_pairs
from netsim.networks import Network, load_network
from netsim.networks.training import train_epochs
from netsim.results.controls import seed_only
from netsim.similarity.cka import linear_cka

NETWORKS = ("small:vgg", "small:resnet18")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 3, 4, 5, 10, 100, 1000])
    parser.add_argument("--pairs", type=int, default=800)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    table = table_of("classes", "1 / (K - 1)²", "labels", "networks", "labels, any seed", "networks, any seed")
    for classes in options.classes:
        cells = [f"{seed_only(classes):.4f}"]
        for seed_labels in ("other", "any"):
            labels = np.arange(max(20_000, 20 * classes)) % classes
            cells.append(f"{of_labels(draw_pairs(labels, 10_000, seed_labels=seed_labels), classes):.4f}")
            cells.append(of_networks(classes, seed_labels, options.pairs, options.epochs) if classes <= 10 else "")
        table.add_row(str(classes), *cells)
    Console().print(table)


def of_labels(pairs: Pairs, classes: int) -> float:
    """Compute the unbiased CKA of the one-hot labels of targets and seeds."""
    target, seed = (np.eye(classes, dtype=np.float32)[label] for label in (pairs.target_label, pairs.seed_label))
    return float(linear_cka(target, seed, estimator="unbiased"))


def of_networks(classes: int, seed_labels: str, count: int, epochs: int) -> str:
    """Compute the unbiased CKA of one network's representations of targets with another's of seeds, both ways."""
    torch.manual_seed(0)
    test, train = (_of_classes(load_images("fashion-mnist", split), classes) for split in ("test", "train"))
    first, second = (_trained(reference, train, epochs) for reference in NETWORKS)
    count = min(count, len(test))
    pairs = draw_pairs(test.labels, count, seed_labels="any" if seed_labels == "any" else "other")
    targets, seeds = (to_unit(test.read(indices)) for indices in (pairs.target, pairs.seed))
    with torch.no_grad():
        values = [
            linear_cka(one.represent(targets), other.represent(seeds), estimator="unbiased")
            for one, other in ((first, second), (second, first))
        ]
    return " and ".join(f"{float(value):.3f}" for value in values)


def _of_classes(images: ImageSet, classes: int) -> ArrayImages:
    chosen = np.flatnonzero(images.labels < classes)
    return ArrayImages(images.name, images.read(chosen), images.labels[chosen], images.classes[:classes])


def _trained(reference: str, images: ArrayImages, epochs: int) -> Network:
    network = load_network(f"{reference}@none", num_classes=len(images.classes), input_shape=images.shape)
    train_epochs(network, images, epochs=epochs, batch_size=64, learning_rate=0.05, weight_decay=5e-4, rng_seed=0)
    return network.eval()


if __name__ == "__main__":
    main()
