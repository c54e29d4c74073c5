"""Program that reads a pickled checkpoint without running any code in it: `python -I unpickle.py CHECKPOINT OUT`.

A pickle is a program, and can do harm only through the functions that it looks up. Here it finds those that rebuild
tensors, and instead of every other one an inert class that ignores all operations. Schedulers, lambdas and classes
pickled beside the weights are not needed, and often cannot be unpickled any more: Python 3.8 cannot read what dill
wrote under 3.7. So no code runs even from a pickle that the user has allowed.

`netsim.networks.convert` starts this program for a file that the user has allowed and that has the expected hash.
Nothing imports it, and it imports nothing of netsim. It writes the tensors of every mapping in the checkpoint as
safetensors, each under a JSON list: the keys that lead to its mapping, then its name there.
"""

import json
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

# All that a pickle can look up.
HARMLESS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    **{("torch._utils", name): getattr(torch._utils, name) for name in ("_rebuild_tensor_v2", "_rebuild_parameter")},
}


class _InertType(type):
    def __call__(cls, *_: Any, **__: Any) -> Any:
        return cls

    def __setitem__(cls, _key: Any, _value: Any) -> None:
        pass


class Inert(metaclass=_InertType):
    """Stand-in for everything that a pickle must not look up. Calling, filling or restoring it does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Return the class: it has no instances."""
        return cls

    @staticmethod
    def __setstate__(_: Any) -> None:
        pass

    append = extend = add = update = __setstate__


class Unpickler(pickle.Unpickler):
    """Unpickler that finds nothing but what rebuilds tensors."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle looks up, or `Inert` if it may not."""
        return HARMLESS.get((module, name), Inert)


def load(file: BinaryIO, **options: Any) -> Any:
    """Unpickle a file. torch.load requires this function and `Unpickler` of its `pickle_module`."""
    return Unpickler(file, **options).load()


def _refuse(*_: Any, **__: Any) -> None:
    raise ValueError("it must be a checkpoint, got a TorchScript program")


def tensors_of(checkpoint: Any) -> dict[str, Tensor]:
    """Return the tensors of all mappings in a checkpoint, by the JSON list of their keys.

    Keys that are not text are passed over: they belong to the state of an optimizer.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not isinstance(checkpoint, dict):
        raise ValueError("it must hold a dict of tensors; a model that was pickled as a whole is code")
    tensors = {
        json.dumps(keys): tensor.detach().contiguous().clone() for keys, tensor in _tensors(checkpoint, (checkpoint,))
    }
    if not tensors:
        raise ValueError("it must hold a dict of tensors at any depth; a model that was pickled as a whole is code")
    return tensors


def _tensors(mapping: dict[Any, Any], parents: tuple[Any, ...], *keys: str) -> Iterator[tuple[list[str], Tensor]]:
    """Yield every tensor in a mapping and those inside, with its keys. A mapping may contain itself."""
    for key, value in mapping.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            yield [*keys, key], value
        elif isinstance(key, str) and isinstance(value, dict) and not any(value is parent for parent in parents):
            yield from _tensors(value, (*parents, value), *keys, key)


def main(checkpoint: str, out: str) -> None:
    """Write the tensors in the file `checkpoint` to the file `out`."""
    torch.jit.load = _refuse  # torch.load passes TorchScript files to it
    content = torch.load(checkpoint, map_location="cpu", pickle_module=sys.modules[__name__], weights_only=False)
    safetensors.torch.save_file(tensors_of(content), out)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
