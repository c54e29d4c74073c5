"""Clusters: the workers that a sweep runs on.

settings     the group `cluster:` of a settings file; runner: a Prefect task runner for it
environment  the environment and imports of every worker
forkserver   the process that workers of this machine are forked from; preloaded: its imports
scheduler    an existing Dask scheduler; local, slurm, kubernetes: clusters that a sweep starts
certificates TLS between Dask's processes
"""
