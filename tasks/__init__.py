"""Thin Prefect tasks. Names and shard numbers go in, a few numbers come out; arrays stay in the store.

verbs           the task of each stage
worker          computing one block of shards, in a worker
dispatch        submitting what is missing, in the flow
prepare         checks before a flow starts
cancellation    ending work whose flow is gone, or whose worker is about to leave
interrupts      why this process is to stop: Ctrl-C, cancelled, marked as crashed
prefect_runs    keeping the states of runs in Prefect true; processes: which of them are gone
artifacts, logs, metrics    what the UI and Prometheus show
devices         GPUs of this machine
threads         background threads
proxies         requests to this machine, which must not go through a proxy
"""

import os

from tasks.proxies import bypass_proxies_on_loopback

bypass_proxies_on_loopback(os.environ)  # in commands, deployments and workers alike, before any of them connects
