"""Find the weights of a network among all tensors of a checkpoint, whatever they are wrapped in.

A checkpoint holds mappings of tensors by name, at any depth: `state_dict`, `model_ema`, `model_state_dict`. Inside one,
the network's names may follow a prefix (`model.`, `teacher.net.`), and wrappers add parts anywhere (`module.`,
`_orig_mod.`). No list says which of them to remove: a set of weights is whatever the names and shapes of the
architecture are found under. If two sets differ, as raw and averaged weights do, the user chooses.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from netsim.errors import NetworkError, SettingsError, nearest
from netsim.networks.network import Network
from netsim.networks.tensor_files import Saved
from netsim.networks.weights import BATCH_COUNT, listed, named_tensors

# Parts of tensor names that wrappers add: DataParallel and AveragedModel, torch.compile, gradient checkpoints, FSDP.
WRAPPERS = frozenset({"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})

# Last parts of the names of tensors that a layer in front of a network normalises its images by.
STATISTICS = frozenset({"mean", "std", "var", "mu", "sigma"})

# Names that robustness gives the mean and std of images, in its layers `normalizer` and `attacker.normalize`.
NORMALIZED = ("new_mean", "new_std")

# Keys that an error message lists.
LISTED_KEYS = 8


@dataclass(frozen=True)
class FoundWeights:
    """A set of weights in a checkpoint.

    Attributes
    ----------
    key
        Its place: the keys that lead to the mapping and the prefix of names in it, joined by dots; "" for neither.
    tensors
        Tensors by their names in the architecture, and surplus ones.
    normalisation
        The mean and std that robustness saved beside the weights, if any.
    ignored
        Names of other tensors in the same mapping, such as the weights of a loss.
    hint
        What else is in the file, for the end of an error message about these weights; empty if they are complete.
    """

    key: str
    tensors: Mapping[str, Tensor]
    normalisation: Mapping[str, list[float]]
    ignored: tuple[str, ...]
    hint: str = ""


def find_weights(
    saved: Saved, network: Network, *, key: str | None = None, origin: str, option: str = "--key "
) -> FoundWeights:
    """Find the one set of weights in a checkpoint that has the names and shapes of `network`.

    The number of classes may differ. Sets of equal tensors, such as both copies in an AttackerModel, count as one. If
    no set is complete, the one with most names is returned: loading it then fails with what is wrong.

    Parameters
    ----------
    saved
        All tensors of the checkpoint.
    network
        The architecture.
    key
        Place of the weights, or its first parts.
    origin
        Path of the checkpoint, for error messages.
    option
        What a user writes a key behind, for error messages.

    Raises
    ------
    SettingsError
        If several sets differ and `key` does not choose one, or nothing is saved under `key`.
    NetworkError
        If the network was trained behind a layer that normalises images.
    """
    key = None if key is None else key.strip(".")
    content = _Content(_under(saved, key, origin), network)
    places = content.complete()
    chosen = [place for place in places if place.key == key] or places or [content.most_similar()]
    sets = [content.at(place) for place in chosen]
    if not all(_equal(tensors, sets[0]) for tensors in sets[1:]):
        keys = [repr(place.key) for place in chosen]
        raise SettingsError(
            f"{origin} must have one set of weights of {network.reference}, got {len(keys)} that differ: "
            f"{listed(keys, most=LISTED_KEYS)}. Choose one, as in {option}{chosen[-1].key}"
        )
    normalisation, ignored = content.normalisation(chosen[0]), content.outside(chosen)
    if key is None and places and not normalisation:
        _check_statistics(ignored, network, origin, f"{option}{chosen[0].key}")
    hint = "" if places else f". {origin} has tensors under {listed(_keys(saved), most=LISTED_KEYS)}"
    return FoundWeights(chosen[0].key, sets[0], normalisation, ignored, hint)


def _under(saved: Saved, key: str | None, origin: str) -> Saved:
    """Select the tensors under a key."""
    if not key:
        return saved
    selected = {names: tensor for names, tensor in saved.items() if ".".join(names).startswith(f"{key}.")}
    if not selected:
        raise SettingsError(f"no tensors under {key!r} in {origin}{nearest(key, _keys(saved))}")
    return selected


def _keys(saved: Saved) -> list[str]:
    """List the keys of all mappings with tensors; of one on top, the first parts of the names in it."""
    return sorted({names[0].split(".")[0] if len(names) == 1 else ".".join(names[:-1]) for names in saved})


class _Place(NamedTuple):
    """A mapping, by the keys that lead to it, and a prefix of the names in it."""

    path: tuple[str, ...]
    prefix: str

    @property
    def key(self) -> str:
        return ".".join((*self.path, self.prefix)).rstrip(".")


class _Content:
    """Tensors of a checkpoint, and every place where names of a network occur among them."""

    def __init__(self, saved: Saved, network: Network) -> None:
        self._saved = saved
        self._shapes = {name: tensor.shape for name, tensor in named_tensors(network).items()}
        self._heads = tuple(f"{path}." for path in network.head_paths)
        self._wrappers = WRAPPERS - {part for name in self._shapes for part in name.split(".")}
        self._names: dict[_Place, set[str]] = {}
        for *path, name in sorted(saved, key=len):
            for prefix, rest in self._splits(name):
                if rest in self._shapes:
                    self._names.setdefault(_Place(tuple(path), prefix), set()).add(rest)

    def complete(self) -> list[_Place]:
        """List the places with all names of the network, in its shapes but for the number of classes."""
        required = {name for name in self._shapes if not name.endswith(BATCH_COUNT)}
        places = [place for place, names in self._names.items() if required <= names and self._has_shapes(place)]
        return sorted(places, key=lambda place: (place.key.count("."), place.key))

    def most_similar(self) -> _Place:
        """Return the place with most names of the network, or else the mapping with most tensors."""
        if self._names:
            return max(self._names, key=lambda place: len(self._names[place]))
        paths = [tuple(path) for *path, _ in self._saved]
        return _Place(max(paths, key=paths.count), "")

    def at(self, place: _Place) -> dict[str, Tensor]:
        """Return the tensors at a place, by their names in the architecture."""
        tensors: dict[str, Tensor] = {}
        for *path, name in self._saved:
            if tuple(path) == place.path and name.startswith(place.prefix):
                rest = name.removeprefix(place.prefix)
                plain = self._plain(rest)
                tensors[rest if plain in tensors else plain] = self._saved[*path, name]
        return tensors

    def outside(self, places: Sequence[_Place]) -> tuple[str, ...]:
        """List the tensors that are in the mapping of the first place, but at none of the places."""
        prefixes = tuple(place.prefix for place in places if place.path == places[0].path)
        names = [name for *path, name in self._saved if tuple(path) == places[0].path]
        return tuple(name for name in names if not (name.startswith(prefixes) or name.endswith(NORMALIZED)))

    def normalisation(self, place: _Place) -> dict[str, list[float]]:
        """Return the mean and std that robustness saved beside a place."""
        parts = place.prefix.split(".")[:-1]
        owners = (_joined(parts[:depth]) for depth in range(len(parts) + 1))
        names = {(*place.path, f"{owner}normalizer.{name}"): name for owner in owners for name in NORMALIZED}
        return {
            name.removeprefix("new_"): self._saved[key].double().flatten().tolist()
            for key, name in names.items()
            if key in self._saved
        }

    def _splits(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield every prefix of a name with the rest, in which wrappers are removed."""
        parts = name.split(".")
        for depth, first in enumerate(parts):
            if first not in self._wrappers:
                yield _joined(parts[:depth]), self._plain(".".join(parts[depth:]))

    def _plain(self, name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in self._wrappers)

    def _has_shapes(self, place: _Place) -> bool:
        tensors = self.at(place)
        return all(
            tensors[name].shape == shape or (name.startswith(self._heads) and tensors[name].shape[1:] == shape[1:])
            for name, shape in self._shapes.items()
            if name in tensors
        )


def _joined(parts: Sequence[str]) -> str:
    return "".join(f"{part}." for part in parts)


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(_identical(a[name], b[name]) for name in a)


def _identical(a: Tensor, b: Tensor) -> bool:
    """Return True if both have the same bits; NaN would differ from itself."""
    return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(*(t.reshape(-1).view(torch.uint8) for t in (a, b)))


def _check_statistics(ignored: Sequence[str], network: Network, origin: str, choice: str) -> None:
    """Refuse a mean or std beside the weights: the network was trained on other images than it would get."""
    statistics = [name for name in ignored if name.rpartition(".")[2].lstrip("_") in STATISTICS]
    if statistics:
        raise NetworkError(
            f"{origin} must hold only layers of {network.reference}, got {listed(statistics)}, by which images are "
            f"normalised first. Use python:MODULE:FUNCTION with a netsim.Preprocessing, or ignore them by {choice}"
        )
