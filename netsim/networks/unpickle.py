"""A process that reads a pickled checkpoint, and runs nothing that is in it: `python -I unpickle.py CHECKPOINT OUT`.

A pickle is a program. It can only do harm by the functions that it looks up, so here it finds those that rebuild
tensors, and for everything else something inert that swallows whatever is done to it. Schedulers, lambdas and classes
that are pickled beside the weights are of no use to us, and often cannot be unpickled any more: what dill wrote under
Python 3.7 says nothing to 3.8. So even whoever allows a pickle allows no code.

`netsim.networks.convert` starts it, for a file that was allowed and whose hash is the one expected. Nothing imports it,
and it imports nothing of netsim. It writes the tensors of the state dict, by their names there, as safetensors.
"""

import pickle
import sys
from collections import OrderedDict
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

STATE_DICTS = ("model", "state_dict")  # where robustness keeps it, today and in its first versions

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
    """Calling it, making one, filling it, giving it a state: all do nothing, and give this class again."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return cls

    @staticmethod
    def __setstate__(_: Any) -> None:
        pass

    append = extend = add = update = __setstate__


class Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return HARMLESS.get((module, name), Inert)


def load(file: BinaryIO, **options: Any) -> Any:
    """What torch.load asks of a module that unpickles: this, and `Unpickler`."""
    return Unpickler(file, **options).load()


def _refuse(*_: Any, **__: Any) -> None:
    raise ValueError("it is a TorchScript program, not a checkpoint")


def tensors_of(checkpoint: Any) -> dict[str, Tensor]:
    if not isinstance(checkpoint, dict):
        raise ValueError("it holds no dict of tensors; a whole model that was pickled is code")
    for key in STATE_DICTS:
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    found = {name: value for name, value in checkpoint.items() if isinstance(value, Tensor)}
    if not found or not all(isinstance(name, str) for name in found):
        raise ValueError(f"it holds no dict of tensors, neither by itself nor as {' or '.join(STATE_DICTS)}")
    return {name: value.detach().contiguous().clone() for name, value in found.items()}


def main(checkpoint: str, out: str) -> None:
    torch.jit.load = _refuse  # torch.load takes a TorchScript file there
    found = torch.load(checkpoint, map_location="cpu", pickle_module=sys.modules[__name__], weights_only=False)
    safetensors.torch.save_file(tensors_of(found), out)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
