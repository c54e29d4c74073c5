"""The settings group `cluster:`, which says where a sweep runs.

It stands in a settings file, in a file of its own (`--cluster`), or in the form of the Prefect UI. It changes no
number, so it is not among the settings that identify a run. This module starts nothing: flows/clusters/runner.py does.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from netsim.errors import SettingsError
from netsim.settings import Form, Settings, brief, explain, read_file

WALLTIME = r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$"

EMBED_FACTOR = 8
"""Shards to embed per shard to invert in a task run: embedding one costs that much less."""

TLS = "Folder with ca.pem, cert.pem and key.pem of the Dask cluster, as created by `netsim certificates`"


class Execution(Settings):
    """Settings of every kind of cluster."""

    shards_per_task: int = Field(
        4,
        gt=0,
        json_schema_extra={"unit": "shards"},
        description="Shards per Prefect task run; aim for tasks of 30 s or more.",
    )
    credentials: str | None = Field(
        None,
        description="Name of an AWS Credentials block, for an s3:// store; null: the credentials of each process.",
    )

    @property
    def shards_by_stage(self) -> dict[str, int]:
        """Shards per task run, by name of the stage; one for all others."""
        block = self.shards_per_task
        return {"draw": block, "invert": block, "embed": EMBED_FACTOR * block}


class Local(Execution):
    """Worker processes on this machine, which end with the sweep."""

    model_config = ConfigDict(title="local")

    kind: Literal["local"] = "local"
    workers: int | None = Field(
        None, gt=0, description="Worker processes without a GPU, one thread each; null: one per core."
    )
    gpus: int | None = Field(
        None, ge=0, description="GPUs to use, each by a worker process of its own; null: all GPUs of the machine."
    )


class Scheduler(Execution):
    """An existing Dask scheduler. Workers with `--resources GPU=1` get the work that gains from a GPU."""

    model_config = ConfigDict(title="scheduler")

    kind: Literal["scheduler"] = "scheduler"
    address: str = Field(
        description="Address, as in tcp://host:8786 or tls://host:8786; it and its workers must have netsim installed."
    )
    tls: str | None = Field(None, description=f"{TLS}; required by a tls:// address.")

    @model_validator(mode="after")
    def _require_matching_tls(self) -> Self:
        encrypted = self.address.startswith("tls://")
        if encrypted and self.tls is None:
            raise ValueError(f"tls must be set for address {self.address}. Give the folder of its certificates")
        if self.tls is not None and not encrypted:
            raise ValueError(f"address must be tls://... with tls {self.tls}, got {self.address}")
        return self


class ElasticCluster(Execution):
    """Workers that are started while there is work for them."""

    minimum: int = Field(1, gt=0, description="Workers to keep while the sweep runs.")
    maximum: int = Field(8, gt=0, description="Most workers to run at once.")
    gpus: Literal[0, 1] = Field(1, description="GPUs per worker; a worker runs one inversion at a time.")
    memory: str = Field("16GB", description="Memory per worker, as in 16GB or 16GiB.")
    cores: int = Field(2, gt=0, description="Cores per worker: one to compute, one to read and write.")

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory per worker."""
        from dask.utils import parse_bytes  # 0.1 s, which `netsim --help` need not wait for

        return parse_bytes(self.memory)

    @model_validator(mode="after")
    def _require_memory(self) -> Self:
        try:
            positive = self.memory_bytes > 0
        except (ValueError, OverflowError):
            positive = False
        if not positive:
            raise ValueError(f"memory must be an amount such as 16GB or 16GiB, got {self.memory!r}")
        return self

    @model_validator(mode="after")
    def _require_ordered_bounds(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum must be at most maximum {self.maximum}, got {self.minimum}")
        return self


class Slurm(ElasticCluster):
    """SLURM jobs, one worker each. The sweep itself runs on a login node or in a long job of its own."""

    model_config = ConfigDict(title="slurm")

    kind: Literal["slurm"] = "slurm"
    partition: str | None = Field(None, description="Partition, as for `sbatch --partition`.")
    account: str | None = Field(None, description="Account, as for `sbatch --account`.")
    walltime: str = Field(
        "04:00:00",
        json_schema_extra={"pattern": WALLTIME},
        description="Walltime of a job, as in 04:00:00 or 1-00:00:00; a new job replaces one that ends.",
    )
    leave_early: int = Field(
        600,
        ge=0,
        json_schema_extra={"unit": "seconds"},
        description="Seconds before the end of its walltime at which a worker has finished its shard and ends.",
    )
    directives: tuple[str, ...] = Field(
        (), strict=False, description="Further options of sbatch, as in --constraint=a100."
    )
    prologue: tuple[str, ...] = Field(
        (), strict=False, description="Lines of the job script before netsim starts, as in module load cuda."
    )
    interface: str | None = Field(
        None, description="Network interface over which jobs reach this machine, as in ib0; null: the default one."
    )
    python: str | None = Field(None, description="Python interpreter of the jobs; null: the one that runs the sweep.")
    logs: str = Field("slurm-logs", description="Folder for the output of the jobs.")
    tls: str | None = Field(None, description=f"{TLS}, readable by the jobs; null: Dask traffic is not encrypted.")

    @property
    def walltime_seconds(self) -> int:
        """Walltime of a job in seconds."""
        days, _, clock = self.walltime.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds

    @property
    def worker_lifetime(self) -> int:
        """Longest lifetime of a worker in seconds."""
        return self.walltime_seconds - self.leave_early

    @model_validator(mode="after")
    def _require_lifetime(self) -> Self:
        if not re.match(WALLTIME, self.walltime):
            raise ValueError(f"walltime must be HH:MM:SS or D-HH:MM:SS, got {self.walltime!r}, as in 08:00:00")
        if self.worker_lifetime <= 0:
            raise ValueError(f"leave_early must be less than walltime {self.walltime}, got {self.leave_early} s")
        return self


class Kubernetes(ElasticCluster):
    """Pods started by the Dask operator, from an image in which netsim is installed."""

    model_config = ConfigDict(title="kubernetes")

    kind: Literal["kubernetes"] = "kubernetes"
    image: str = Field(description="Image of scheduler and workers, as built by deploy/Dockerfile.")
    namespace: str | None = Field(None, description="Namespace; null: that of the current context, or of this pod.")
    secret: str | None = Field(
        None, description="Name of a Secret whose keys become environment variables of every pod, as AWS_*."
    )
    service_account: str | None = Field(None, description="Service account of the pods.")


AnyCluster = Local | Scheduler | Slurm | Kubernetes


def _kind(cluster: Any) -> Any:
    """Return the kind of a cluster, or of settings that may leave it out."""
    return cluster.get("kind", "local") if isinstance(cluster, dict) else getattr(cluster, "kind", None)


def _form(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the form of `cluster`: alternatives by `anyOf`, because the older UI of Prefect knows no `oneOf`."""
    return {
        "anyOf": schema["oneOf"],
        "description": "Where the work is done; it changes no number. Choose the kind, then what it needs.",
    }


Cluster = Annotated[
    Annotated[Local, Tag("local")]
    | Annotated[Scheduler, Tag("scheduler")]
    | Annotated[Slurm, Tag("slurm")]
    | Annotated[Kubernetes, Tag("kubernetes")],
    Discriminator(_kind),
    Form(_form),
]
KINDS: dict[str, type[AnyCluster]] = {
    "local": Local,
    "scheduler": Scheduler,
    "slurm": Slurm,
    "kubernetes": Kubernetes,
}


def parse_cluster(values: Any, *, origin: str = "cluster") -> AnyCluster:
    """Parse a `cluster:` group. Raises SettingsError naming the first invalid setting and its `origin`."""
    if not isinstance(values, dict):
        raise SettingsError(f"{origin}: cluster must be a group of settings with a kind, got {brief(values)}")
    kind = values.get("kind", "local")
    if not (isinstance(kind, str) and kind in KINDS):
        raise SettingsError(f"{origin}: kind of cluster must be one of {', '.join(KINDS)}, got {brief(kind)}")
    try:
        return TypeAdapter(KINDS[kind]).validate_python(values)
    except ValidationError as error:
        raise SettingsError(f"{origin}: cluster of kind {kind}: {explain(error, KINDS[kind])}") from None


def resolve_cluster(
    values: Any,
    *,
    origin: str = "settings",
    workers: int | None = None,
    scheduler: str | None = None,
    file: str | None = None,
    **fields: Any,
) -> AnyCluster:
    """Return the cluster that the command line asks for, else that of the settings file, else local workers.

    Parameters
    ----------
    values, origin
        The `cluster:` group of the settings file, None if it has none, and the name of that file.
    workers, scheduler, file
        Options that replace the group; at most one may be given.
    fields
        Settings of any kind of cluster that override those of the group; None leaves them unchanged.

    Raises
    ------
    SettingsError
        If options exclude each other or a setting is invalid.
    """
    options = {"--workers": workers, "--scheduler": scheduler, "--cluster": file}
    given = [option for option, value in options.items() if value is not None]
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} exclude each other: each says where to run. Give only one")
    if file is not None:
        origin, values = file, read_file(file, kind="cluster").get("cluster")
        if values is None:
            raise SettingsError(
                f"{file} must have a group `cluster:`, as in `cluster: {{kind: slurm, partition: gpu}}`"
            )
    elif workers is not None:
        origin, values = "--workers", {"kind": "local", "workers": workers}
    elif scheduler is not None:
        origin, values = "--scheduler", {"kind": "scheduler", "address": scheduler}
    elif values is None:
        origin, values = "--cluster", {}
    if isinstance(values, dict):
        values = values | {name: value for name, value in fields.items() if value is not None}
    return parse_cluster(values, origin=origin)
