"""The report says what `Results` says, loudly where a number should not be trusted, in one page that loads nothing."""

import base64
import csv
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from netsim.errors import SettingsError
from netsim.report import headline, warnings_about, write_report
from netsim.results import Gallery, Loss, Matrix, Mean, NetworkFacts, Results

NINE = ("densenet", "mobilenet", "resnext", "resnet18", "resnet50", "shufflenet", "vgg", "wrn2", "wrn4")


def make_matrix(rng, count: int, *, center: float, symmetric: bool) -> Matrix:
    """Plausible similarities: ones on the diagonal, biased above unbiased."""
    cka = np.clip(center + 0.25 * center * rng.standard_normal((count, count)), 0.01, 0.99)
    if symmetric:
        cka = (cka + cka.T) / 2
    unbiased = cka - 0.02 - 0.03 * (1 - cka)
    np.fill_diagonal(cka, 1)
    np.fill_diagonal(unbiased, 1)
    off = ~np.eye(count, dtype=bool)
    error, floor = 0.004 + 0.002 * rng.random((2, count, count))
    mean, mean_unbiased = (Mean(float(values[off].mean()), 0.0042) for values in (cka, unbiased))
    return Matrix(cka, error * off, unbiased, 1.1 * error * off, 10 * floor, mean, mean_unbiased)


def make_loss(rng, n: int, *, final: float) -> Loss:
    iterations = np.unique(np.geomspace(1, 401, 60).astype(int)) - 1
    start = float(rng.uniform(0.7, 1.1))
    history = final + (start - final) * np.exp(-iterations / rng.uniform(20, 60))
    return Loss(
        initial=start * rng.lognormal(0, 0.1, n),
        final=final * rng.lognormal(0, 0.3, n),
        distance=rng.uniform(2, 6, n),
        stalled=0,
        nonfinite=0,
        history=history,
        history_iterations=iterations,
    )


def make_results(count: int = 9, n: int = 512, rng_seed: int = 0) -> Results:
    rng = np.random.default_rng([rng_seed, count])
    names = NINE[:count] + tuple(f"network_{index:02d}" for index in range(9, count))
    natural = make_matrix(rng, count, center=0.75, symmetric=True)
    inverted = make_matrix(rng, count, center=0.18, symmetric=False)
    facts = {
        name: NetworkFacts(
            name=name,
            reference=f"small:{name}",
            accuracy=float(rng.uniform(0.86, 0.92)),
            parameters=int(rng.integers(20_000, 900_000)),
            width=int(rng.choice([64, 128, 256])),
            weights_hash=rng.bytes(32).hex(),
            trained_here=True,
        )
        for name in names
    }
    return Results(
        networks=names,
        n=n,
        shards=16,
        natural=natural,
        inverted=inverted,
        difference=Mean(natural.mean.value - inverted.mean.value, 0.0051),
        difference_unbiased=Mean(natural.mean_unbiased.value - inverted.mean_unbiased.value, 0.0053),
        loss={name: make_loss(rng, n, final=float(rng.uniform(0.01, 0.03))) for name in names},
        facts=facts,
        tolerance=0.05,
        chance=0.1,
        provenance={"settings digest": "0f3a" * 16, "torch": "2.14.1", "device": "cpu", "created": "2025-01-02 03:04"},
    )


def make_gallery(results: Results, *, pairs: int = 4, shape: tuple[int, int, int] = (1, 28, 28)) -> Gallery:
    """Blobs: the target's blob is what an inverted image keeps a trace of."""
    rng = np.random.default_rng(7)
    channels, height, width = shape
    y, x = np.mgrid[:height, :width] / height

    def blobs() -> np.ndarray:
        cx, cy, r = rng.uniform(0.3, 0.7, (3, pairs, channels, 1, 1))
        return np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (0.15 * r) ** 1.2)

    seed, target = blobs(), blobs()
    inverted = {
        name: np.clip(seed + 0.15 * target + 0.08 * rng.standard_normal(seed.shape), 0, 1) for name in results.networks
    }
    labels = ["Ankle boot", "T-shirt/top", "Bag", "Dress", "Coat", "Sandal", "Shirt", "Sneaker"]
    return Gallery(
        pairs=np.arange(pairs) * 3,
        seed=np.round(255 * seed).astype(np.uint8),
        target=np.round(255 * target).astype(np.uint8),
        inverted=inverted,
        seed_labels=[labels[index % 8] for index in range(pairs)],
        target_labels=[labels[(index + 3) % 8] for index in range(pairs)],
    )
