"""GPUs of this machine.

Nothing here imports torch: the flow process only counts GPUs, and would wait seconds for it.
"""

import os
import subprocess
import sys
from pathlib import Path

from netsim.errors import SettingsError

GPU = {"GPU": 1}
"""The Dask resource of a worker that has a GPU, and of a task that takes one."""

DEVICE_FILES = ("nvidia[0-9]*", "nvidiactl", "nvhost*", "nvmap", "dxg", "kfd")
"""Patterns of files in /dev that drivers of GPUs create: NVIDIA's, also on Jetson and in WSL, and AMD's."""


def visible_gpus(requested: int | None) -> list[str]:
    """Return the GPUs to use, by their names in CUDA_VISIBLE_DEVICES.

    Parameters
    ----------
    requested
        Number of GPUs; None for all.

    Raises
    ------
    SettingsError
        If the machine has fewer.
    """
    available = count_gpus() if requested != 0 else 0
    if requested is not None and requested > available:
        raise SettingsError(
            f"cluster.gpus must be at most {available}, the GPUs that torch finds here, got {requested}"
        )
    names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(available)))
    return names.split(",")[: available if requested is None else requested] if available else []


def count_gpus() -> int:
    """Return the number of GPUs that torch can use, by asking it in another process if there is any device file."""
    if not any(next(Path("/dev").glob(pattern), None) for pattern in DEVICE_FILES):
        return 0
    code = "import torch; print(torch.cuda.device_count())"
    counted = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if counted.returncode:
        reason = counted.stderr.strip().rpartition("\n")[2]
        raise SettingsError(f"cannot count GPUs: {reason}. To run without them, set cluster.gpus to 0")
    return int(counted.stdout.split()[-1])
