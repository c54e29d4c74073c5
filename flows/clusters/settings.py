"""Where a sweep executes: one setting, `cluster:`, of a settings file, of a file of its own (`--cluster`), or of the
form in the Prefect UI.

None of it changes a number, so none of it is in the settings that name a run. Nothing here starts anything:
flows/clusters/runner.py does.
"""

from typing import Annotated, Any, Literal, Self

from dask.utils import parse_bytes
from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from netsim.errors import SettingsError
from netsim.settings import Settings, explain, read_settings


class Execution(Settings):
    """What is said wherever a sweep executes."""

    shards_per_task: int = Field(4, gt=0, description="shards that one task run works through: aim at 30 s or more")
    credentials: str | None = Field(
        None, description="name of a block of type AWS Credentials, for an s3:// store; default: what each process has"
    )


class Local(Execution):
    """Worker processes on this machine, which end with the sweep."""

    kind: Literal["local"] = "local"
    workers: int | None = Field(
        None, gt=0, description="worker processes without a GPU, one thread each; default: one a core"
    )
    gpus: int | None = Field(
        None, ge=0, description="GPUs to use, each by a worker process of its own; default: all that this machine has"
    )


TLS = "folder with the ca.pem, cert.pem and key.pem of the Dask cluster, as `netsim certificates` makes it"


class Scheduler(Execution):
    """A Dask scheduler that is there already. Workers with `--resources GPU=1` get the work that gains from a GPU."""

    kind: Literal["scheduler"] = "scheduler"
    address: str = Field(
        description="as in tcp://host:8786, or tls://host:8786; netsim is installed there and on every worker"
    )
    tls: str | None = Field(None, description=f"{TLS}; goes with an address of tls://")

    @model_validator(mode="after")
    def _certificates_where_they_belong(self) -> Self:
        encrypted = self.address.startswith("tls://")
        if encrypted and self.tls is None:
            raise ValueError(f"address {self.address} needs certificates; name their folder as tls")
        if self.tls is not None and not encrypted:
            raise ValueError(f"tls {self.tls} is for an address of tls://, and this is {self.address}")
        return self


class ElasticCluster(Execution):
    """Workers that are asked for as long as there is work for them, and come and go."""

    minimum: int = Field(1, gt=0, description="workers that are kept while the sweep runs")
    maximum: int = Field(8, gt=0, description="workers that are asked for at most")
    gpus: Literal[0, 1] = Field(1, description="GPUs of a worker: it makes one inversion at a time")
    memory: str = Field("16GB", description="of a worker, as in 16GB or 16GiB")
    cores: int = Field(2, gt=0, description="of a worker: one computes, one reads and writes")

    @property
    def memory_bytes(self) -> int:
        """Of a worker."""
        return parse_bytes(self.memory)

    @field_validator("memory")
    @classmethod
    def _an_amount(cls, memory: str) -> str:
        try:
            some = parse_bytes(memory) > 0
        except (ValueError, OverflowError):
            some = False
        if not some:
            raise ValueError(f"{memory!r} is no amount of memory, as 16GB and 16GiB are")
        return memory

    @model_validator(mode="after")
    def _some_workers(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is more than maximum {self.maximum}")
        return self


WALLTIME = r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$"


class Slurm(ElasticCluster):
    """Jobs of SLURM, one worker each. The sweep itself runs on a login node, or in a long job of its own."""

    kind: Literal["slurm"] = "slurm"
    partition: str | None = Field(None, description="as for `sbatch --partition`")
    account: str | None = Field(None, description="as for `sbatch --account`")
    walltime: str = Field(
        "04:00:00", pattern=WALLTIME, description="of a job, as in 04:00:00 or 1-00:00:00; others take its place"
    )
    leave_early: int = Field(
        600, ge=0, description="seconds before the end of its walltime at which a worker is gone, its shard finished"
    )
    directives: tuple[str, ...] = Field((), strict=False, description="more options of sbatch, as in --constraint=a100")
    prologue: tuple[str, ...] = Field((), strict=False, description="lines of the job before netsim, as in module load")
    interface: str | None = Field(None, description="network interface that jobs reach this machine by, as in ib0")
    python: str | None = Field(None, description="python of the jobs; default: the one that runs this")
    logs: str = Field("slurm-logs", description="folder for what the jobs print")
    tls: str | None = Field(None, description=f"{TLS}, which jobs can read; default: Dask talks in the clear")

    @property
    def seconds(self) -> int:
        """Of the walltime."""
        days, _, clock = self.walltime.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds

    @property
    def lives(self) -> int:
        """Seconds that a worker has at most."""
        return self.seconds - self.leave_early

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.lives <= 0:
            raise ValueError(f"leave_early {self.leave_early} leaves nothing of walltime {self.walltime}")
        return self


class Kubernetes(ElasticCluster):
    """Pods that the Dask operator starts, from an image in which netsim is installed."""

    kind: Literal["kubernetes"] = "kubernetes"
    image: str = Field(description="of scheduler and workers, as deploy/Dockerfile makes it")
    namespace: str | None = Field(None, description="default: that of the current context, or of this pod")
    secret: str | None = Field(None, description="name of a Secret whose keys become variables of every pod, as AWS_*")
    service_account: str | None = Field(None, description="of the pods")


AnyCluster = Local | Scheduler | Slurm | Kubernetes
Cluster = Annotated[AnyCluster, Field(discriminator="kind")]
KINDS: dict[str, type[AnyCluster]] = {
    "local": Local,
    "scheduler": Scheduler,
    "slurm": Slurm,
    "kubernetes": Kubernetes,
}


def parse_cluster(values: Any, *, origin: str = "cluster") -> AnyCluster:
    """The cluster that a mapping says. Raises SettingsError naming the first thing that is wrong with it."""
    kind = values.get("kind", "local") if isinstance(values, dict) else None
    if kind not in KINDS:
        came = f"of kind {kind!r}" if isinstance(values, dict) else repr(values)
        raise SettingsError(f"{origin}: a cluster {came}; it is a group of settings of kind {', '.join(KINDS)}")
    try:
        return TypeAdapter(KINDS[kind]).validate_python(values)
    except ValidationError as error:
        raise SettingsError(f"{origin}: cluster of kind {kind}: {explain(error, KINDS[kind])}") from None


def chosen_cluster(
    said: tuple[str, Any] | None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    file: str | None = None,
    **more: Any,
) -> AnyCluster:
    """The cluster that a command line asks for, else the one that a settings file says: its name, and what it says.

    `more` are fields of any cluster; None leaves them as they are. Raises SettingsError.
    """
    asked = {"--workers": workers, "--scheduler": scheduler, "--cluster": file}
    given = [option for option, value in asked.items() if value is not None]
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} each say where to execute; give one of them")
    if file is not None:
        values = read_settings(file).get("cluster")
        if values is None:
            raise SettingsError(f"{file} has no group `cluster:`, as in `cluster: {{kind: slurm, partition: gpu}}`")
        said = file, values
    elif workers is not None:
        said = "--workers", {"kind": "local", "workers": workers}
    elif scheduler is not None:
        said = "--scheduler", {"kind": "scheduler", "address": scheduler}
    origin, values = said or ("--cluster", {})
    if isinstance(values, dict):
        values = values | {name: value for name, value in more.items() if value is not None}
    return parse_cluster(values, origin=origin)
