"""Where a sweep executes.

settings     the group `cluster:` of a settings file; runner: a Prefect task runner for it
environment  what every worker is started with
local, scheduler, slurm, kubernetes    one kind of cluster each; certificates: TLS between Dask's processes
"""
