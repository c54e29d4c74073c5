"""A CUDA graph in all but the device: it records the operations of a body with their tensors, and replays these.

A replay runs no line of the body. It computes every operation again on the same memory, and writes what the operation
returned to the memory it returned then. So what a graph does wrong, this does wrong: a tensor that moved, a value that
was a number of Python when the body was recorded, a branch that was taken by the values of the first images.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
WAITING = {aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten._unique2}
"""Operations that wait for the device, or whose result has a shape that depends on values."""


class Tape(TorchDispatchMode):
    """The operations inside the block, which has no effect by itself."""

    def __init__(self):
        super().__init__()
        self.operations, self.before = [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        masks = [leaf for leaf in tensors(args[1:]) if leaf.dtype == torch.bool]
        indexed = func._overloadpacket in (aten.index, aten.index_put, aten.index_put_) and masks
        if func._overloadpacket in WAITING or indexed:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        for storage in map(torch.Tensor.untyped_storage, tensors((args, kwargs))):
            self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = func(*args, **kwargs)
        for storage in map(torch.Tensor.untyped_storage, tensors(result)):
            self.before.setdefault(storage.data_ptr(), (storage, None))  # made here
        self.operations.append((func, args, kwargs, result))
        return result

    def __exit__(self, *error):
        super().__exit__(*error)
        for storage, values in self.before.values():
            if values is not None:
                storage.copy_(values)
        self.before.clear()

    def replay(self):
        for func, args, kwargs, recorded in self.operations:
            before = {leaf.untyped_storage().data_ptr() for leaf in tensors((args, kwargs))}
            for old, new in zip(tensors(recorded), tensors(func(*args, **kwargs)), strict=True):
                if old.untyped_storage().data_ptr() not in before:
                    old.copy_(new)


def tensors(values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


class Tapes:
    """An `Execution` that looks as rarely as one on a GPU, and records and replays as that one does."""

    replays = True

    def __init__(self, look_every=3, shrink_at=0.75, warm_up=2):
        self.look_every, self.shrink_at, self.warm_up = look_every, shrink_at, warm_up
        self.recorded = self.replayed = 0
        self.reset()

    def reset(self):
        self.tapes, self.calls = {}, {}

    def run(self, body):
        if self.calls.setdefault(body, 0) < self.warm_up:
            self.calls[body] += 1
            body()
            return
        if body not in self.tapes:
            with Tape() as self.tapes[body]:
                body()
            self.recorded += 1
        self.tapes[body].replay()
        self.replayed += 1
