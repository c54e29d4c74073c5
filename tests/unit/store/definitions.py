"""Settings, array specifications and values that tests of the store share."""

import numpy as np

from netsim.settings import parse_settings
from netsim.store.arrays import ArraySpec
from netsim.store.records import Record
from netsim.store.run import Run

SETTINGS = parse_settings({"networks": ["small:vgg", "small:resnet18"], "pairs": {"count": 8, "shard_size": 4}})
LOSS = ArraySpec("inverted/vgg/final_loss", (8,), "float32", ("pair",))
IMAGE = ArraySpec(
    "inverted/vgg/image",
    (8, 1, 6, 6),
    "uint16",
    ("pair", "channel", "y", "x"),
    attributes={"scale_factor": 1 / 65535},
)
WHOLE = ArraySpec(
    "similarity/natural/cka",
    (2, 2),
    "float64",
    ("through", "observer"),
    coordinates={"through": ["vgg", "resnet18"], "observer": ["vgg", "resnet18"]},
)
RECORD = "commits/invert/vgg/00000.json"
"""Path of the commit record of the unit that `commit(run, 0, ...)` writes."""


def arrays(value: float) -> dict[str, np.ndarray]:
    """Values of `LOSS` and `IMAGE` for one shard of 4 pairs."""
    return {
        LOSS.path: np.full(4, value, "float32"),
        IMAGE.path: np.arange(144, dtype="uint16").reshape(4, 1, 6, 6) + int(value),
    }


def commit(run: Run, shard: int, value: float) -> Record:
    """Commit a shard of `invert vgg` that holds `arrays(value)`."""
    return run.commit("invert", "vgg", shard, arrays=arrays(value), facts={"note": "x"}, seconds=1.5)


def flipped(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit flipped."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
