"""The devices of this machine."""

import os

import torch

from netsim.errors import SettingsError

GPU = {"GPU": 1}
"""The Dask resource of a worker that has a GPU, and of a task that takes one."""


def visible_gpus(asked: int | None) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs to use. Raises SettingsError for more than there are."""
    there = torch.cuda.device_count()
    if asked is not None and asked > there:
        raise SettingsError(f"cluster.gpus is {asked}, and this machine has {there} that torch can use")
    names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(there)))
    return names.split(",")[: there if asked is None else asked] if there else []
