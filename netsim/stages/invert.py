"""invert: images that a network represents like the targets of a shard."""

from functools import cache

import numpy as np
import torch

from netsim.cancellation import check_cancelled
from netsim.images import to_unit
from netsim.inversion.engine import relative_distance
from netsim.inversion.flops import forward_flops, peak_flops
from netsim.inversion.invert import invert_batches
from netsim.inversion.precision import Precision
from netsim.stages.inputs import Recorded, computed_on, device, load_as_recorded, network, represent
from netsim.stages.work import StageResult
from netsim.store.layout import (
    QUANTITIES,
    from_stored,
    history_iterations,
    inverted,
    to_stored,
)
from netsim.store.metadata import InvertMetadata, train_metadata
from netsim.store.provenance import made_from, weights_hash
from netsim.store.run import Run


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Invert the network on a shard's pairs. The final loss is evaluated again on the images as they are stored."""
    drawn, inversion = run.record("draw", "pairs", shard), run.settings.inversion
    images = run.read_some(drawn, ["images/seed", "images/target"])
    seed, target = (to_unit(images[f"images/{kind}"]) for kind in ("seed", "target"))
    through, precision = network(run, name), Precision(**train_metadata(run, name).plan)
    result = invert_batches(
        through, seed, target, inversion, precision=precision, on_iteration=lambda _: check_cancelled()
    )
    stored = to_stored(result.images.numpy(), inversion.stored_as)
    final = relative_distance(represent(through, torch.from_numpy(from_stored(stored))), represent(through, target))
    columns = {name: getattr(result, name).numpy() for name in QUANTITIES if name != "final_loss"}
    columns |= {"final_loss": final.numpy(), "nonfinite": columns["nonfinite"] | ~np.isfinite(final.numpy())}
    history = result.history[history_iterations(inversion.iterations)].T.numpy()
    arrays = {
        f"{inverted(name)}/image": stored,
        f"{inverted(name)}/history": history.astype(np.float32),
        f"{inverted(name)}/losses": np.stack([columns[key].astype(np.float32) for key in QUANTITIES], axis=1),
    }
    median = float(final.median())
    metadata = InvertMetadata(
        weights={name: weights_hash(run, name)},
        made_from=made_from(run, ("invert", name, shard), [drawn]),
        median_loss=median if np.isfinite(median) else None,
        precision=str(precision),
        batch_size=result.batch_size,
        iterations=int(result.iterations.sum()),
        flops=2 * _flops_of_one(Recorded(run, name)) * int(result.iterations.sum()),
        peak_flops=peak_flops(str(device()), precision.dtype),
        **computed_on(),
    )
    return StageResult(arrays, metadata=metadata)


@cache
def _flops_of_one(wanted: Recorded) -> int:
    """Count the operations of representing one image."""
    network = load_as_recorded(wanted)
    return forward_flops(network, network.mean.new_zeros(1, *train_metadata(wanted.run, wanted.name).input_shape))
