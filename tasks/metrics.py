"""What a worker has done, for Prometheus: Dask serves it at /metrics of every worker, beside its own.

Rates are for Prometheus to take: rate(netsim_pairs_total{stage="invert"}[15m]) is images a second. docs/monitoring.md
has more of them. What the flow knows is at /metrics of a scheduler that it started itself: on this machine, and SLURM.
"""

import torch
from prometheus_client import Counter, Gauge

SHARDS = Counter("netsim_shards", "Shards computed and committed", ["stage"])
PAIRS = Counter("netsim_pairs", "Pairs in those shards, of stages whose shards are shards of pairs", ["stage"])
COMPUTED = Counter("netsim_compute_seconds", "Seconds spent computing shards", ["stage"])
WAITED = Counter("netsim_store_wait_seconds", "Seconds spent waiting for the store", ["stage"])
FAILED = Counter("netsim_failed_shards", "Times that a shard failed of what nobody foresaw", ["stage"])
ITERATIONS = Counter("netsim_iterations", "Iterations of inversion, summed over images")
FLOPS = Counter("netsim_flops", "Useful floating-point operations of inversions")
PEAK = Gauge("netsim_peak_flops", "FLOP/s of a matrix product in the precision of inversion, on this worker")
GPU_MEMORY = Gauge("netsim_gpu_memory_bytes", "Memory that netsim has on this worker's GPU, at the most so far")
GPU_MEMORY.set_function(lambda: torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0)
MISSING = Gauge("netsim_missing_shards", "Shards of a stage that are not done yet, in the flow", ["stage"])
