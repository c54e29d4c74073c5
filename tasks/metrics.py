"""Prometheus metrics of a worker, which Dask serves at `/metrics` next to its own.

Counters only grow; Prometheus computes rates: `rate(netsim_pairs_total{stage="invert"}[15m])` is images per second.
docs/howto/monitoring.md has more queries. Metrics of the flow are at `/metrics` of a scheduler that the flow started
itself, on this machine or on SLURM.
"""

import sys

from prometheus_client import Counter, Gauge

SHARDS = Counter("netsim_shards", "Shards computed and committed", ["stage"])
PAIRS = Counter("netsim_pairs", "Pairs in those shards, for stages that work on shards of pairs", ["stage"])
COMPUTED = Counter("netsim_compute_seconds", "Seconds spent computing shards", ["stage"])
WAITED = Counter("netsim_store_wait_seconds", "Seconds spent waiting for the store", ["stage"])
FAILED = Counter("netsim_failed_shards", "Unexpected errors while computing shards", ["stage"])
ITERATIONS = Counter("netsim_iterations", "Iterations of inversion, summed over images")
FLOPS = Counter("netsim_flops", "Useful floating-point operations of inversions")
PEAK = Gauge("netsim_peak_flops", "FLOP/s of a matrix product in the precision of inversion, on this worker")
GPU_MEMORY = Gauge("netsim_gpu_memory_bytes", "Peak memory allocated by netsim on this worker's GPU")
MISSING = Gauge("netsim_missing_shards", "Shards of a stage that are not done yet, in the flow", ["stage"])


def gpu_memory() -> float:
    """Return the peak number of bytes that this process allocated on its GPU; 0 if it uses none."""
    if "torch" not in sys.modules:  # the flow process does without it
        return 0
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0


GPU_MEMORY.set_function(gpu_memory)
