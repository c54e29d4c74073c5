"""What a worker has done, for Prometheus: Dask serves it at /metrics of every worker, beside its own.

Rates are for Prometheus to take: rate(netsim_images_total{stage="invert"}[5m]) is images a second.
"""

import torch
from prometheus_client import Counter, Gauge

SHARDS = Counter("netsim_shards", "Shards computed and committed", ["stage"])
PAIRS = Counter("netsim_pairs", "Pairs in those shards", ["stage"])
COMPUTED = Counter("netsim_compute_seconds", "Seconds spent computing shards", ["stage"])
WAITED = Counter("netsim_store_wait_seconds", "Seconds spent waiting for the store", ["stage"])
FAILED = Counter("netsim_failed_shards", "Times that a shard failed of what nobody foresaw", ["stage"])
GPU_MEMORY = Gauge("netsim_gpu_memory_bytes", "Memory that netsim has on this worker's GPU, at the most so far")
GPU_MEMORY.set_function(lambda: torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0)
