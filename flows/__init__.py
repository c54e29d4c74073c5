"""Prefect flows, the clusters and the server they run on, and the command line."""

import tasks  # noqa: F401 (before anything connects, it exempts this machine from proxies)
