"""The order of classes: which class is output 0 of a network, where it depends on how names are sorted."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from netsim.images.base import ArrayImages, ImageSet
from netsim.images.listed import ListedImages

# As the source lists them (folders sorted as text, as ImageFolder does), or with numbers in names as numbers.
ClassOrder = Literal["listed", "natural"]

# Accuracy that another order of classes must add to be worth a warning; it must also double it.
_MUCH_BETTER = 0.1

# Classes that a warning names.
_MAX_NAMED = 4


def in_order(images: ImageSet, order: ClassOrder) -> ImageSet:
    """Return the same images, in the same order, with their classes in another order and labels to match."""
    if order == "listed":
        return images
    assert isinstance(images, ArrayImages | ListedImages)  # all that load_images opens
    ranks = natural_ranks(images.classes)
    classes = tuple(images.classes[position] for position in np.argsort(ranks))
    return replace(images, classes=classes, labels=ranks[images.labels])


def natural_ranks(classes: tuple[str, ...]) -> np.ndarray:
    """Return the position of each class if numbers in names compare as numbers: (classes,) int64.

    Examples
    --------
    >>> natural_ranks(("1", "10", "2"))
    array([0, 2, 1])
    """
    return _ranks([(_natural_key(name), name) for name in classes])


def text_ranks(classes: tuple[str, ...]) -> np.ndarray:
    """Return the position of each class if names are sorted as text, as ImageFolder does: (classes,) int64."""
    return _ranks(classes)


def describe_order(predicted: np.ndarray, images: ImageSet, order: ClassOrder) -> list[str]:
    """Describe in a sentence that the other order of classes fits predictions (n,) much better; empty otherwise."""
    other, rank = ("natural", natural_ranks) if order == "listed" else ("listed", text_ranks)
    ranks = rank(images.classes)
    accuracy, would_be = (float((predicted == labels).mean()) for labels in (images.labels, ranks[images.labels]))
    if would_be < max(2 * accuracy, accuracy + _MUCH_BETTER):
        return []
    return [
        f"Accuracy is {accuracy:.1%}, but with the classes in the order {_first_few(images.classes, ranks)} "
        f"it would be {would_be:.1%}. Set images.class_order={other} in a new store if the network was trained so."
    ]


def _first_few(classes: tuple[str, ...], ranks: np.ndarray) -> str:
    return ", ".join(classes[position] for position in np.argsort(ranks)[:_MAX_NAMED]) + " ..."


def _ranks(keys: Sequence[Any]) -> np.ndarray:
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return np.argsort(np.array(order, dtype=np.int64))


def _natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key in which numbers come before text and compare as numbers."""
    parts = (part for part in re.split("([0-9]+)", name) if part)
    return tuple((0, int(part), "") if part.isascii() and part.isdecimal() else (1, 0, part) for part in parts)
